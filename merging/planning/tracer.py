"""From a recipe's tree to the expression of every output tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.model_layout import is_head, is_late
from merging.kernels.random_masks import MaskKey
from merging.planning.embedding_alignment import EmbeddingAlignment
from merging.planning.expressions import Combine, Expression, Leaf, Origin
from merging.planning.parameter_resolution import (
    MissingValueError,
    Position,
    conflict,
    input_values,
    shared_values,
)
from merging.problems import Problems
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source, parameters


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor's place in a model.

    Attributes:
        layer: Number of the layer; ``None`` outside the layers.
        key: What follows the layer's number, or the name without the model's root.
    """

    layer: int | None
    key: str


class Tracer:
    """Resolves a recipe on checkpoints, tensor by tensor, collecting what is wrong."""

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        problems: Problems,
        aligner: EmbeddingAlignment,
    ) -> None:
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._problems = problems
        self._aligner = aligner
        self._donor = checkpoints[recipe.donor].layout
        self._numbers: dict[int, int] = {}  # id of a node -> one number for equal nodes
        self._made: dict[tuple[int, TensorPlace], Expression | None] = {}
        known: dict[Model | Merge, int] = {}
        self._tower = _mean(recipe.towers) if recipe.towers else recipe.root
        for node in (recipe.root, self._tower):
            self._number(node, known)

    def _number(self, node: Model | Merge, known: dict[Model | Merge, int]) -> None:
        self._numbers[id(node)] = known.setdefault(node, len(known))
        for child in _children(node):
            self._number(child, known)

    def layer_count(self, node: Model | Merge) -> int:
        """Number of layers of a node's result."""
        if isinstance(node, Model):
            return len(self._checkpoints[node.name].layout.layers)
        if node.slices:
            return sum(part.length for part in node.slices)
        return self.layer_count(node.sources[0].of)

    def check_depths(self, node: Merge) -> None:
        """Note inputs of different depth, and layer ranges beyond an input's end."""
        for part in node.slices:
            for source in part.sources:
                count = self.layer_count(source.of)
                if source.layers is not None and source.layers[1] > count:
                    self._problems.add(
                        f"layers: expected a range within the {count} layers of "
                        f"{_name(source.of)}, got {list(source.layers)}"
                    )
        if not node.slices:
            nodes = [source.of for source in node.sources]
            if METHODS[node.method].base.apart and node.base is not None:
                nodes.append(node.base)
            counts = {_name(of): self.layer_count(of) for of in nodes}
            if len(set(counts.values())) > 1:
                text = ", ".join(f"{name} {count}" for name, count in counts.items())
                self._problems.add(
                    f"{node.method}: expected inputs of one number of layers, got {text}"
                )

    def suffixes(self, node: Model | Merge, layer: int) -> set[str]:
        """What layer ``layer`` of a node consists of, over all its inputs."""
        if isinstance(node, Model):
            return set(self._checkpoints[node.name].layout.layers[layer])
        part, offset = _slice_of(node, layer)
        sources = node.sources if part is None else part.sources
        return {
            suffix
            for source in sources
            for suffix in self.suffixes(source.of, _source_layer(source, offset))
        }

    def origin(self, node: Model | Merge, layer: int) -> tuple[str, int]:
        """Model and layer that a node's layer comes from, following the first source."""
        if isinstance(node, Model):
            return node.name, layer
        part, offset = _slice_of(node, layer)
        source = (node.sources if part is None else part.sources)[0]
        return self.origin(source.of, _source_layer(source, offset))

    def output(self, place: TensorPlace) -> Expression | None:
        """How a tensor of the result is made; of the vision tower, as the recipe says of it."""
        root, vision = self._recipe.root, self._recipe.vision
        if vision is None or place.layer is not None or not vision.covers(self.name(root, place)):
            return self.trace(root, place)
        return self.trace(self._tower, place)

    def trace(self, node: Model | Merge, place: TensorPlace) -> Expression | None:
        """How a node's tensor is made; ``None`` where no input has it (noted if one must)."""
        if isinstance(node, Model):
            return self._stored(node.name, place)
        made_as = (self._numbers[id(node)], place)
        if made_as not in self._made:
            self._made[made_as] = self._merged(node, place)
        return self._made[made_as]

    def name(self, node: Model | Merge, place: TensorPlace) -> str:
        """Name of the tensor within a node; merges are named as the donor is."""
        layout = self._donor
        if isinstance(node, Model):
            layout = self._checkpoints[node.name].layout
        if place.layer is not None:
            return layout.layer_name(place.layer, place.key)
        return layout.outside.get(place.key) or self._donor.outside.get(place.key, place.key)

    def _stored(self, model: str, place: TensorPlace) -> Leaf | None:
        checkpoint = self._checkpoints[model]
        layout = checkpoint.layout
        names = layout.outside if place.layer is None else layout.layers[place.layer]
        tensor = names.get(place.key)
        if tensor is None and place.layer is None and is_head(place.key):
            if layout.head is not None:
                tensor = names[layout.head]
            elif checkpoint.tied and layout.embedding is not None:
                tensor = names[layout.embedding]
        if tensor is not None:
            return Leaf(model=model, tensor=tensor, info=checkpoint.tensors[tensor])
        if place.layer is not None or self._is_fault(model, place.key):
            name = self.name(Model(model), place)
            self._problems.add(f"model {model}: {name} is missing", group=(model, "lack"))
        return None

    def _is_fault(self, model: str, key: str) -> bool:
        """Whether a model that lacks a tensor outside the layers is broken, not just smaller."""
        if is_head(key):  # untied, or there would be a stand-in
            return True
        known = key in self._donor.outside
        layout = self._checkpoints[model].layout
        return (known and self._donor.is_required(key)) or layout.has_module(key)

    def _merged(self, node: Merge, place: TensorPlace) -> Expression | None:
        if place.layer is None and is_head(place.key) and not self._stores_head(node):
            embedding = self._donor.embedding
            return None if embedding is None else self.trace(node, TensorPlace(None, embedding))
        part, offset, depth = self._position(node, place)
        inputs: list[tuple[Source, str, Expression]] = []
        base: Expression | None = None
        origin = node.base if METHODS[node.method].base.apart else None
        for source in node.sources if part is None else part.sources:
            inner = TensorPlace(
                None if offset is None else _source_layer(source, offset), place.key
            )
            expression = self.trace(source.of, inner)
            if origin is not None and source.of == origin:
                base = expression
            elif expression is not None:
                inputs.append((source, self.name(source.of, inner), expression))
        if origin is not None and part is None:
            base = self.trace(origin, place)
        if place.layer is None and self._aligner.concerns(place.key):
            inputs, base = self._aligned(node, inputs, base)
        name = self.name(node, place)
        if origin is not None and base is None and inputs:
            self._problems.add(
                f"{node.method}: {name}: expected the base {_name(origin)} to have it, it does not",
                group=(node.method, "base"),
            )
            return None
        if not inputs:
            return base
        return self._combined(node, name, inputs, base, Position(part=part, depth=depth))

    def _aligned(
        self,
        node: Merge,
        inputs: list[tuple[Source, str, Expression]],
        base: Expression | None,
    ) -> tuple[list[tuple[Source, str, Expression]], Expression | None]:
        """Inputs and base with the rows of the output's vocabulary.

        Where a method has no base, the model that gives the config lends rows: as ``base_model``
        in the YAML that is exported.
        """
        operands = [expression for _, _, expression in inputs]
        operands += [base] if base is not None else []
        lender = node.base.name if isinstance(node.base, Model) else self._recipe.lender
        inner = node != self._recipe.root
        made = self._aligner.align(operands, lender=lender, inner=inner)
        pairs = zip(inputs, made, strict=False)
        aligned = [(source, of, expression) for (source, of, _), expression in pairs]
        return aligned, made[-1] if base is not None else None

    def _combined(
        self,
        node: Merge,
        name: str,
        inputs: list[tuple[Source, str, Expression]],
        base: Expression | None,
        at: Position,
    ) -> Expression | None:
        method = METHODS[node.method]
        if method.base is BaseRule.ENDPOINT:
            if len(inputs) == 1:
                return inputs[0][2]
            inputs = sorted(inputs, key=lambda item: item[0].of != node.base)
        operands = [expression for _, _, expression in inputs]
        if integers := self._same_integers(name, [*operands, *([] if base is None else [base])]):
            return integers
        try:
            sources = tuple((source, of) for source, of, _ in inputs)
            per_input = input_values(node, sources, at)
            shared = shared_values(node, name, at)
        except MissingValueError as error:
            self._problems.add(f"{node.method}: {error}", group=(id(node), "value"))
            return None
        if text := conflict(node.method, per_input, shared):
            self._problems.add(f"{node.method}: {name}: {text}", group=(id(node), "conflict"))
        masks = tuple(
            MaskKey(seed=self._recipe.seed, model=source.of.label, tensor=name)
            for source, _, _ in inputs
            if method.random
        )
        return Combine(
            method=node.method,
            inputs=tuple(operands),
            base=base,
            per_input=per_input,
            shared=shared,
            masks=masks,
            origin=Origin(merge=node, sources=sources, depth=at.depth),
        )

    def _same_integers(self, name: str, operands: list[Expression]) -> Leaf | None:
        """For tensors of whole numbers: the one they all agree on; they cannot be merged."""
        stored = [operand for operand in operands if isinstance(operand, Leaf)]
        whole = [leaf for leaf in stored if not leaf.info.dtype.is_floating_point]
        if not whole:
            return None
        first = self._checkpoints[whole[0].model].tensor(whole[0].tensor)
        for leaf in stored:
            other = self._checkpoints[leaf.model].tensor(leaf.tensor)
            if other.dtype != first.dtype or not torch.equal(first, other):
                self._problems.add(
                    f"model {leaf.model}: {name}: expected the whole numbers of {whole[0].model} "
                    "(they cannot be merged), got others"
                )
        return whole[0]

    def _position(self, node: Merge, place: TensorPlace) -> tuple[Slice | None, int | None, float]:
        """Slice of the tensor, offset of its layer in that slice, and its depth there."""
        if place.layer is None:
            within = self._donor.encoder_depth(place.key)
            if not node.slices:
                return None, None, within or 0.0
            last = within is None and is_late(place.key)
            return node.slices[-1 if last else 0], None, within or 0.0
        part, offset = _slice_of(node, place.layer)
        length = self.layer_count(node) if part is None else part.length
        return part, offset, offset / (length - 1) if length > 1 else 1.0

    def _stores_head(self, node: Model | Merge) -> bool:
        if isinstance(node, Model):
            checkpoint = self._checkpoints[node.name]
            return checkpoint.layout.head is not None or not checkpoint.tied
        return any(self._stores_head(child) for child in _children(node))


def _mean(names: Sequence[str]) -> Model | Merge:
    """The plain average of models; one alone is itself."""
    if len(names) == 1:
        return Model(names[0])
    weight = parameters(weight=1.0)
    return Merge(
        method="linear",
        sources=tuple(Source(of=Model(name), parameters=weight) for name in names),
    )


def _children(node: Model | Merge) -> list[Model | Merge]:
    if isinstance(node, Model):
        return []
    found: list[Model | Merge] = [source.of for group in node.groups() for source in group]
    return found if node.base is None else [*found, node.base]


def _slice_of(node: Merge, layer: int) -> tuple[Slice | None, int]:
    """The slice an output layer belongs to, and its offset in it."""
    for part in node.slices:
        if layer < part.length:
            return part, layer
        layer -= part.length
    return None, layer


def _source_layer(source: Source, offset: int) -> int:
    return offset if source.layers is None else source.layers[0] + offset


def _name(node: Model | Merge | None) -> str:
    return "" if node is None else node.label
