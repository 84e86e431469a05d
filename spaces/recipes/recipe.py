"""Recipes: what to merge and how, as frozen values without any path or weight in them.

A recipe names models by short names; where each model lies is kept beside it (a mapping from name
to path or hub id), so that a recipe and its key stay the same when the models are moved.
The meaning of every field is mergekit's: parameters are looked up source, then slice, then merge,
then the catalogue's default.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import cache, cached_property
from typing import Any, TypeVar, cast

from spaces.catalogue.method_catalogue import METHODS, BaseRule, Kind, Scope
from spaces.recipes import chat_template as chat
from spaces.recipes.parameter_values import (
    ByFilter,
    Case,
    Gradient,
    Level,
    Parameter,
    Parameters,
    RecipeError,
    check_parameters,
    numbers,
    parameters,
    parameters_from_json,
    parameters_to_json,
    resolve,
    value_from_json,
)
from spaces.recipes.vision import Vision
from spaces.recipes.vocabulary import Vocabulary

__all__ = [
    "DTYPES",
    "ByFilter",
    "Case",
    "Gradient",
    "Level",
    "Merge",
    "Model",
    "Parameter",
    "Parameters",
    "Recipe",
    "RecipeError",
    "Slice",
    "Source",
    "check_name",
    "filters",
    "merges",
    "parameters",
    "parameters_from_json",
    "resolve",
    "unchecked",
    "value_from_json",
]

DTYPES = ("float32", "float16", "bfloat16")
"""Output dtypes a recipe may ask for."""

_PASSING = {"linear": "weight", "passthrough": "scale"}
"""Methods that may leave one input as it is, and what multiplies it."""

T = TypeVar("T")

NAME = r"[A-Za-z0-9][A-Za-z0-9_.\-]*"
"""Pattern of a model's short name."""


