"""Will these models merge: what the numbers say, in plain words, and which methods to search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from merging.tensor_statistics.model_similarity import DeltaSums, ModelSimilarity
from search.preflight.smoke_test import AVERAGE, SmokeTest

UNRELATED = 0.7
"""Cosine between a model's weights and the base's below which it does not descend from it.

Fine-tunes have 0.98 and more, long training on other data above 0.9, a model of another origin
about 0.
"""

FAR = 0.3
"""Size of a delta, relative to the base, that is beyond fine-tuning."""

SAME = 1e-6
"""Size of a delta up to which a model is its base."""

TWINS = 0.9
"""Cosine between two deltas above which they are nearly one."""

TOGETHER = 0.3
"""Cosine above which two models were changed in much the same direction."""

OPPOSED = -0.1
"""Cosine below which two models were changed against each other."""

UNDONE = -0.9
"""Cosine below which one model undoes what the other has learnt."""

CONFLICT = 0.55
"""Share of entries changed in opposite directions that is more than chance (a half)."""

UNEVEN = 4.0
"""Ratio of the sizes of two deltas from which equal weights favour the larger one."""

APART = 0.2
"""Difference of two models without a base, relative to their mean, that is far for an average."""

WORSE = 1.0
"""Rise of a model's loss over the base's, as a share of it, in every task, that is a bad sign.

Less says nothing: what a specialist has learnt may be in a few of a task's questions.
"""

ABOVE = 0.03
"""Share of conflicts by which a place stands out from the whole."""

BARRIER = 0.1
"""Rise of the loss between models, as a share of the mean of theirs, that is a barrier."""

_ELECT = ("ties", "dare_ties", "della", "breadcrumbs_ties")
_SUM = ("task_arithmetic", "dare_linear")
_BETWEEN = ("linear", "slerp")
_SPHERES = ("slerp", "nuslerp", "karcher", "multislerp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What to make of a set of models.

    Attributes:
        verdict: One sentence.
        warnings: What stands against a merge, a sentence each.
        methods: Methods worth searching, the most promising first.
        reasons: Why, a sentence each.
    """

    verdict: str
    warnings: tuple[str, ...]
    methods: tuple[str, ...]
    reasons: tuple[str, ...]


def advise(affinity: ModelSimilarity, smoke: SmokeTest | None = None) -> Advice:
    """What the numbers say, with losses on the line between the models where they were taken."""
    warnings = [
        *_broken(affinity),
        *_routers(affinity),
        *(_from_base(affinity) if affinity.based else _between(affinity)),
        *(_pairs(affinity) if affinity.based else ()),
        *(_worse(affinity, smoke) if smoke is not None else ()),
        *_barriers(smoke),
    ]
    methods, reasons = _methods(affinity)
    return Advice(
        verdict=_verdict(affinity, smoke, warnings),
        warnings=tuple(warnings),
        methods=tuple(dict.fromkeys(methods)),
        reasons=tuple(reasons),
    )


def _verdict(affinity: ModelSimilarity, smoke: SmokeTest | None, warnings: Sequence[str]) -> str:
    points = {point.name: point for point in smoke.points} if smoke is not None else {}
    ends = [points[name].loss for name in affinity.parents if name in points]
    whole = tuple(affinity.parents)
    middle = next((point.loss for point in points.values() if point.ends == whole), math.nan)
    if ends and not math.isnan(middle) and middle < min(ends):
        return "These models merge: their plain average has a lower loss than any single model."
    if warnings:
        return "Something stands against merging these models; read the warnings before searching."
    if ends and not math.isnan(middle):
        return "These models should merge: there is no barrier between them."
    return "Nothing in their weights stands against merging these models."


def _broken(affinity: ModelSimilarity) -> Iterator[str]:
    for name in affinity.broken:
        yield f"{name} has NaN or infinity among its weights: no merge with it can be built."


def _routers(affinity: ModelSimilarity) -> Iterator[str]:
    drifted = [one for one in affinity.routers if one.drifted]
    if not drifted:
        return
    how = ", ".join(
        f"{one.model}: {one.moved} of {one.experts} match another expert"
        if one.moved
        else f"{one.model}: a mean cosine of {one.likeness:.2f}"
        for one in drifted
    )
    yield (
        f"Routers have drifted apart from those of {affinity.origin} (rows compared; {how}). "
        "Experts are merged by number, so different ones would be mixed: bring them into one "
        "order, or leave the model out."
    )


