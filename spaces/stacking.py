"""Layer stacking: runs of layers put within the bounds of a space."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.bounds import Stacking

Run = tuple[int, int]
"""First layer of a run, and the layer after its last."""


def settle(runs: Sequence[Run], stacking: Stacking, *, layers: int) -> tuple[Run, ...]:
    """The legal stacking nearest to the runs drawn; a legal one stays as it is.

    A run drawn backwards, or empty, becomes the layers between its ends, both included. While there
    are too many layers in all, the longest run loses one; while there are too few, the shortest
    gains one (of equals, the first). Runs give and take at their end, but the last one at its
    start, so that the first layers and the last layers of the model stay as long as they can.

    Args:
        runs: At least one; start in [0, layers - 1], end in [1, layers].
        stacking: Bounds that so many runs can meet.
        layers: Number of layers of the model.

    Returns:
        As many runs, none empty, with ``min_layers`` to ``max_layers`` layers in all.
    """
    settled = [run if run[0] < run[1] else (run[1] - 1, run[0] + 1) for run in runs]
    lengths = [end - start for start, end in settled]
    while sum(lengths) > stacking.max_layers:
        at = lengths.index(max(lengths))
        start, end = settled[at]
        settled[at] = (start + 1, end) if at == len(settled) - 1 else (start, end - 1)
        lengths[at] -= 1
    while sum(lengths) < stacking.min_layers:
        at = lengths.index(min(lengths))
        start, end = settled[at]
        at_start = start > 0 and (end == layers or at == len(settled) - 1)
        settled[at] = (start - 1, end) if at_start else (start, end + 1)
        lengths[at] += 1
    return tuple(settled)
