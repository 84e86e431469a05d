"""The Python example of docs/report.md runs, on a real study.db with a real winner."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.protocol import Catalogue, Outcome, Question, Score, TaskInfo, TaskScore
from runs.config.run_config import RunConfig
from runs.records.manifest import Manifest
from runs.records.question_split import divide
from runs.records.record import AVERAGE, Split
from runs.storage.store import Store
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

PAGE = Path(__file__).parent.parent.parent / "docs" / "report.md"


def recipe(weight: float) -> Recipe:
    inputs = tuple(
        Source(of=Model(name), parameters=parameters(weight=share))
        for name, share in (("a", weight), ("b", 1 - weight))
    )
    return Recipe(root=Merge(method="linear", sources=inputs))


def score(names: tuple[str, ...], right: int) -> Score:
    values = [float(at < right) for at in range(len(names))]
    mean = sum(values) / len(values)
    return Score(
        value=mean,
        stderr=0.1,
        tasks=(TaskScore(task="t", value=mean, stderr=0.1, n=len(names)),),
        outcomes=tuple(Outcome(question=n, value=v) for n, v in zip(names, values, strict=True)),
        fingerprint="f" * 32,
        build_seconds=0.5,
        score_seconds=1.5,
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    catalogue = Catalogue(
        tasks=(TaskInfo(name="t", metric="acc,none", higher_is_better=True, weight=1.0),),
        questions=tuple(Question(id=f"t/{n}", task="t", position=n) for n in range(40)),
    )
    manifest = Manifest(
        config="",
        space=RunConfig.from_text("models: {a: ./a, b: ./b}\ntasks: [t]\n").space(1).to_dict(),
        inputs={},
        inputs_dtype="float32",
        catalogue=catalogue,
        questions=divide(catalogue, 0.5, seed=0),
        versions={},
        created="2026-01-01T00:00:00+00:00",
    )
    path = tmp_path / "study.db"
    store = Store.create(str(path), manifest)
    store.hold()
    for weight, origin, right in ((0.5, AVERAGE, 10), (0.8, "tpe", 15)):
        number = store.add(recipe(weight), origin=origin, trial=None)
        for split in Split:
            if split is Split.HELD_OUT:
                store.begin(number, split)
            outcome = score(manifest.questions.of(split), right)
            store.finish(number, split, outcome, worker="w")
    store.close()
    return path


def test_the_python_example_runs(study: Path) -> None:
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert "demo/study.db" in code
    printed: list[object] = []
    scope: dict[str, object] = {"print": printed.append, "__name__": "example"}
    exec(code.replace("demo/study.db", str(study)), scope)
    scope["store"].close()  # type: ignore[attr-defined]
    assert scope["winner"].id == 1  # type: ignore[attr-defined]
    (difference,) = printed
    assert difference.value == pytest.approx(0.25)  # type: ignore[attr-defined]
    assert difference.n == 20  # type: ignore[attr-defined]
