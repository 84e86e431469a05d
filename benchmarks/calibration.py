"""Whether the verdict keeps its promises, on runs whose truth is known.

    python -m benchmarks.calibration                             # half an hour on one core
    python -m benchmarks.calibration --runs 200 --world beatable --kind passages-0.3

A run is a family of its own (``benchmarks/landscape.py``) with its own questions: parents, average,
two default recipes and many random merges are scored on the search questions, the three with the
best scores are asked the held-out ones together with the baselines, and ``verdict`` judges.
Truth is the expected score over the population that all questions are drawn from.

In the world ``beatable`` merges are what the landscape says. In ``unbeatable`` no merge is better
than the best parent, and every second one is exactly as good, so that the best search score is
chance. Questions are of several kinds (``benchmarks/populations.py``): independent ones, four to a
passage, about the same documents in all tasks, and with graded or skewed metrics.
"""

from __future__ import annotations

import argparse
import os
import zlib
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: one core

import numpy as np

from benchmarks.landscape import PARENTS, SPACE, Array, Landscape
from benchmarks.populations import KINDS, Population
from evaluators.protocol import combine
from runs.ranking.finalists import Entry, Finalist, WinnerStanding
from runs.ranking.verdict import Verdict, verdict
from runs.records.record import Role, role_of
from runs.statistics.comparisons import paired, score
from runs.statistics.intervals import Interval
from runs.statistics.resampling import Resampling
from search.samplers.proposals import Cube
from spaces.recipes.recipe import Recipe
from spaces.sampling.seed_recipes import seeds

SEARCH_QUESTIONS = 100  # per task: few, so that the winner's curse is real
FINALISTS = 3
DEFAULTS = 2
EXAMS = 10  # held-out sets for each winner, all but one for its own interval only
HOW = Resampling(resamples=1000)


class Unbeatable(Landscape):
    """A family in which no merge is better than the best parent and many are as good."""

    def __init__(self, seed: int, *, questions: int) -> None:
        super().__init__(seed, questions=questions)
        alone = [seed.recipe for seed in seeds(SPACE) if role_of(seed.name) is Role.PARENT]
        self._parents = {recipe.key for recipe in alone}
        skills = [super(Unbeatable, self).skill(recipe)[0] for recipe in alone]
        self._top = skills[int(np.argmax([self.worth(skill) for skill in skills]))]

    def skill(self, recipe: Recipe) -> tuple[Array, Array]:
        skill, waves = super().skill(recipe)
        if recipe.key in self._parents:
            return skill, waves
        tied = zlib.crc32(recipe.key.encode()) % 2 == 0
        return (self._top if tied or self.worth(skill) > self.worth(self._top) else skill), waves


WORLDS: dict[str, type[Landscape]] = {"beatable": Landscape, "unbeatable": Unbeatable}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The winner against the parent that is the best in truth, on one set of held-out questions.

    Attributes:
        covered: Whether the interval of the difference holds the truth.
        clear: Whether the winner is said to be better.
        better: Whether it is.
    """

    covered: bool
    clear: bool
    better: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One simulated run.

    Attributes:
        verdict: On one set of held-out questions.
        truth: Expected score of everyone in it.
        covered: Share of the held-out sets on which the winner's interval holds the truth.
        pairs: One for each of these sets.
        stderr: Standard error of the winner's search score.
    """

    verdict: Verdict
    truth: dict[str, float]
    covered: float
    pairs: list[Pair]
    stderr: float


def search(rng: np.random.Generator, candidates: int) -> dict[str, Recipe]:
    """The recipes of a run by name: the first ones, then random ones."""
    first = {seed.name: seed.recipe for seed in seeds(SPACE)}
    known = [name for name in first if role_of(name) is Role.DEFAULT]
    by_hand = {name: first[name] for name in first if name not in known[DEFAULTS:]}
    cube = Cube(SPACE)
    drawn = cube.recipes(cube.random(rng, candidates))
    return by_hand | {f"candidate {at}": recipe for at, recipe in enumerate(drawn)}


