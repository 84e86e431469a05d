"""What one output tensor is made of: stored tensors, combined by methods with resolved numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from merging.checkpoints.files.safetensors_header import TensorInfo
from merging.kernels.random_masks import MaskKey
from spaces.recipes.recipe import Merge, Source


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Leaf:
    """A stored tensor.

    Attributes:
        model: Short name of the model.
        tensor: Its name in that model.
        info: Dtype, shape and place.
    """

    model: str
    tensor: str
    info: TensorInfo


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Origin:
    """Where in a recipe the values of a ``Combine`` come from.

    Attributes:
        merge: The merge.
        sources: The source of every input, each with the name that the tensor has in it.
        depth: Depth of the tensor within its slice, in [0, 1]; 0 outside the layers.
    """

    merge: Merge
    sources: tuple[tuple[Source, str], ...]
    depth: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Combine:
    """Inputs merged by one method. The same object twice in a tree is computed once.

    Attributes:
        method: Name in ``spaces.catalogue.method_catalogue.METHODS``.
        inputs: In merge order, the base of a task-vector method not among them; for slerp the
            start of the arc comes first.
        base: What deltas are taken from; ``None`` for methods without.
        per_input: Values per input, by parameter.
        shared: Values for the merge, by parameter.
        masks: Keys of the random masks, one per input; empty for methods without.
        origin: Which merge of the recipe it carries out, and where; ``None`` for none.
    """

    method: str
    inputs: tuple[Expression, ...]
    base: Expression | None = None
    per_input: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shared: Mapping[str, float | bool] = field(default_factory=dict)
    masks: tuple[MaskKey, ...] = ()
    origin: Origin | None = None


Expression = Leaf | Combine


def leaves(expression: Expression) -> Iterator[Leaf]:
    """Every stored tensor in it, inputs before bases; one that occurs twice comes twice."""
    if isinstance(expression, Leaf):
        yield expression
        return
    for node in expression.inputs:
        yield from leaves(node)
    if expression.base is not None:
        yield from leaves(expression.base)
