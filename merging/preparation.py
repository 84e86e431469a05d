"""Computing the statistics of a set of parents before the first candidate needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from merging import known
from merging.cache import Statistics
from merging.checkpoint import Checkpoint
from merging.series import Series
from merging.statistics import gram
from merging.thresholds import known_magnitudes

_CHUNK = 1 << 17


def prepare(
    parents: Sequence[Checkpoint],
    base: Checkpoint | None,
    statistics: Statistics,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Count magnitudes of deltas, and multiply parents and deltas with each other, per tensor.

    What is known already is not computed again, so that a second process, or a second run, is done
    at once. At most a chunk of every parent and the counts of one tensor are in memory.

    Args:
        parents: Models of one architecture.
        base: What deltas are taken from; ``None`` prepares methods without a base only.
        statistics: Where to keep it.
        progress: Called after each tensor with the number done and the number of all.
    """
    names = [
        name
        for name, info in parents[0].tensors.items()
        if info.dtype.is_floating_point and info.numel
    ]
    with torch.inference_mode(False), torch.no_grad(), known.scope(statistics) as scope:
        assert scope is not None  # it is given statistics
        for done, name in enumerate(names, start=1):
            scope.clear()
            holders = [*parents, *([] if base is None else [base])]
            flat = {}
            for one in holders:
                info = one.tensors.get(name)
                if info is not None and info.shape == parents[0].tensors[name].shape:
                    flat[id(one)] = one.tensor(name).reshape(-1)
                    scope.add(flat[id(one)], f"{one.input_hash}:{name}")
            _prepare([flat[id(one)] for one in parents if id(one) in flat], flat.get(id(base)))
            if progress is not None:
                progress(done, len(names))
    statistics.flush()


def _prepare(tensors: Sequence[torch.Tensor], base: torch.Tensor | None) -> None:
    device = torch.device("cpu")
    gram([Series(tensor=one, minus=None, device=device) for one in tensors], chunk=_CHUNK)
    if base is None:
        return
    deltas = [Series(tensor=one, minus=base, device=device) for one in tensors]
    gram(deltas, chunk=_CHUNK)
    for delta in deltas:
        known_magnitudes(delta, chunk=_CHUNK)
