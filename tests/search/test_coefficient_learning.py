"""Learning before the search: what is asked, what is kept, and what a crash repeats."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate
from evaluators.workers.pool import Result, SerialPool
from merging.checkpoints.checkpoint import Checkpoint
from runs.config.budget import Budget
from runs.config.config_sections import LearnSection
from runs.config.run_config import RunConfig, load_config
from runs.records.record import Role, Split, role_of
from runs.report.html.page import figures
from runs.storage.store import Store
from search.engine.learning.adam_descent import Batches, Descent
from search.engine.learning.coefficient_learning import Learning
from search.engine.learning.learning_plan import (
    BACKWARD,
    filters_of,
    kept_aside,
    plan_for,
    starts,
)
from search.engine.learning.learning_progress import FACT, spent
from search.engine.learning.parent_answers import FACT as ANSWERS
from search.engine.learning.parent_answers import ParentAnswers
from search.engine.preparation.run_preparation import prepare
from search.engine.processes.stop_signals import Stop
from search.engine.session import Session
from search.inputs.given_config import GivenConfig
from search.monitoring.live.study_watcher import Watcher
from search.monitoring.study_report import make_report
from search.monitoring.study_summary import show_result, show_status
from spaces.recipes.coefficients import Coefficients
from tests.command import apart
from tests.monitors import NotingMonitor

LEARN = {"steps": 12, "batch": 6, "rate": 0.1, "share": 1.0}


class Watched(SerialPool):
    """A pool of one that remembers what it was given, and may stop a run after some answers."""

    def __init__(self, config: RunConfig, *, stop: Stop | None = None, after: int = -1) -> None:
        super().__init__(partial(HarnessEvaluator, config.harness_spec()))
        self.given: list[Candidate] = []
        self._stop, self._after = stop, after

    def next(self, timeout: float | None = None) -> Result | None:
        result = super().next(timeout)
        if result is not None:
            self.given.append(result.candidate)
            if self._stop is not None and len(self.given) == self._after:
                self._stop.requested = True
        return result


@pytest.fixture
def config(project: Callable[..., Path]) -> RunConfig:
    return load_config(project(search={"trials": 9, "seed": 1, "learn": LEARN}))


@pytest.fixture
def store(config: RunConfig, tmp_path: Path) -> Iterator[Store]:
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    made = Store.create(str(tmp_path / "study.db"), prepared.manifest)
    made.hold()
    yield made
    made.close()


def learning(store: Store, config: RunConfig, pool: Watched, stop: Stop) -> Learning:
    assert isinstance(config.search.learn, LearnSection)
    return Learning(
        store=store,
        space=config.space(4),
        pool=pool,
        monitor=NotingMonitor(),
        stop=stop,
        section=config.search.learn,
        steps=config.search.learn.steps,
        seed=1,
    )


def beginnings(config: RunConfig) -> dict[str, object]:
    base = Checkpoint.open(config.locations["base"], name="base")
    return starts(config.space(4), layers=4, filters=filters_of(base.layout.layers))  # type: ignore[return-value]


def test_losses_fall_and_no_held_out_question_is_asked(config: RunConfig, store: Store) -> None:
    pool = Watched(config)
    seeds = learning(store, config, pool, Stop()).run(beginnings(config))  # type: ignore[arg-type]
    assert [seed.name for seed in seeds] == ["learned by layer", "learned in the space"]
    asked = {name for candidate in pool.given for name in candidate.questions}
    assert asked <= set(store.manifest.questions.search)
    assert not asked & set(store.manifest.questions.held_out)
    aside = set(kept_aside(store.manifest.questions.search, store.manifest.catalogue.documents()))
    weighed = {name for candidate in pool.given for name in candidate.weights or ()}
    assert aside <= asked
    assert not aside & weighed
    for text in store.facts(FACT).values():
        descent = Descent.from_json(json.loads(text)["descent"])
        assert descent.steps == 12
        assert min(loss for _, loss in descent.aside) < descent.aside[0][1]
    counted = sum(
        BACKWARD * len(one.weights or ()) + len(set(one.questions) - set(one.weights or ()))
        for one in pool.given
    )
    assert spent(store).questions == counted


def test_stopped_and_resumed_is_the_same_as_in_one_go(
    config: RunConfig, store: Store, tmp_path: Path
) -> None:
    begun = beginnings(config)
    stop = Stop()
    first = Watched(config, stop=stop, after=7)
    assert learning(store, config, first, stop).run(begun) == ()  # type: ignore[arg-type]
    assert len(first.given) == 7
    standing = Watcher(store).standing()
    assert (standing.phase, standing.done, standing.total) == ("learning", 7, 24)
    assert standing.best_text().startswith("loss on questions kept aside: by layer ")
    shown = told(store, config)
    assert "by layer: 4 of 12 steps, loss " in shown
    assert f"{spent(store).questions:,.0f} questions (" in shown
    second = Watched(config)
    resumed = learning(store, config, second, Stop()).run(begun)  # type: ignore[arg-type]
    manifest = store.manifest
    other = Store.create(str(tmp_path / "other.db"), manifest)
    other.hold()
    whole = Watched(config)
    assert learning(other, config, whole, Stop()).run(begun) == resumed  # type: ignore[arg-type]
    assert len(first.given) + len(second.given) == len(whole.given)
    other.close()


def test_a_run_tries_what_it_learned_and_counts_what_it_cost(
    config: RunConfig, store: Store
) -> None:
    config = config.replaced({"search.trials": 20, "search.learn.steps": 10})  # pays for both
    checkpoints = {name: Checkpoint.open(at, name=name) for name, at in config.locations.items()}
    seen, pool = NotingMonitor(), Watched(config)
    assert Session(store, config, pool=pool, monitor=seen, checkpoints=checkpoints).run()
    origins = {record.origin: record for record in store.records()}
    assert {"learned by layer", "learned in the space"} <= origins.keys()
    assert origins["learned by layer"].trial is None
    assert origins["learned in the space"].trial is not None
    assert all(role_of(name) is Role.SEARCHED for name in origins if name.startswith("learned"))
    assert any(note.startswith("learned by layer: ") for note in seen.notes)
    layered = Coefficients(origins["learned by layer"].recipe)
    assert len(layered.values) == 3 * (3 * 4 + 1)  # parents x ((two filters, the rest) x layers, 1)
    report = make_report(store, config)
    assert [one.chosen is None for one in report.learning] == [False, False]
    cost = spent(store)
    share = cost.questions / len(store.manifest.questions.search) / 20
    assert sum(one.share for one in report.learning) == pytest.approx(share)
    names = {figure.name for figure in figures(report)}
    assert {"learning", "learned-by-layer", "learned-in-the-space"} <= names
    text = io.StringIO()
    show_result(store, report, Console(file=text, width=200))
    assert f"Learning: {cost.questions:,} questions (" in text.getvalue()
    again = Watched(config)
    assert Session(
        store, config, pool=again, monitor=NotingMonitor(), checkpoints=checkpoints
    ).run()
    assert all(candidate.weights is None for candidate in again.given)


def told(store: Store, config: RunConfig) -> str:
    """What ``search status`` prints."""
    text = io.StringIO()
    show_status(store, config, Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"search": {"trials": 9, "learn": False}}, None),
        ({"search": {"trials": 2, "learn": "auto"}}, "the budget pays for"),
        ({"search": {"trials": 9, "learn": LEARN, "seeds": "none"}}, "search.seeds is none"),
        (
            {"space": {"methods": ["ties"]}, "search": {"trials": 9, "learn": LEARN}},
            "it needs task",
        ),
        ({"base": None, "search": {"trials": 7, "learn": LEARN}}, "it needs a base model"),
    ],
)
def test_where_nothing_is_learned_it_says_why(
    project: Callable[..., Path], tmp_path: Path, changes: dict[str, object], reason: str | None
) -> None:
    config = load_config(project(**changes))
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    store = Store.create(str(tmp_path / "study.db"), prepared.manifest)
    store.hold()
    seen = NotingMonitor()
    Session(
        store, config, pool=Watched(config), monitor=seen, checkpoints=prepared.checkpoints
    ).run()
    said = [note for note in seen.notes if note.startswith("learning is off: ")]
    assert [reason in note for note in said] == ([] if reason is None else [True])  # type: ignore[operator]
    assert not store.facts(FACT)
    store.close()


MARKS = """
def marks(document, answers):
    return {"exact_match": float(len(answers[0]) > 1)}  # a letter alone has no thought before it
