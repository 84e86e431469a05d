"""A budget in tokens: what is counted, when a run ends, and what is left for the final check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Score
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

Command = Callable[..., Any]
Project = Callable[..., Path]


def status(command: Command, study: Path) -> dict[str, Any]:
    done = command("status", study, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_ends_with_its_tokens(project: Project, command: Command, tmp_path: Path) -> None:
    """Each pretended question takes 100 tokens."""
    config = project(search={"tokens": 150_000, "sampler": "random", "learn": "off"})
    done = command("run", config, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "of 150,000 tokens" in done.stdout
    study = tmp_path / "mix" / "study.db"
    found = status(command, study)
    assert found["complete"]
    assert found["candidates"]["held_out"] > 0
    assert found["tokens"] == 100 * found["questions"]
    assert 100_000 < found["tokens"] <= 150_000
    assert found["budget"] == {"tokens": {"spent": found["tokens"], "limit": 150_000}}
    done = command("resume", study, "--tokens", 200_000)
    assert done.returncode == 0, done.stderr
    more = status(command, study)
    assert found["tokens"] < more["tokens"] <= 200_000
    assert more["budget"]["tokens"]["limit"] == 200_000


def test_an_evaluator_of_ones_own_counts_none(project: Project, command: Command) -> None:
    config = project(evaluator="own.py:Own", search={"tokens": 5})
    done = command("check", config, "--quick")
    assert done.returncode == 2
    assert "search.tokens: expected none with an evaluator of your own" in done.stderr


def test_a_budget_without_room_for_a_candidate_is_told(project: Project, command: Command) -> None:
    done = command("check", project(search={"tokens": 100}), "--quick")
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if "search.tokens" in one]
    assert "search.tokens: expected at least" in line
    assert line.endswith("got 100")
    done = command("check", project(search={"tokens": 2000}), "--json")
    assert done.returncode == 0, done.stderr
    (warning,) = [one for one in json.loads(done.stdout)["warnings"] if "search.tokens" in one]
    assert "expected room for one candidate beside the final check of" in warning
    assert "got 2000: nothing would be searched." in warning


def test_what_is_read_and_written_counts(tiny_family: dict[str, Path], tasks_folder: Path) -> None:
    spec = HarnessSpec(
        models=(("code", str(tiny_family["code"])),),
        tasks=(TaskSpec(name="write"), TaskSpec(name="pick")),
        include_path=(str(tasks_folder),),
        check_degenerate=False,
    )
    evaluator = HarnessEvaluator(spec)
    source = Source(of=Model("code"), parameters=parameters(weight=1.0))
    recipe = Recipe(root=Merge(method="linear", sources=(source,)))
    asked = [
        tuple(q.id for q in evaluator.catalogue().questions if q.position < last)
        for last in (10, 70)
    ]
    few, all_of_them = (
        evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=ids)) for ids in asked
    )
    evaluator.close()
    assert isinstance(few, Score)
    assert isinstance(all_of_them, Score)
    write, pick = all_of_them.tasks
    assert pick.tokens == 70 * 3 * (3 + 2)  # three choices of a blank and a letter each
    assert 70 * (3 + 1) <= write.tokens <= 70 * (3 + 3)  # up to three are written
    assert few.tasks[1].tokens == 10 * 3 * (3 + 2)
