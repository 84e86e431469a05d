"""Which passes the builds of a plan, or of a search, run: what to warm up for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from merging import fused
from merging.expressions import Combine, Expression, Leaf
from merging.fused import Variant
from merging.plan import MergePlan
from merging.task_vectors import CONSENSUS
from merging.thinned import FAMILIES

_PLAIN = {
    "linear": ("weighted_sum",),
    "passthrough": ("weighted_sum",),
    "slerp": ("weighted_sum",),
    "karcher": ("weighted_sum",),
    "nuslerp": ("weighted_sum", "delta_sum"),
    "multislerp": ("weighted_sum", "delta_sum"),
    "task_arithmetic": ("delta_sum",),
    "model_stock": ("delta_sum",),
}
"""The passes of a linear combination: without a base, with one."""

_CHOOSING = {
    "ram": ("ram_mean",),
    "ramplus_tl": ("ram_mean",),
    "sce": ("sce_mean", "sce_selected"),
    "nearswap": ("near_pair",),
    "arcee_fusion": ("near_pair",),
}
_CHOICES = {
    "ram": ("ram_mean",),
    "ramplus_tl": ("ram_mean",),
    "sce": ("sce_mean", "sce_selected"),
    "nearswap": ("near_pair",),
}


def passes_of(method: str) -> tuple[str, ...]:
    """Names of the passes that a method may run; none for methods that have no pass of their own.

    Args:
        method: Name in ``spaces.methods.METHODS``.
    """
    if method in FAMILIES:
        return (f"{FAMILIES[method]}_{'vote' if method in CONSENSUS else 'sum'}",)
    if method in _CHOICES:
        return _CHOICES[method]
    return _PLAIN.get(method) or _CHOOSING.get(method, ())


def variants_of(plan: MergePlan, *, device: torch.device | str = "cpu") -> list[Variant]:
    """The passes that building this plan runs."""
    kind = torch.device(device).type
    found: list[Variant] = []
    for job in plan.jobs:
        if not isinstance(job.expression, Leaf):
            found += _variants(job.expression, job.dtype, kind)
    reads = dict.fromkeys(one.read for one in found)
    for read in reads:
        found += fused.sums(read, kind)
    return list(dict.fromkeys(found))


def variants_for(
    methods: Iterable[str],
    *,
    parents: int,
    read: torch.dtype,
    written: torch.dtype,
    trees: bool,
    device: torch.device | str = "cpu",
) -> list[Variant]:
    """The passes that a search over these methods runs.

    Args:
        methods: What may be drawn.
        parents: Most inputs of a merge.
        read: Dtype of the models.
        written: Dtype of the candidates.
        trees: Whether merges of merges may be drawn.
        device: Where candidates are built.
    """
    names = dict.fromkeys(name for method in methods for name in passes_of(method))
    return fused.variants(
        names,
        inputs=range(1, parents + 1),
        read=read,
        written=written,
        device=torch.device(device).type,
        trees=trees,
    )


def large(plan: MergePlan) -> bool:
    """Whether compiling for builds of this size pays."""
    return sum(job.size // job.dtype.itemsize for job in plan.jobs) >= fused.LARGE


def _variants(node: Combine, written: torch.dtype, device: str) -> Iterator[Variant]:
    operands: Sequence[Expression] = [*node.inputs, *([] if node.base is None else [node.base])]
    for inner in operands:
        if isinstance(inner, Combine):
            yield from _variants(inner, torch.float32, device)
    names: Mapping[bool, str] = {False: "weighted_sum", True: "delta_sum"}
    wanted = passes_of(node.method)
    if node.method in _PLAIN:
        wanted = (names[node.base is not None],)
    dtypes = {one.info.dtype if isinstance(one, Leaf) else torch.float32 for one in operands}
    read = dtypes.pop() if len(dtypes) == 1 else torch.float32
    for name in wanted:
        yield Variant(name=name, inputs=len(node.inputs), read=read, written=written, device=device)