"""


@pytest.fixture
def reasoning(project: Callable[..., Path], tasks_folder: Path, tmp_path: Path) -> RunConfig:
    """A config with a task beside a choice whose reference alone is marked wrong."""
    folder = tmp_path / "tasks"
    shutil.copytree(tasks_folder, folder)
    (folder / "marks.py").write_text(MARKS)
    rows = [json.loads(line) for line in (folder / "write.json").read_text().splitlines()]
    given = "\n".join(json.dumps(row | {"answer": "b"}) for row in rows)
    (folder / "reason.json").write_text(given)
    text = (folder / "write.yaml").read_text().replace("task: write", "task: reason")
    text = text.replace(str(tasks_folder / "write.json"), str(folder / "reason.json"))
    (folder / "reason.yaml").write_text(f"{text}process_results: !function marks.marks\n")
    path = project(
        tasks=["pick", {"name": "reason", "metric": "exact_match,none"}],
        include_path=str(folder),
        search={"trials": 60, "seed": 1, "learn": LEARN | {"steps": 30}},
    )
    return load_config(path)


@pytest.fixture
def reasons(reasoning: RunConfig, tmp_path: Path) -> Iterator[Store]:
    prepared = prepare(GivenConfig(config=reasoning, written=reasoning), dry_run=False)
    made = Store.create(str(tmp_path / "study.db"), prepared.manifest)
    made.hold()
    yield made
    made.close()


def test_what_parents_got_right_is_learned_where_references_say_nothing(
    reasoning: RunConfig, reasons: Store
) -> None:
    pool = Watched(reasoning)
    job = learning(reasons, reasoning, pool, Stop())
    seeds = job.run(beginnings(reasoning))  # type: ignore[arg-type]
    assert [seed.name for seed in seeds] == ["learned by layer", "learned in the space"]
    asked = [one for one in pool.given if one.texts]
    assert [one.recipe.alone for one in asked] == ["code", "math", "text"]
    assert all(name.startswith("reason/") for one in asked for name in one.questions)
    assert {name for one in pool.given for name in one.questions} <= set(
        reasons.manifest.questions.search
    )
    kept = ParentAnswers.of(reasons)
    aside = kept_aside(reasons.manifest.questions.search, reasons.manifest.catalogue.documents())
    targets = kept.targets(dict.fromkeys(kept.asked, "reason"), aside)
    learned = [one for one in pool.given if one.targets]
    assert len(learned) == 2 * (job.steps + 1)  # a last look beside the steps of both
    for one in learned:
        written = {name for name in one.questions if name.startswith("reason/")}
        assert dict(one.targets) == {name: targets[name] for name in written}
    assert all(len(text) > 1 for text in targets.values())
    for text in reasons.facts(FACT).values():
        descent = Descent.from_json(json.loads(text)["descent"])
        assert descent.steps == job.steps < 30  # asking the parents was paid for
        assert min(loss for _, loss in descent.aside) < descent.aside[0][1]
    assert f"reason: {len(targets)} answers that parents got right" in told(reasons, reasoning)


def test_parents_that_answered_are_not_asked_again(
    reasoning: RunConfig, reasons: Store, tmp_path: Path
) -> None:
    begun, stop = beginnings(reasoning), Stop()
    first = Watched(reasoning, stop=stop, after=4)  # a step of each, and two parents
    assert learning(reasons, reasoning, first, stop).run(begun) == ()  # type: ignore[arg-type]
    assert [one.recipe.alone for one in first.given] == [None, None, "code", "math"]
    second = Watched(reasoning)
    learning(reasons, reasoning, second, Stop()).run(begun)  # type: ignore[arg-type]
    assert [one.recipe.alone for one in second.given if one.texts] == ["text"]
    whole = Store.create(str(tmp_path / "whole.db"), reasons.manifest)
    whole.hold()
    learning(whole, reasoning, Watched(reasoning), Stop()).run(begun)  # type: ignore[arg-type]
    assert spent(reasons).questions == spent(whole).questions
    values = [
        [json.loads(json.loads(text)["descent"])["values"] for text in one.facts(FACT).values()]
        for one in (reasons, whole)
    ]
    assert values[0] == values[1]
    whole.close()


@pytest.mark.parametrize(
    ("steps", "right", "reason"),
    [
        (8, "> 1", "no right answers, and no budget to ask the parents for theirs"),
        (30, "> 99", "no right answers, and too few of the parents"),
    ],
)
def test_a_task_without_answers_is_left_out_and_others_are_learned(
    reasoning: RunConfig, reasons: Store, tmp_path: Path, steps: int, right: str, reason: str
) -> None:
    (tmp_path / "tasks" / "marks.py").write_text(MARKS.replace("> 1", right))
    config = reasoning.replaced({"search.learn.steps": steps})
    pool, begun = Watched(config), beginnings(config)
    job = learning(reasons, config, pool, Stop())
    assert len(job.run(begun)) == 2  # type: ignore[arg-type]
    assert f"learning is off for reason: {reason}" in job.monitor.notes  # type: ignore[attr-defined]
    learned = [one for one in pool.given if one.weights and not one.texts][2:]
    assert all(name.startswith("pick/") for one in learned for name in one.questions)
    assert f"reason: nothing ({reason})" in told(reasons, config)
    cost, again = spent(reasons), Watched(config)
    assert len(learning(reasons, config, again, Stop()).run(begun)) == 2  # type: ignore[arg-type]
    assert (again.given, spent(reasons)) == ([], cost)


def test_a_run_whose_only_task_has_no_answers_learns_nothing_and_says_so(
    reasoning: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "tasks" / "marks.py").write_text(MARKS.replace("> 1", "> 99"))
    config = reasoning.replaced({"tasks": [{"name": "reason", "metric": "exact_match,none"}]})
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    with closing(Store.create(str(tmp_path / "study.db"), prepared.manifest)) as store:
        store.hold()
        job = learning(store, config, Watched(config), Stop())
        assert job.run(beginnings(config)) == ()  # type: ignore[arg-type]
        notes = job.monitor.notes  # type: ignore[attr-defined]
        assert notes[-1].startswith("learning is off: it needs 20 search questions to learn from")
        assert "ended early: it needs 20 search questions" in told(store, config)


def test_a_task_that_has_no_answers_is_left_out_at_once(
    project: Callable[..., Path], tasks_folder: Path, tmp_path: Path
) -> None:
    text = (tasks_folder / "write.yaml").read_text().replace("task: write", "task: flow")
    text = text.replace("generate_until", "loglikelihood_rolling")
    (tmp_path / "flow.yaml").write_text(text.replace("exact_match", "word_perplexity"))
    config = load_config(
        project(
            tasks=["pick", "flow"],
            include_path=[str(tasks_folder), str(tmp_path)],
            search={"trials": 60, "seed": 1, "learn": LEARN | {"steps": 10}},
        )
    )
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    with closing(Store.create(str(tmp_path / "study.db"), prepared.manifest)) as store:
        store.hold()
        pool = Watched(config)
        job = learning(store, config, pool, Stop())
        assert len(job.run(beginnings(config))) == 2  # type: ignore[arg-type]
        assert job.monitor.notes[0] == "learning is off for flow: no right answers"  # type: ignore[attr-defined]
        later = {name for one in pool.given[2:] for name in one.questions}
        assert later
        assert all(name.startswith("pick/") for name in later)


def test_where_marks_are_no_right_or_wrong_the_best_parent_is_learned(
    reasoning: RunConfig, reasons: Store, tmp_path: Path
) -> None:
    graded = MARKS.replace("float(len(answers[0]) > 1)", "0.5 * (len(answers[0]) > 1)")
    (tmp_path / "tasks" / "marks.py").write_text(graded)
    pool = Watched(reasoning)
    assert len(learning(reasons, reasoning, pool, Stop()).run(beginnings(reasoning))) == 2  # type: ignore[arg-type]
    kept = ParentAnswers.of(reasons)
    best = max(kept.values, key=lambda name: kept.values[name]["reason"])
    written = {name: text for one in pool.given for name, text in one.targets.items()}
    assert written
    assert all(kept.written[best][name] == text for name, text in written.items())
    assert set(written) <= set(reasons.manifest.questions.search)
    assert f"reason: {len(kept.written[best])} answers of {best}, the best at it" in told(
        reasons, reasoning
    )


@pytest.mark.parametrize("text", ["", "[]", '{"tasks": ["a"], "right": "?"}', '{"right": "e30="}'])
def test_damaged_answers_count_for_nothing(store: Store, text: str) -> None:
    store.set_fact(ANSWERS, text)
    assert ParentAnswers.of(store) == ParentAnswers()


def test_a_target_comes_from_the_parent_that_is_better_at_the_task() -> None:
    of = {f"a/{n}": "a" for n in range(10)}
    right = {"x": {"a/1": "x1"}, "y": {name: f"y{name}" for name in of}, "z": {}}
    found = ParentAnswers(tasks=("a",), right=right)
    assert found.targets(of, ["a/9"]) == right["y"]
    assert dict(found.words(of, of)) == {"a": "10 answers that parents got right"}
    assert found.targets(of, []) == {}  # nothing to choose the coefficients by
    few = ParentAnswers(tasks=("a",), right={"x": dict(list(right["y"].items())[-7:])})
    assert few.targets(of, ["a/9"]) == {}


DIES = """
import json, os, signal, sys
from runs.storage.store import Store
from search.cli import app
from search.engine.learning.adam_descent import Descent
from search.engine.learning.learning_progress import FACT

