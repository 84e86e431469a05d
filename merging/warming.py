"""Which passes the builds of a plan, or of a search, run: what to warm up for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from merging.compiled import Variant
from merging.expressions import Combine, Expression, Leaf
from merging.plan import MergePlan
from merging.task_vectors import CONSENSUS
from merging.thinned import FAMILIES
from spaces.methods import METHODS

LARGE = 20_000_000
"""Elements of a model from which compiling pays: below, a build takes less than the warm-up."""

_GAINS = 150_000_000
"""Elements whose build is faster by as much as it takes to compile one pass, about 10 seconds."""

_WIDE = torch.float32
_SUM = "weighted_sum", "whole_sum"  # without a base, with one

_PASSES: Mapping[str, tuple[str, ...]] = {
    "linear": ("weighted_sum",),
    "passthrough": ("weighted_sum",),
    "slerp": ("weighted_sum",),
    "karcher": ("weighted_sum",),
    "nuslerp": _SUM,
    "multislerp": _SUM,
    "task_arithmetic": ("whole_sum",),
    "model_stock": ("whole_sum",),
    "ram": ("ram_mean",),
    "ramplus_tl": ("ram_mean", "overlaps"),
    "sce": ("sce_mean", "sce_selected"),
    "nearswap": ("near_pair",),
}
_THINNING: Mapping[str, str] = {
    "trimmed": "equal_counts",
    "banded": "equal_counts",
    "dropped": "kept_norm",
    "ranked": "ranked_norm",
}
_LOOKED_AT: Mapping[str, int] = {"equal_counts": 2, "kept_norm": 2, "ranked_norm": 3}
"""Tensors that a pass looks at, whatever the number of inputs."""


def passes_of(method: str) -> tuple[str, ...]:
    """Names of the passes that a method may run; none for methods that have no pass of their own.

    Args:
        method: Name in ``spaces.methods.METHODS``.
    """
    if method in FAMILIES:
        family = FAMILIES[method]
        return f"{family}_{'vote' if method in CONSENSUS else 'sum'}", _THINNING[family]
    return _PASSES.get(method, ())


def variants_of(plan: MergePlan) -> list[Variant]:
    """The passes that building this plan runs."""
    found = [_SEAL]
    for job in plan.jobs:
        if not isinstance(job.expression, Leaf):
            found += _of_node(job.expression, job.dtype)
    return list(dict.fromkeys(found))


def variants_for(
    methods: Iterable[str],
    *,
    parents: int,
    read: torch.dtype,
    written: torch.dtype,
    trees: bool,
) -> list[Variant]:
    """The passes that a search over these methods runs.

    Args:
        methods: What may be drawn.
        parents: Most inputs of a merge; tensors that only one input has are merged eagerly.
        read: Dtype of the models.
        written: Dtype of the candidates.
        trees: Whether merges of merges may be drawn; those read and write float32 on the way.
    """
    kinds = [(read, written), *([(_WIDE, _WIDE)] if trees else [])]
    found = [_SEAL]
    for method in methods:
        most = min(parents, METHODS[method].max_inputs or parents)
        for name in passes_of(method):
            for one_read, one_written in kinds:
                for inputs in range(min(2, most), most + 1):
                    found.append(_variant(name, inputs, one_read, one_written))
    return list(dict.fromkeys(found))


def large(plan: MergePlan) -> bool:
    """Whether compiling for builds of this size pays."""
    return sum(job.size // job.dtype.itemsize for job in plan.jobs) >= LARGE


def pays_at_once(plan: MergePlan, missing: int) -> bool:
    """Whether compiling so many passes takes less than one build of this size gains by it."""
    return sum(job.size // job.dtype.itemsize for job in plan.jobs) >= _GAINS * missing


_SEAL = Variant(name="seal", inputs=1, read=torch.int32)


def _of_node(node: Combine, written: torch.dtype) -> Iterator[Variant]:
    operands: Sequence[Expression] = [*node.inputs, *([] if node.base is None else [node.base])]
    for inner in operands:
        if isinstance(inner, Combine):
            yield from _of_node(inner, _WIDE)
    dtypes = {one.info.dtype if isinstance(one, Leaf) else _WIDE for one in operands}
    read = dtypes.pop() if len(dtypes) == 1 else _WIDE
    names = passes_of(node.method)
    if names == _SUM:
        names = (_SUM[node.base is not None],)
    for name in names:
        yield _variant(name, len(node.inputs), read, written)


def _variant(name: str, inputs: int, read: torch.dtype, written: torch.dtype) -> Variant:
    if name == "overlaps":
        return Variant(name=name, inputs=inputs + 1, read=read)
    looked_at = _LOOKED_AT.get(name)
    return Variant(
        name=name,
        inputs=looked_at or inputs,
        read=read,
        written=None if looked_at else written,
    )