def check_name(name: str) -> None:
    """Raise RecipeError unless ``name`` can be a model's short name."""
    if not re.fullmatch(NAME, name):
        raise RecipeError(
            f"model name: expected letters, digits, '_', '.' or '-' (no leading sign), got {name!r}"
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model that goes in as it is, by its short name."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def label(self) -> str:
        """Identity for random masks: the name."""
        return self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input of a merge.

    Attributes:
        of: A model, or another merge.
        layers: Half-open range of the input's layers; only, and always, inside a slice.
        parameters: Values for this input (``weight``, ``density``, ``scale``).
    """

    of: Model | Merge
    layers: tuple[int, int] | None = None
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        check_parameters(self.parameters)
        if self.layers is not None:
            start, end = self.layers
            if not 0 <= start <= end:
                raise RecipeError(f"layers: expected 0 <= start <= end, got [{start}, {end}]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A run of output layers made from layer ranges of equal length.

    Attributes:
        sources: The inputs, each with its layer range; the base is listed when the method needs it.
        parameters: Values for the whole slice.
    """

    sources: tuple[Source, ...]
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        check_parameters(self.parameters)
        if not self.sources:
            raise RecipeError("slice: expected at least one source, got none")
        ranges = [source.layers for source in self.sources]
        if any(layers is None for layers in ranges):
            raise RecipeError("slice: expected a layer range for every source, got none for some")
        lengths = {layers[1] - layers[0] for layers in ranges if layers is not None}
        if len(lengths) > 1:
            raise RecipeError(f"slice: expected layer ranges of one length, got {sorted(lengths)}")

    @property
    def length(self) -> int:
        """Number of output layers."""
        start, end = cast(tuple[int, int], self.sources[0].layers)
        return end - start


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """Several inputs made into one model by one method.

    Exactly one of ``sources`` (whole models) and ``slices`` (layer ranges) is given.

    Attributes:
        method: Name in ``spaces.catalogue.method_catalogue.METHODS``.
        sources: Whole inputs in merge order. A base that deltas are taken from is not listed here.
        slices: Output layer runs, first to last. Such a base *is* listed in every slice.
        base: The base (task vectors), or the input that marks the start (slerp).
        parameters: Values for the merge; per-input parameters given here hold for all inputs.
    """

    method: str
    sources: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    base: Model | Merge | None = None
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        method = METHODS.get(self.method)
        if method is None:
            raise RecipeError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        if bool(self.sources) == bool(self.slices):
            raise RecipeError(f"{self.method}: expected either sources or slices, got both or none")
        check_parameters(self.parameters)
        self._check_base(method.base)
        for group in self.groups():
            self._check_group(group)

    def groups(self) -> Iterator[tuple[Source, ...]]:
        """The inputs of each slice, or the inputs once when there are no slices."""
        if self.slices:
            yield from (part.sources for part in self.slices)
        else:
            yield self.sources

    def _check_base(self, rule: BaseRule) -> None:
        if rule in (BaseRule.REQUIRED, BaseRule.ENDPOINT) and self.base is None:
            raise RecipeError(f"{self.method}: expected a base model, got none")
        if rule is BaseRule.NONE and self.base is not None:
            raise RecipeError(f"{self.method}: expected no base (it has no use for one), got one")

    def _check_group(self, group: tuple[Source, ...]) -> None:
        method = METHODS[self.method]
        nodes = [source.of for source in group]
        if len(set(nodes)) != len(nodes):
            raise RecipeError(f"{self.method}: expected distinct inputs, got one of them twice")
        if not self.slices and any(source.layers is not None for source in group):
            raise RecipeError(f"{self.method}: expected no layer range outside slices, got one")
        if method.base is BaseRule.ENDPOINT and self.base not in nodes:
            raise RecipeError(f"{self.method}: expected the base among the inputs, got another")
        apart = method.base.apart and self.base is not None
        counted = [node for node in nodes if node != self.base or not apart]
        if self.slices and apart and self.base not in nodes:
            raise RecipeError(
                f"{self.method}: expected the base in every slice, got a slice without"
            )
        if not method.takes(len(counted)):
            least, most = method.min_inputs, method.max_inputs
            number = "exactly" if least == most else "at least"
            raise RecipeError(
                f"{self.method}: expected {number} {least} inputs, got {len(counted)}"
            )
        for source in group:
            self._check_values(source)

    def _check_values(self, source: Source) -> None:
        """Known names and legal values for one input, and every required value given somewhere."""
        method = METHODS[self.method]
        is_base = method.base.apart and source.of == self.base
        shared = [self.parameters, *(part.parameters for part in self.slices)]
        for table, scopes in (
            (source.parameters, {Scope.INPUT}),
            *((t, set(Scope)) for t in shared),
        ):
            for name, value in table:
                spec = method.parameter(name)
                if spec is None or spec.scope not in scopes:
                    legal = ", ".join(p.name for p in method.parameters if p.scope in scopes)
                    raise RecipeError(f"{self.method}: expected parameters {legal}, got {name!r}")
                for number in numbers(value):
                    if spec.kind is not Kind.FLAG and not spec.allows(float(number)):
                        raise RecipeError(f"{name}: expected {spec.range_text()}, got {number}")
        for spec in method.parameters:
            tables = [*shared, *([source.parameters] if spec.scope is Scope.INPUT else [])]
            given = any(spec.name == name for table in tables for name, _ in table)
            if spec.default is None and not given and not (is_base and spec.scope is Scope.INPUT):
                raise RecipeError(f"{self.method}: expected a value for {spec.name!r}, got none")

    @property
    def label(self) -> str:
        """Identity for random masks: the inputs' labels in order, without any number."""
        inner = ",".join(source.of.label for group in self.groups() for source in group)
        return f"{self.method}({inner})"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete recipe: a tree of merges, and what the result looks like.

    Attributes:
        root: The outermost merge.
        dtype: Output dtype; ``None`` keeps the widest dtype of each tensor's inputs.
        seed: Seed of the random masks (DARE, DELLA), 0 to 2**31 - 1.
        tokenizer: Model whose tokenizer and config the result gets; ``None`` is the model
            itself where there is only one, else the base, or the first-listed input.
        vocabulary: Whose tokenizer it gets instead, where those of the inputs differ; ``None``
            where they are the same.
        chat_template: ``auto`` (what most inputs have), a name (see ``chat_template``) or a Jinja
            template; ``None`` keeps that of the tokenizer.
        vision: What the vision tower is; ``None`` where it is merged as all else.
    """

    root: Merge
    dtype: str | None = None
    seed: int = 0
    tokenizer: str | None = None
    vocabulary: Vocabulary | None = None
    chat_template: str | None = None
    vision: Vision | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise RecipeError(f"dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not 0 <= self.seed < 2**31:
            raise RecipeError(f"seed: expected 0 to {2**31 - 1}, got {self.seed}")
        if self.chat_template is not None and (fault := chat.fault(self.chat_template)):
            raise RecipeError(f"chat_template: {fault}")
        if self.vocabulary is not None:
            given = [rule.model for rule in self.vocabulary.tokens if rule.model is not None]
            for name in given:
                if name not in self.models:
                    raise RecipeError(
                        f"vocabulary: tokens: expected one of {', '.join(self.models)}, got {name}"
                    )

    @cached_property
    def key(self) -> str:
        """Content hash, 16 hex digits: equal for equal recipes, on every machine."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models in it, in order of first appearance, inputs before bases."""
        return tuple(dict.fromkeys((*_model_names(self.root), *self.towers)))

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of all models whose files a build needs: ``models``, and givers of a tokenizer."""
        givers = [self.donor, *(self.vocabulary.models if self.vocabulary is not None else ())]
        return tuple(dict.fromkeys((*self.models, *givers)))

    @cached_property
    def title(self) -> str:
        """How it is made, in a word or two: ``ties``, ``linear+slerp``, ``stack(ties)``."""
        return _title(self.root)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the models that are mixed, without a base that only deltas are taken from."""
        names = (
            source.of.name
            for merge in merges(self.root)
            for group in merge.groups()
            for source in group
            if isinstance(source.of, Model)
        )
        return tuple(dict.fromkeys(names))

    @property
    def words(self) -> str:
        """How it is made, and of what: ``ties of math, code``."""
        made = f"{self.title} of {', '.join(self.inputs)}"
        return f"{made}; vision tower of {', '.join(self.towers)}" if self.towers else made

    @property
    def towers(self) -> tuple[str, ...]:
        """Models whose mean the vision tower is; none where it is merged as all else."""
        if self.vision is None:
            return ()
        return self.inputs if self.vision.model is None else (self.vision.model,)

    @cached_property
    def alone(self) -> str | None:
        """The model that this is as it stands: the others are not there, or weigh nothing."""
        return _alone(self.root) if self.vision is None else None

    @property
    def donor(self) -> str:
        """Model that gives config and tokenizer.

        ``tokenizer``, else the model that stands alone, else the base, else the first.
        """
        if self.tokenizer is not None:
            return self.tokenizer
        return self.alone or _first_base(self.root) or self.models[0]

    @property
    def lender(self) -> str:
        """The input whose tokens come first where no base says: the donor, if it is merged."""
        return self.donor if self.donor in self.models else replace(self, tokenizer=None).donor

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able values; ``from_dict`` is the inverse."""
        result: dict[str, Any] = {"merge": _merge_to_dict(self.root)}
        if self.dtype is not None:
            result["dtype"] = self.dtype
        if self.seed:
            result["seed"] = self.seed
        if self.tokenizer is not None:
            result["tokenizer"] = self.tokenizer
        if self.vocabulary is not None:
            result["vocabulary"] = self.vocabulary.to_dict()
        if self.chat_template is not None:
            result["chat_template"] = self.chat_template
        if self.vision is not None:
            result["vision"] = self.vision.to_dict()
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from what ``to_dict`` gave.

        Raises:
            RecipeError: If the data does not describe a legal recipe.
        """
        try:
            return cls(
                root=_merge_from_dict(data["merge"]),
                dtype=data.get("dtype"),
                seed=data.get("seed", 0),
                tokenizer=data.get("tokenizer"),
                vocabulary=None
                if data.get("vocabulary") is None
                else Vocabulary.from_dict(data["vocabulary"]),
                chat_template=data.get("chat_template"),
                vision=None if data.get("vision") is None else Vision.from_dict(data["vision"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise RecipeError(f"recipe: expected the fields of a recipe, got {error!r}") from error


def unchecked(kind: type[T], **fields: Any) -> T:
    """A part of a recipe that is known to be legal, made without looking at it again.

    Args:
        kind: ``Source``, ``Merge`` or another frozen dataclass of this module.
        fields: Its fields; those left out keep their defaults.
    """
    made = object.__new__(kind)
    for name, default in _defaults(cast(Any, kind)):
        object.__setattr__(made, name, fields.get(name, default))
    return made


@cache
def _defaults(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.default) for field in dataclass_fields(kind))


def merges(node: Model | Merge) -> Iterator[Merge]:
    """Every merge below and including ``node``, inner ones first, each once."""
    seen: set[Merge] = set()

    def walk(at: Model | Merge) -> Iterator[Merge]:
        if isinstance(at, Merge) and at not in seen:
            if at.base is not None:
                yield from walk(at.base)
            for group in at.groups():
                for source in group:
                    yield from walk(source.of)
            if at not in seen:
                seen.add(at)
                yield at

    yield from walk(node)


def filters(root: Merge) -> tuple[str, ...]:
    """Every filter in a merge tree but those for all tensors, in the order of their first use."""
    found: dict[str, None] = {}
    for merge in merges(root):
        tables = [merge.parameters, *(part.parameters for part in merge.slices)]
        tables += [source.parameters for group in merge.groups() for source in group]
        for _, value in (item for table in tables for item in table):
            if isinstance(value, ByFilter):
                names = (case.filter for case in value.cases)
                found |= dict.fromkeys(name for name in names if name is not None and name != "*")
    return tuple(found)


def _title(root: Merge) -> str:
    inner = {source.of for group in root.groups() for source in group}
    (only, *others) = inner
    if root.slices and not others and isinstance(only, Merge):
        return f"stack({_title(only)})"
    return "+".join(dict.fromkeys(sorted(merge.method for merge in merges(root))))


def _model_names(node: Model | Merge) -> Iterator[str]:
    if isinstance(node, Model):
        yield node.name
        return
    for group in node.groups():
        for source in group:
            yield from _model_names(source.of)
    if node.base is not None:
        yield from _model_names(node.base)


def _alone(node: Model | Merge) -> str | None:
    """The model that a node is as it stands; ``None`` where something is made of it."""
    if isinstance(node, Model):
        return node.name
    if node.method not in _PASSING or node.slices:
        return None
    name, shared = _PASSING[node.method], dict(node.parameters)
    linear = node.method == "linear"
    left: set[str | None] = set()
    factors: set[float] = set()
    for source in node.sources:
        own = set(numbers(dict(source.parameters).get(name, shared.get(name, 1.0))))
        if not linear or any(own):
            left.add(_alone(source.of))
            factors |= own
    divided = linear and all(numbers(shared.get("normalize", True)))
    return next(iter(left)) if len(left) == 1 and (divided or factors == {1.0}) else None


def _first_base(node: Model | Merge) -> str | None:
    """The base nearest to the root, searched breadth first; an endpoint counts as a base."""
    queue: list[Model | Merge] = [node]
    while queue:
        at = queue.pop(0)
        if isinstance(at, Merge):
            if isinstance(at.base, Model):
                return at.base.name
            queue.extend(source.of for group in at.groups() for source in group)
    return None


def _node_to_json(node: Model | Merge) -> Any:
    return node.name if isinstance(node, Model) else _merge_to_dict(node)


def _node_from_json(data: Any) -> Model | Merge:
    return Model(data) if isinstance(data, str) else _merge_from_dict(data)


def _source_to_json(source: Source) -> dict[str, Any]:
    result: dict[str, Any] = {"of": _node_to_json(source.of)}
    if source.layers is not None:
        result["layers"] = list(source.layers)
    if source.parameters:
        result["parameters"] = parameters_to_json(source.parameters)
    return result


def _source_from_json(data: Mapping[str, Any]) -> Source:
    layers = data.get("layers")
    return Source(
        of=_node_from_json(data["of"]),
        layers=None if layers is None else (int(layers[0]), int(layers[1])),
        parameters=parameters_from_json(data.get("parameters")),
    )


def _merge_to_dict(merge: Merge) -> dict[str, Any]:
    result: dict[str, Any] = {"method": merge.method}
    if merge.sources:
        result["sources"] = [_source_to_json(source) for source in merge.sources]
    if merge.slices:
        result["slices"] = [
            {"sources": [_source_to_json(source) for source in part.sources]}
            | ({"parameters": parameters_to_json(part.parameters)} if part.parameters else {})
            for part in merge.slices
        ]
    if merge.base is not None:
        result["base"] = _node_to_json(merge.base)
    if merge.parameters:
        result["parameters"] = parameters_to_json(merge.parameters)
    return result


def _merge_from_dict(data: Mapping[str, Any]) -> Merge:
    base = data.get("base")
    return Merge(
        method=data["method"],
        sources=tuple(_source_from_json(source) for source in data.get("sources", ())),
        slices=tuple(
            Slice(
                sources=tuple(_source_from_json(source) for source in part["sources"]),
                parameters=parameters_from_json(part.get("parameters")),
            )
            for part in data.get("slices", ())
        ),
        base=None if base is None else _node_from_json(base),
        parameters=parameters_from_json(data.get("parameters")),
    )