def _from_base(affinity: ModelSimilarity) -> Iterator[str]:
    whole = affinity.whole
    for at, name in enumerate(affinity.parents):
        size, like = whole.size(at), whole.likeness(at)
        if size <= SAME:
            yield f"{name} is the base, or nearly: there is nothing in it to merge."
        elif like < UNRELATED:
            yield (
                f"{name} was not fine-tuned from this base: its weights have a cosine of "
                f"{like:.2f} with it (fine-tunes have 0.98 and more). Methods that work on "
                "differences from the base will break it; give the base it comes from, or leave "
                "it out."
            )
        elif size > FAR:
            yield (
                f"{name} is far from the base: it differs by {size:.0%} of the base's norm, where "
                "fine-tunes differ by a few per cent. Weights well below 1 and interpolation are "
                "safer for it than sums."
            )
    sizes = [whole.size(at) for at in range(len(affinity.parents))]
    real = [size for size in sizes if size > SAME]
    if len(real) > 1 and max(real) > UNEVEN * min(real):
        large = affinity.parents[sizes.index(max(real))]
        small = affinity.parents[sizes.index(min(real))]
        yield (
            f"The deltas are uneven: {large} changed {max(real) / min(real):.0f} times as much as "
            f"{small}. With equal weights the result is mostly {large}."
        )


def _between(affinity: ModelSimilarity) -> Iterator[str]:
    whole = affinity.whole
    for one, other in affinity.pairs():
        distance = whole.distance(one, other)
        names = f"{affinity.parents[one]} and {affinity.parents[other]}"
        if distance <= SAME:
            yield f"{names} are the same model."
        elif distance > 1.0:
            yield (
                f"{names} have no common origin: they differ by {distance:.0%} of their mean's "
                "norm. Averages of such models are as good as random."
            )
        elif distance > APART:
            yield f"{names} are far apart: they differ by {distance:.0%} of their mean's norm."


def _pairs(affinity: ModelSimilarity) -> Iterator[str]:
    whole, broken = affinity.whole, set(affinity.broken)
    for one, other in affinity.pairs():
        cosine, conflict = whole.cosine(one, other), whole.conflict(one, other)
        names = f"{affinity.parents[one]} and {affinity.parents[other]}"
        if math.isnan(cosine) or {affinity.parents[one], affinity.parents[other]} & broken:
            continue
        if whole.distance(one, other) <= SAME:
            yield f"{names} are the same model: leave one of them out."
        elif cosine > TWINS:
            yield (
                f"{names} changed nearly alike (cosine {cosine:.2f}): they are close to copies, or "
                "come from a common fine-tune that is nearer to both than this base. With that "
                "one as the base more would be seen."
            )
        elif cosine < UNDONE:
            yield (
                f"{names} undo each other (cosine {cosine:.2f}): one changed the opposite of what "
                "the other did, and their average is nearly the base. Leave one of them out."
            )
        elif cosine < OPPOSED or conflict > CONFLICT:
            where = _worst(affinity, one, other)
            yield (
                f"{names} conflict: cosine {cosine:.2f}, and {conflict:.0%} of the weights that "
                f"both changed went in opposite directions{where}."
            )


def _worst(affinity: ModelSimilarity, one: int, other: int) -> str:
    """Where the conflict is greatest, by kind of tensor and depth, if it stands out there."""
    least = affinity.whole.conflict(one, other) + ABOVE
    kinds = {kind: affinity.of_kind(kind).conflict(one, other) for kind in affinity.kinds}
    depths = {
        depth: affinity.at_depth(depth).conflict(one, other)
        for depth in affinity.depths
        if 0 <= depth < affinity.layers
    }
    kinds = {kind: value for kind, value in kinds.items() if value > least}
    depths = {depth: value for depth, value in depths.items() if value > least}
    parts = []
    if kinds:
        kind = max(kinds, key=lambda name: kinds[name])
        parts.append(f"in {kind} ({kinds[kind]:.0%})")
    if depths:
        depth = max(depths, key=lambda number: depths[number])
        parts.append(f"in layer {depth} ({depths[depth]:.0%})")
    return f", most {' and '.join(parts)}" if parts else ""