def simulate(
    world: str, kind: str, seed: int, *, candidates: int, questions: list[int]
) -> list[Run]:
    """One run, judged with each number of held-out questions."""
    people = Population(WORLDS[world](seed, questions=SEARCH_QUESTIONS), KINDS[kind])
    recipes = search(np.random.default_rng([20_002, seed]), candidates)
    seen = {name: people.scores(recipe) for name, recipe in recipes.items()}
    score_of = {name: combine(found, people.infos)[0] for name, found in seen.items()}
    order = sorted(recipes, key=lambda name: -score_of[name])
    asked = {name for name in recipes if _role(name) is not Role.SEARCHED}
    asked |= set([name for name in order if _role(name) is Role.SEARCHED][:FINALISTS])
    asked |= {order[0]}
    truth = {name: people.expected(recipes[name]) for name in asked}
    runs = []
    for number in questions:
        exam = people.exam(number, seed=number)
        about = people.documents(exam)
        entries = [
            Entry(
                name=name,
                role=_role(name),
                rank=place,
                search=seen[name],
                outcomes=people.outcomes(recipes[name], exam) if name in asked else {},
            )
            for place, name in enumerate(order, start=1)
        ]
        found = verdict(entries, tasks=people.infos, documents=about, how=HOW)
        exams = [people.exam(number, seed=number + at * 10_000) for at in range(EXAMS)]
        rival = max((_parent(name) for name in PARENTS), key=lambda name: truth[name])
        hits, pairs = [], []
        for other in exams:
            ours, theirs = (people.outcomes(recipes[name], other) for name in (order[0], rival))
            alone = score(ours, people.infos, documents=about, how=HOW)
            hits.append(_within(alone.combined, truth[order[0]]))
            if rival != order[0]:
                pair = paired(ours, theirs, people.infos, documents=about, how=HOW)
                better = truth[order[0]] - truth[rival]
                pairs.append(
                    Pair(
                        covered=_within(pair.difference, better),
                        clear=pair.clear(HOW.confidence),
                        better=better > 0,
                    )
                )
        runs.append(
            Run(
                verdict=found,
                truth=truth,
                covered=float(np.mean(hits)),
                pairs=pairs,
                stderr=combine(seen[order[0]], people.infos)[1],
            )
        )
    return runs


def _parent(name: str) -> str:
    return f"parent {name}"


def _role(name: str) -> Role:
    return Role.SEARCHED if name.startswith("candidate ") else role_of(name)


def _within(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high


def _best_parent(run: Run) -> float:
    return max(run.truth[_parent(name)] for name in PARENTS)


def _beats(finalist: Finalist) -> bool:
    """Whether it is said, by itself, to beat every parent."""
    group = finalist.parents
    return group is not None and group.standing(HOW.confidence) is WinnerStanding.BEATS


def _any_false_claim(run: Run) -> bool:
    """Whether a finalist that is no better than the best parent is said to beat the parents."""
    return any(
        finalist.parents is not None
        and finalist.parents.beats_after_correction(HOW.confidence)
        and run.truth[finalist.name] <= _best_parent(run)
        for finalist in run.verdict.finalists
    )


def _difference_holds(run: Run) -> bool:
    winner = run.verdict.finalists[0]
    if winner.parents is None:
        return True
    truth = run.truth[winner.name] - _best_parent(run)
    return _within(winner.parents.difference, truth)


def _search_interval(run: Run) -> bool:
    """Whether the ordinary 95 % interval around the winner's search score holds the truth."""
    winner = run.verdict.finalists[0]
    return abs(winner.search - run.truth[winner.name]) <= 1.96 * run.stderr


def row(world: str, kind: str, questions: int, runs: list[Run]) -> str:
    """A line of the table; shares in per cent, scores in points."""
    winners = [run.verdict.finalists[0] for run in runs]
    truths = [run.truth[winner.name] for run, winner in zip(runs, winners, strict=True)]
    pairs = list(zip(runs, winners, truths, strict=True))
    better = [truth > _best_parent(run) for run, _, truth in pairs]
    claims = [_beats(winner) for winner in winners]
    false = [claim and not good for claim, good in zip(claims, better, strict=True)]
    power = [claim for claim, good in zip(claims, better, strict=True) if good]
    flattery = [winner.search - truth for _, winner, truth in pairs]
    duels = [pair for run in runs for pair in run.pairs]
    equal = [pair.clear for pair in duels if not pair.better]
    gaps = [winner.gap.value for winner in winners if winner.gap is not None]
    cells = [
        world,
        kind,
        str(questions),
        f"{100 * np.mean([run.covered for run in runs]):.1f}",
        f"{100 * np.mean([pair.covered for pair in duels]):.1f}",
        f"{100 * np.mean(equal):.1f}" if equal else "",
        f"{100 * np.mean([_difference_holds(run) for run in runs]):.1f}",
        f"{100 * np.mean([_search_interval(run) for run in runs]):.1f}",
        f"{100 * np.mean(false):.1f}",
        f"{100 * np.mean([_any_false_claim(run) for run in runs]):.1f}",
        f"{100 * np.mean(power):.0f}" if power else "",
        f"{100 * np.mean(flattery):.1f}",
        f"{100 * np.mean(gaps):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADERS = (
    "world", "kind", "held-out questions", "held-out interval", "pair", "false pair", "difference",
    "search interval",
    "false wins", "any false claim", "power", "flattery", "gap",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=sorted(WORLDS), action="append")
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--questions", type=int, nargs="+", default=[100, 300, 1000])
    args = parser.parse_args()
    print(f"| {' | '.join(HEADERS)} |\n|{'---|' * len(HEADERS)}")
    for kind in args.kind or KINDS:
        for world in args.world or sorted(WORLDS):
            found = [
                simulate(world, kind, seed, candidates=args.candidates, questions=args.questions)
                for seed in range(args.runs)
            ]
            for at, number in enumerate(args.questions):
                print(row(world, kind, number, [runs[at] for runs in found]), flush=True)


if __name__ == "__main__":
    main()
