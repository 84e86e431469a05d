"""Layer stacking: runs of layers put within the bounds of a space."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.search_space.bounds import MERGED, Stacking

Run = tuple[int, int]
"""First layer of a run, and the layer after its last."""

Part = tuple[str, Run]
"""What a run of layers is taken from, and the run."""


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


def follow(
    ends: Sequence[int], shifts: Sequence[int], stacking: Stacking, *, layers: int
) -> tuple[Run, ...]:
    """Runs from the first layer to the last one; what is legal stays as it is.

    The number of layers depends on the shifts alone. While there are too many, the join that
    repeats most repeats one less (or leaves one more out); while there are too few, the one that
    leaves most out leaves one less out. Where no ends fit, a join that leaves layers out and one
    that repeats some each give up one. The ends are then moved as little as the runs allow.

    Args:
        ends: Layer after the last of each run but the last run, in [1, layers].
        shifts: From the end of each such run to the start of the next: below 0 layers are repeated,
            above 0 they are left out; within ``stacking.shifts``.
        stacking: Bounds that so many runs can meet.
        layers: Number of layers of the model.

    Returns:
        One more run than ends, none empty, with ``min_layers`` to ``max_layers`` layers in all.
    """
    joins = _within(shifts, stacking, layers=layers)
    while (room := _room(joins, layers)) is None:
        joins[joins.index(max(joins))] -= 1
        joins[joins.index(min(joins))] += 1
    settled: list[int] = []
    for end, shift_in, (low, high) in zip(ends, (0, *joins), room, strict=False):
        after = settled[-1] + shift_in + 1 if settled else 1
        settled.append(min(max(end, low, after), high))
    starts = (0, *(end + shift for end, shift in zip(settled, joins, strict=True)))
    return tuple(zip(starts, (*settled, layers), strict=True))


def condensed(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The runs with those joined that go on where the one before of the same source ends.

    A join that changes nothing would make one model two recipes. Where the runs are all of one
    model, none are left if it is the merged one, and else its first layer and the others.

    Args:
        parts: From the first layer of the model to the last one, two or more.
    """
    found = [parts[0]]
    for source, run in parts[1:]:
        before, (start, end) = found[-1]
        if source == before and end == run[0]:
            found[-1] = (source, (start, run[1]))
        else:
            found.append((source, run))
    if len(found) > 1:
        return tuple(found)
    ((source, (_, layers)),) = found
    return () if source == MERGED else ((source, (0, 1)), (source, (1, layers)))


def _within(shifts: Sequence[int], stacking: Stacking, *, layers: int) -> list[int]:
    """The shifts nearest to those drawn that give a legal number of layers."""
    joins = list(shifts)
    fewest = max(stacking.min_layers, len(joins) + 1)
    while layers - sum(joins) > stacking.max_layers:
        joins[joins.index(min(joins))] += 1
    while layers - sum(joins) < fewest:
        joins[joins.index(max(joins))] -= 1
    return joins


def _room(shifts: Sequence[int], layers: int) -> list[Run] | None:
    """Lowest and highest end of every run but the last, or ``None`` where there are no ends."""
    lows: list[int] = []
    for before, shift in zip((None, *shifts), shifts, strict=False):
        after = 1 if before is None else lows[-1] + before + 1
        lows.append(max(after, -shift, 1))
    highs = [layers]
    for shift in reversed(shifts):
        highs.insert(0, min(highs[0] - shift - 1, layers))
    room = list(zip(lows, highs[:-1], strict=True))
    return room if all(low <= high for low, high in room) else None