def _worse(affinity: ModelSimilarity, smoke: SmokeTest) -> Iterator[str]:
    """Models that have lost to the base in every task."""
    points = {point.name: point for point in smoke.points}
    base = next((point for point in smoke.points if not point.ends and point.losses), None)
    if base is None:
        return
    for name in affinity.parents:
        losses = points[name].losses if name in points else {}
        if losses and all(
            loss > (1.0 + WORSE) * base.losses.get(task, math.inf) for task, loss in losses.items()
        ):
            yield (
                f"{name} is far worse than the base in every task (loss {points[name].loss:.2f}, "
                f"the base's is {base.loss:.2f}): it has nothing to give here, or the questions "
                "are not put as it was taught (chat template, prompt)."
            )


def _barriers(smoke: SmokeTest | None) -> Iterator[str]:
    if smoke is None:
        return
    alone = {point.name: point.loss for point in smoke.points if point.ends == (point.name,)}
    for ends, height in smoke.barriers().items():
        mean = math.fsum(alone[end] for end in ends) / len(ends)
        if height > BARRIER * mean:
            what = "all of them" if len(ends) > 2 else " and ".join(ends)
            yield (
                f"There is a barrier between {what}: half way the loss is {mean + height:.2f}, "
                f"{height / mean:.0%} above the mean of theirs."
                if len(ends) == 2
                else f"There is a barrier between {what}: the {AVERAGE} has a loss of "
                f"{mean + height:.2f}, {height / mean:.0%} above the mean of theirs."
            )
    for point in smoke.points:
        if point.failure:
            yield f"{point.name} could not be scored: {point.failure}"


def _methods(affinity: ModelSimilarity) -> tuple[list[str], list[str]]:
    """Methods worth searching and why."""
    whole = affinity.whole
    if not affinity.based:
        apart = any(whole.distance(a, b) > APART for a, b in affinity.pairs())
        between = [*_SPHERES, *_BETWEEN] if apart else [*_BETWEEN, *_SPHERES]
        return between, [
            "Without a base there are no deltas: only methods that go between models are left."
        ]
    far = [at for at in range(len(affinity.parents)) if _apart(whole, at)]
    near = [(a, b) for a, b in affinity.pairs() if a not in far and b not in far]
    cosines = _known(whole.cosine(a, b) for a, b in near)
    conflicts = _known(whole.conflict(a, b) for a, b in near)
    methods: list[str] = []
    reasons: list[str] = []
    if far:
        methods += [*_SPHERES, "model_stock", "linear"]
        reasons.append(
            "Some models are far from the base: methods that go between models, not those that "
            "sum what they changed."
        )
    if any(c < OPPOSED for c in cosines) or any(c > CONFLICT for c in conflicts):
        methods += _ELECT
        reasons.append(
            "Deltas conflict: methods that elect a sign per weight (ties, dare_ties, della) keep "
            "them from cancelling; let values vary by filter and depth (space.filters, "
            "space.depth)."
        )
    if any(c > TOGETHER for c in cosines):
        methods += [*_BETWEEN, "model_stock"]
        reasons.append(
            "Deltas point the same way: an average keeps what they share, and a sum overshoots; "
            "keep weights that add up to about 1 in the range."
        )
    if any(abs(c) <= TOGETHER for c in cosines):
        methods += [*_SUM, *_ELECT[:2], *_BETWEEN]
        reasons.append(
            "Deltas are nearly at right angles: each model changed something of its own, and sums "
            "with weights up to 1 and above (task_arithmetic, dare_linear) can keep all of it."
        )
    if not cosines and not far:
        methods += ["task_arithmetic", *_BETWEEN]
        reasons.append(
            "There are no two deltas to bring together: all that can be searched is how much of "
            "one is taken."
        )
    return methods, reasons


def _apart(whole: DeltaSums, at: int) -> bool:
    return whole.size(at) > FAR or whole.likeness(at) < UNRELATED


def _known(values: Iterator[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
