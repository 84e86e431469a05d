"""A small study by hand: ten questions of one task, recipes of two models."""

import math

from evaluators.protocol import Catalogue, Outcome, Question, Score, TaskInfo, TaskScore
from runs.records.manifest import Manifest
from runs.records.question_split import divide
from spaces.recipes.parameter_count import ParameterCount
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters


def recipe(weight: float) -> Recipe:
    sources = (
        Source(of=Model("a"), parameters=parameters(weight=1.0)),
        Source(of=Model("b"), parameters=parameters(weight=weight)),
    )
    return Recipe(root=Merge(method="linear", sources=sources))


def manifest() -> Manifest:
    catalogue = Catalogue(
        tasks=(TaskInfo(name="t", metric="acc,none", higher_is_better=True, weight=2.0),),
        questions=tuple(Question(id=f"t/{n}", task="t", position=n) for n in range(10)),
    )
    return Manifest(
        config="base: x\n",
        space={"parents": ["a", "b"]},
        inputs={"a": "1" * 16},
        inputs_dtype="bfloat16",
        catalogue=catalogue,
        questions=divide(catalogue, 0.3, seed=0),
        versions={"torch": "2"},
        created="2026-01-01T00:00:00+00:00",
        sizes=ParameterCount(outside=3, layers=(1, 2)),
    )


def score(names: tuple[str, ...], *, lengths: tuple[float | None, ...] = (None,)) -> Score:
    return Score(
        value=0.1 + 0.2,
        stderr=0.05,
        tasks=(TaskScore(task="t", value=0.1 + 0.2, stderr=math.nan, n=len(names)),),
        outcomes=tuple(
            Outcome(question=name, value=1 / 3, length=lengths[at % len(lengths)])
            for at, name in enumerate(names)
        ),
        fingerprint="f" * 32,
        build_seconds=0.5,
        score_seconds=1.5,
    )
