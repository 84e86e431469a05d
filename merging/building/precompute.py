"""Computing the statistics of a set of parents before the first candidate needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.building.tensor_sources import MappedTensors
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.blocked_sums import Series
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.inner_products import gram
from merging.tensor_statistics.order_statistics import known_magnitudes
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.catalogue.method import Combination, TaskVectors
from spaces.catalogue.method_catalogue import METHODS, BaseRule

_CHUNK = 1 << 17
_PRODUCTS = -1  # a piece of work that is no parent's


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What the methods of a search have to know of whole tensors.

    Attributes:
        magnitudes: How often each magnitude of a delta occurs.
        products: Inner products of parents.
        delta_products: Inner products of deltas.
    """

    magnitudes: bool
    products: bool
    delta_products: bool

    def __bool__(self) -> bool:
        return self.magnitudes or self.products or self.delta_products

    @classmethod
    def of(cls, methods: Iterable[str], *, base: bool) -> Needs:
        """Those of methods.

        Args:
            methods: Names in ``spaces.catalogue.method_catalogue.METHODS``.
            base: Whether there is one; without, there are no deltas.
        """
        found = [METHODS[name] for name in methods]
        rules = {
            method.base
            for method in found
            if isinstance(method.arithmetic, Combination) and method.arithmetic.uses_gram
        }
        return cls(
            magnitudes=base and any(isinstance(m.arithmetic, TaskVectors) for m in found),
            products=bool(rules - {BaseRule.REQUIRED}),
            delta_products=base and bool(rules & {BaseRule.REQUIRED, BaseRule.OPTIONAL}),
        )


def prepare(
    parents: Sequence[Checkpoint],
    base: Checkpoint | None,
    statistics: StatisticsCache,
    *,
    needs: Needs,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Count magnitudes of deltas, and multiply parents and deltas with each other, per tensor.

    What is known already is not computed again, so that a second process, or a second run, is done
    at once. At most a chunk of every parent and the counts of one tensor are in memory per thread.

    Args:
        parents: Models of one architecture.
        base: What deltas are taken from; ``None`` where there is none.
        statistics: Where to keep it.
        needs: What to compute.
        threads: Pieces of work at a time: the products of a tensor, or its magnitudes in a parent.
        progress: Called after each piece of work with the number done and the number of all.
    """
    first, source = parents[0].tensors, MappedTensors(statistics)
    names = [n for n, info in first.items() if info.dtype.is_floating_point and info.numel]

    def work(name: str, part: int) -> None:
        shape = first[name].shape
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            statistics_scope.scope(statistics) as scope,
        ):
            assert scope is not None  # it is given statistics
            flat: dict[int, Tensor] = {}
            for one in parents if base is None else [*parents, base]:
                if name in one.tensors and one.tensors[name].shape == shape:
                    flat[id(one)] = source.read(one, name).reshape(-1)
                    scope.add(flat[id(one)], f"{one.identity}:{name}")
            tuned = [flat[id(one)] for one in parents if id(one) in flat]
            _prepare(tuned, flat.get(id(base)), needs, part)

    for one in parents if base is None else [*parents, base]:
        one.identity  # noqa: B018  # found once here, not by every thread
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="statistics") as pool:
            # The largest tensor alone takes longer than a thread's share of all the others.
            parts = range(_PRODUCTS, len(parents) if needs.magnitudes else 0)
            running = [pool.submit(work, name, part) for name in names for part in parts]
            try:
                for done, future in enumerate(as_completed(running), start=1):
                    future.result()
                    if progress is not None:
                        progress(done, len(running))
            finally:
                for rest in running:
                    rest.cancel()
    finally:  # what was computed until an interruption is kept
        statistics.flush()


def _prepare(tensors: Sequence[Tensor], base: Tensor | None, needs: Needs, part: int) -> None:
    """All products, or the magnitudes of one delta."""
    device = torch.device("cpu")
    if part != _PRODUCTS:
        if base is not None and part < len(tensors):
            known_magnitudes(Series(tensor=tensors[part], minus=base, device=device))
        return
    if needs.products:
        gram([Series(tensor=one, minus=None, device=device) for one in tensors], chunk=_CHUNK)
    if needs.delta_products and base is not None:
        gram([Series(tensor=one, minus=base, device=device) for one in tensors], chunk=_CHUNK)