write = Store.set_fact

def write_and_die(store, key, value):
    write(store, key, value)
    if key.startswith(FACT) and Descent.from_json(json.loads(value)["descent"]).steps >= 10:
        os.kill(os.getpid(), signal.SIGKILL)

Store.set_fact = write_and_die
app.main()
"""
"""A run that is killed when ten steps of a recipe are in the study."""


@pytest.mark.slow
def test_killed_while_it_learns_and_resumed(project: Callable[..., Path], tmp_path: Path) -> None:
    path = project(search={"trials": 9, "seed": 1, "learn": {**LEARN, "steps": 60}})
    killed = subprocess.run(
        [sys.executable, "-c", DIES, "run", str(path)], cwd=tmp_path, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    study = tmp_path / "mix" / "study.db"
    with closing(Store.open(str(study))) as store:
        known = [json.loads(text)["descent"] for text in store.facts(FACT).values()]
    assert 10 <= max(Descent.from_json(one).steps for one in known) < 44
    done = apart("resume", study, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store = Store.open(str(study))
    for text in store.facts(FACT).values():
        descent = Descent.from_json(json.loads(text)["descent"])
        assert descent.steps == len(descent.losses) == 44  # what the budget pays for
        assert [step for step, _ in descent.aside] == [0, 10, 20, 30, 40, 44]
    assert store.records()[-1].evaluations[Split.SEARCH].finished is not None
    store.close()


def test_batches_go_through_all_questions_and_come_again_the_same() -> None:
    tasks = {"a": [f"a{n}" for n in range(10)], "b": [f"b{n}" for n in range(4)]}
    batches = Batches(tasks=tasks, size=6, seed=3)
    steps = [batches.of(step) for step in range(9)]
    assert all(len(step["a"]) == len(step["b"]) == 3 for step in steps)
    first = [name for step in steps[:3] for name in step["a"]]
    assert len(set(first)) == 9
    assert steps == [Batches(tasks=tasks, size=6, seed=3).of(step) for step in range(9)]
    assert steps != [Batches(tasks=tasks, size=6, seed=4).of(step) for step in range(9)]


def test_adam_finds_the_bottom_and_keeps_the_best() -> None:
    descent = Descent(values=(2.0, -1.0))
    for _ in range(150):
        loss = sum(value**2 for value in descent.values)
        descent = descent.look(loss).step(
            [2 * value for value in descent.values], loss=loss, rate=0.05
        )
    assert max(map(abs, descent.best)) < 0.02
    best = min(loss for _, loss in descent.aside)
    assert sum(value**2 for value in descent.best) == pytest.approx(best)
    assert Descent.from_json(descent.to_json()) == descent


@pytest.mark.parametrize("text", ["", "[]", '{"values": 3, "nothing": 1}', "{"])
def test_damaged_states_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"learning|JSON|Expecting"):
        Descent.from_json(text)


def test_documents_are_kept_aside_whole() -> None:
    questions = [f"q{n}" for n in range(40)]
    documents = {name: f"d{at // 4}" for at, name in enumerate(questions)}
    aside = kept_aside(questions, documents)
    assert len(aside) == 8
    assert {documents[name] for name in aside} & {
        documents[name] for name in questions if name not in aside
    } == set()


@pytest.mark.parametrize(
    ("budget", "recipes", "steps"),
    [
        (Budget(trials=300), 2, 120),
        (Budget(trials=40), 2, 83),
        (Budget(trials=28), 1, 120),  # a quarter would not pay for 60 steps of both
        (Budget(questions=1200 + 500), 1, 35),
        (Budget(questions=400), 1, 0),  # all of it is for the final check
        (Budget(trials=300, questions=1200 + 500), 1, 35),
        (Budget(hours=8.0), 2, 120),
    ],
)
def test_what_a_budget_pays_for(budget: Budget, recipes: int, steps: int) -> None:
    found = plan_for(LearnSection(), budget, questions=400, tasks=3, reserved=500)
    assert found == (recipes, steps)


class Endless(Exception):
    """Far more was asked than the steps need."""


class Bounded(Watched):
    def next(self, timeout: float | None = None) -> Result | None:
        if len(self.given) > 400:
            raise Endless
        return super().next(timeout)


def lacking(
    monkeypatch: pytest.MonkeyPatch, lack: Callable[[str, Mapping[str, str]], bool]
) -> None:
    """Let nothing be known of some questions."""
    known = HarnessEvaluator._answers

    def answers(self: Any, model: Any, asked: Any, targets: Any = None) -> Any:
        found = known(self, model, asked, targets)
        return [one for one in found if not lack(one.question, targets or {})]

    monkeypatch.setattr(HarnessEvaluator, "_answers", answers)


def test_a_question_without_a_reference_does_not_throw_out_its_task(
    config: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.replaced({"search.learn.batch": 2, "search.learn.steps": 20})
    job = learning(store, config, Bounded(config), Stop())
    (without,) = job._sources.batches.of(3)["pick"]
    lacking(monkeypatch, lambda name, _: name == without)
    assert len(job.run(beginnings(config))) == 2
    assert not any("learning is off" in note for note in job.monitor.notes)  # type: ignore[attr-defined]
    assert any(without in (one.weights or {}) for one in job.pool.given)  # type: ignore[attr-defined]


def test_an_answer_of_a_parent_that_gives_no_loss_ends_no_step(
    reasoning: RunConfig, reasons: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = reasoning.replaced({"search.learn.batch": 2, "search.learn.steps": 40})
    job = learning(reasons, config, Bounded(config), Stop())
    lacking(monkeypatch, lambda name, targets: list(targets) == [name])
    assert len(job.run(beginnings(config))) == 2


def test_what_another_version_learned_to_its_end_is_not_learned_on(
    config: RunConfig, store: Store
) -> None:
    config = config.replaced({"search.learn.steps": 12})
    begun = beginnings(config)
    learned = learning(store, config, Watched(config), Stop()).run(begun)
    config = config.replaced({"search.learn.steps": 24})
    again = Watched(config)
    assert learning(store, config, again, Stop()).run(begun) == learned
    assert again.given == []
