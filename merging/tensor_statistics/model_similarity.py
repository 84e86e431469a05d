"""Do models go together: the size of their deltas, cosines between them, and conflicts of sign.

Everything is estimated from a sample of each tensor: blocks at even distances, the same in every
model and on every machine. Of a delta's norm or of a cosine the sample shows two digits or more.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.model_layout import is_head, is_late
from merging.tensor_statistics.router_order import RouterOrder, compare_routers

BLOCK = 4096
"""Elements that are read in one piece."""

BLOCKS = 64
"""Pieces of a tensor that are read; of one with fewer elements, all of it."""

KINDS = ("attention", "mlp", "norm", "embeddings", "head", "other")
"""What a tensor can be part of, in the order they are shown."""

_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "feed_forward", "ffn", "experts", "fc_in", "fc_out")

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaSums:
    """Sums over some of the elements, estimated for all of them; k parents.

    Attributes:
        elements: Number of elements.
        origin: Squares of the origin: the base, or the parents' mean where there is none.
        along: ``(k,)``: inner products of each delta with the origin.
        products: ``(k, k)``: inner products of deltas.
        both: ``(k, k)``: entries that two parents changed.
        against: ``(k, k)``: of those the ones they changed in opposite directions.
    """

    elements: float
    origin: float
    along: tuple[float, ...]
    products: Matrix
    both: Matrix
    against: Matrix

    def size(self, at: int) -> float:
        """Norm of a delta, relative to the origin's; infinite where the origin is zero."""
        return _ratio(math.sqrt(self.products[at][at]), math.sqrt(self.origin))

    def cosine(self, one: int, other: int) -> float:
        """Between two deltas, in [-1, 1]; NaN where one is zero."""
        norms = math.sqrt(self.products[one][one] * self.products[other][other])
        return self.products[one][other] / norms if norms else math.nan

    def conflict(self, one: int, other: int) -> float:
        """Share, in [0, 1], of the entries both changed whose signs differ; NaN without any.

        Deltas that have nothing to do with each other differ in half of them.
        """
        both = self.both[one][other]
        return self.against[one][other] / both if both else math.nan

    def likeness(self, at: int) -> float:
        """Cosine between a parent's weights and the origin's."""
        square = self.products[at][at] + 2 * self.along[at] + self.origin
        norms = math.sqrt(max(square, 0.0) * self.origin)
        return (self.along[at] + self.origin) / norms if norms else math.nan

    def distance(self, one: int, other: int) -> float:
        """Norm of the difference of two parents, relative to the origin's."""
        square = self.products[one][one] + self.products[other][other]
        return _ratio(
            math.sqrt(max(0.0, square - 2 * self.products[one][other])), math.sqrt(self.origin)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSimilarity:
    """How a set of parents lies around its base.

    Attributes:
        parents: Their names.
        based: Whether deltas are taken from a base; otherwise from the parents' mean, and then
            cosines and conflicts between them say nothing.
        layers: Number of layers.
        groups: Sums by depth and kind: -1 is what comes before the layers, ``layers`` what comes
            after them.
        covered: Share of the tensors that were looked at, in [0, 1].
        skipped: Tensors that differ in shape between the models, such as other vocabularies'.
        broken: Parents, or the base, with NaN or infinity in what was looked at.
        routers: Of mixtures of experts, compared with those of the base, else of the first parent.
    """

    parents: tuple[str, ...]
    based: bool
    layers: int
    groups: Mapping[tuple[int, str], DeltaSums]
    covered: float
    skipped: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    routers: tuple[RouterOrder, ...] = ()

    @property
    def whole(self) -> DeltaSums:
        """Over everything."""
        return _total(list(self.groups.values()), len(self.parents))

    @property
    def origin(self) -> str:
        """What routers are compared with, in words."""
        return "the base" if self.based else self.parents[0]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that there are."""
        found = {kind for _, kind in self.groups}
        return tuple(kind for kind in KINDS if kind in found)

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths that there are, from the embeddings on."""
        return tuple(sorted({depth for depth, _ in self.groups}))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Numbers of all pairs of parents."""
        for one in range(len(self.parents)):
            for other in range(one + 1, len(self.parents)):
                yield one, other

    def of_kind(self, kind: str) -> DeltaSums:
        """Over all depths."""
        return _total([s for (_, k), s in self.groups.items() if k == kind], len(self.parents))

    def at_depth(self, depth: int) -> DeltaSums:
        """Over all kinds."""
        return _total([s for (d, _), s in self.groups.items() if d == depth], len(self.parents))


@dataclass(frozen=True, kw_only=True, slots=True)
class _SharedTensor:
    """A tensor in every model: full names by model, and where it belongs."""

    names: Mapping[str, str]
    group: tuple[int, str]
    elements: int


def survey(
    checkpoints: Mapping[str, Checkpoint],
    base: str | None,
    *,
    seconds: float = math.inf,
    progress: Callable[[int, int], None] | None = None,
) -> ModelSimilarity:
    """Sample the tensors of models of one architecture.

    Args:
        checkpoints: The models by name, the base among them.
        base: Its name; ``None`` where there is none.
        seconds: After so long the tensors that are left are not looked at; those looked at until
            then lie everywhere in the model.
        progress: Called after each tensor with the number done and the number of all.
    """
    parents = tuple(name for name in checkpoints if name != base)
    places, skipped = _places(checkpoints, checkpoints[base or parents[0]])
    random.Random(0).shuffle(places)  # so that a part of them stands for all
    found: dict[tuple[int, str], list[DeltaSums]] = {}
    broken: dict[str, None] = {}
    end, done = time.monotonic() + seconds, 0
    with torch.inference_mode():
        for done, place in enumerate(places, start=1):
            parts = {
                name: _sample(checkpoints[name].tensor(tensor))
                for name, tensor in place.names.items()
            }
            bad = [name for name, part in parts.items() if not part.isfinite().all()]
            if bad:
                broken.update(dict.fromkeys(bad))
            else:
                sums = _sums([parts[name] for name in parents], parts.get(base or ""), place)
                found.setdefault(place.group, []).append(sums)
            if progress is not None:
                progress(done, len(places))
            if time.monotonic() > end:
                break
        routers = compare_routers(checkpoints, base or parents[0])
    pattern = checkpoints[base or parents[0]].layers
    return ModelSimilarity(
        parents=parents,
        based=base is not None,
        layers=pattern.count if pattern is not None else 0,
        groups={group: _total(sums, len(parents)) for group, sums in sorted(found.items())},
        covered=done / len(places) if places else 1.0,
        skipped=skipped,
        broken=tuple(broken),
        routers=routers,
    )


def kind_of(name: str) -> str:
    """What a layer's tensor is part of, by its name."""
    if "norm" in name or ".ln_" in f".{name}":
        return "norm"
    if any(part in name for part in _MLP):
        return "mlp"
    if any(part in name for part in _ATTENTION):
        return "attention"
    return "other"


def _places(
    checkpoints: Mapping[str, Checkpoint], reference: Checkpoint
) -> tuple[list[_SharedTensor], tuple[str, ...]]:
    """Tensors that all models have in one shape, and names of those that they do not."""
    layout, found, skipped = reference.layout, list[_SharedTensor](), list[str]()

    def add(group: tuple[int, str], names: Mapping[str, str | None]) -> None:
        infos = [
            None if name is None else checkpoints[model].tensors[name]
            for model, name in names.items()
        ]
        first, whole = infos[0], {model: name for model, name in names.items() if name is not None}
        if first is None or any(info is None or info.shape != first.shape for info in infos):
            skipped.append(str(names.get(reference.name, group)))
        elif first.dtype.is_floating_point and first.numel:
            found.append(_SharedTensor(names=whole, group=group, elements=first.numel))

    for depth, layer in enumerate(layout.layers):
        for suffix in layer:
            names = {
                model: one.layout.layers[depth].get(suffix)
                if depth < len(one.layout.layers)
                else None
                for model, one in checkpoints.items()
            }
            add((depth, kind_of(suffix)), names)
    for key in layout.outside:
        names = {model: one.layout.outside.get(key) for model, one in checkpoints.items()}
        add((_depth_outside(key, len(layout.layers)), _kind_outside(key, reference)), names)
    return found, tuple(skipped)


def _depth_outside(key: str, layers: int) -> int:
    return layers if is_late(key) else -1


def _kind_outside(key: str, checkpoint: Checkpoint) -> str:
    if is_head(key):
        return "head"
    if key == checkpoint.layout.embedding:
        return "embeddings"
    return "norm" if "norm" in key or "ln_" in key else "other"


def _sample(tensor: Tensor) -> Tensor:
    """``(n,)`` float32: blocks at even distances, or everything."""
    flat = tensor.reshape(-1)
    if flat.numel() <= BLOCK * BLOCKS:
        return flat.float()
    last = flat.numel() - BLOCK
    starts = [round(last * at / (BLOCKS - 1)) for at in range(BLOCKS)]
    return torch.cat([flat[start : start + BLOCK] for start in starts]).float()


def _sums(parents: Sequence[Tensor], base: Tensor | None, place: _SharedTensor) -> DeltaSums:
    stacked = torch.stack([part.double() for part in parents])
    origin = stacked.mean(dim=0) if base is None else base.double()
    deltas = stacked - origin
    signs = deltas.sign()
    changed = signs.abs()
    scale = place.elements / origin.numel()
    both, agree = changed @ changed.T, signs @ signs.T
    return DeltaSums(
        elements=float(place.elements),
        origin=float(origin @ origin) * scale,
        along=tuple((deltas @ origin * scale).tolist()),
        products=_matrix(deltas @ deltas.T * scale),
        both=_matrix(both * scale),
        against=_matrix((both - agree) / 2 * scale),
    )


def _matrix(values: Tensor) -> Matrix:
    return tuple(tuple(row) for row in values.tolist())


def _total(sums: Sequence[DeltaSums], parents: int) -> DeltaSums:
    """All of them together."""
    numbers = range(parents)

    def matrix(pick: Callable[[DeltaSums], Matrix]) -> Matrix:
        return tuple(
            tuple(math.fsum(pick(one)[i][j] for one in sums) for j in numbers) for i in numbers
        )

    return DeltaSums(
        elements=math.fsum(one.elements for one in sums),
        origin=math.fsum(one.origin for one in sums),
        along=tuple(math.fsum(one.along[i] for one in sums) for i in numbers),
        products=matrix(lambda one: one.products),
        both=matrix(lambda one: one.both),
        against=matrix(lambda one: one.against),
    )


def _ratio(value: float, by: float) -> float:
    if by:
        return value / by
    return math.inf if value else 0.0
