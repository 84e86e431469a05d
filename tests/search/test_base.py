"""The base is scored like a parent, on all questions, and is nobody's rival."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.resident_models.model_builder import ModelBuilder, Models
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import SerialPool
from runs.config.run_config import RunConfig, load_config
from runs.ranking.verdict import Verdict
from runs.records.record import Record, Role, Split, State, role_of
from runs.storage.store import Store
from search.engine.final_check import baselines, budget_problems
from search.engine.preparation.run_preparation import manifest_of
from search.engine.session import Session
from search.engine.trials.seed_book import read_book
from search.monitoring.run_verdict import judge_run
from search.monitoring.study_report import make_report
from search.monitoring.study_summary import show_result, show_status
from search.samplers.estimation.posterior import judged
from spaces.sampling.seed_recipes import base_alone
from tests.monitors import NotingMonitor

Project = Callable[..., Path]

CONFIG = """
base: ./base
models: {a: ./a, b: ./b}
tasks: [one, two]
held_out: 0.5
space: {methods: [linear, ties, slerp]}
search: {trials: 12, sampler: random, seed: 1}
workers: {ray: false}
"""


def landscape() -> SyntheticSpec:
    return SyntheticSpec(parents=("a", "b"), tasks=(("one", 1.0), ("two", 1.0)), questions=80)


def made(folder: Path, config: RunConfig, *, before: bool = False) -> Store:
    """A study that nobody drove yet; or one of a version that did not score the base."""
    manifest, _ = manifest_of(
        config,
        SyntheticEvaluator(landscape()).catalogue(),
        config.space(4),
        book=read_book(config),
        checkpoints={},
        dry_run=True,
    )
    if before:
        seeds = tuple(seed for seed in manifest.seeds if role_of(seed.name) is not Role.BASE)
        manifest = replace(manifest, seeds=seeds)
    return Store.create(str(folder / "study.db"), manifest)


def drive(store: Store, config: RunConfig) -> tuple[tuple[Record, ...], Verdict]:
    store.lock.acquire()
    pool = SerialPool(partial(SyntheticEvaluator, landscape()))
    Session(store, config, pool=pool, monitor=NotingMonitor()).run()
    store.lock.release()
    records = judged(store)
    found = judge_run(store, records)
    assert found is not None
    return records, found


def of_role(records: tuple[Record, ...], role: Role) -> list[Record]:
    return [record for record in records if role_of(record.origin) is role]


def test_it_is_asked_what_parents_are_asked(tmp_path: Path) -> None:
    config = RunConfig.from_text(CONFIG)
    store = made(tmp_path, config)
    records, found = drive(store, config)
    (base,) = of_role(records, Role.BASE)
    assert (base.id, base.origin, base.trial, base.recipe.alone) == (3, "base", None, "base")
    assert base.is_baseline
    for split in Split:
        asked = {outcome.question for outcome in store.outcomes(base.id, split)}
        assert asked == set(store.manifest.questions.of(split))
        assert base.evaluations[split].state is State.COMPLETE
    assert len(records) == 12  # it is one of them
    assert found.finalists[0].role is not Role.BASE
    assert "base" in found.comparisons
    assert not any(one.parents and "base" in one.parents.comparisons for one in found.finalists)
    assert not any(one.defaults and "base" in one.defaults.comparisons for one in found.finalists)
    assert not any("The base is" in note for note in found.notes)
    screen = Console(file=StringIO(), width=160)
    show_result(store, make_report(store, config), screen)
    assert "base, winner minus it" in screen.file.getvalue()
    screen = Console(file=StringIO(), width=160)
    show_status(store, config, screen)
    assert f"verdict      {found.sentence}\n" in screen.file.getvalue()
    store.close()


def test_a_base_among_the_models_is_scored_once(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "a").symlink_to("base")
    config = RunConfig.from_text(CONFIG, folder=tmp_path)
    store = made(tmp_path, config)
    records, found = drive(store, config)
    assert of_role(records, Role.BASE) == []
    assert "The base is parent 'a'." in found.notes
    assert baselines(config) == 3
    store.close()


def test_without_a_base_there_is_none(tmp_path: Path) -> None:
    config = RunConfig.from_text(
        CONFIG.replace("base: ./base\n", "").replace("linear, ties, slerp", "linear, slerp")
    )
    store = made(tmp_path, config)
    records, found = drive(store, config)
    assert of_role(records, Role.BASE) == []
    assert not any("The base" in note for note in found.notes)
    assert baselines(config) == 3
    store.close()


def test_an_earlier_study_goes_on_without_it_and_says_so(tmp_path: Path) -> None:
    config = RunConfig.from_text(CONFIG)
    store = made(tmp_path, config, before=True)
    drive(store, config.replaced({"search.trials": 9}))
    records, found = drive(store, config)
    assert len(records) == 12
    assert of_role(records, Role.BASE) == []
    assert "base" not in found.comparisons
    note = "The base is not compared: the study was begun by a version that did not score it."
    assert note in found.notes
    store.close()


def test_the_budget_pays_for_it(tmp_path: Path) -> None:
    config = RunConfig.from_text(CONFIG.replace("trials: 12", "questions: 1"))
    alone = RunConfig.from_text(
        CONFIG.replace("trials: 12", "questions: 1").replace("base: ./base\n", "")
        .replace("linear, ties, slerp", "linear, slerp")
    )  # fmt: skip
    store = made(tmp_path, RunConfig.from_text(CONFIG))
    questions = store.manifest.questions
    needed = [
        int(
            budget_problems(one, questions, seeds=4, objectives=())[0]
            .split("at least ")[1]
            .split(",")[0]
        )
        for one in (config, alone)
    ]
    assert needed[0] - needed[1] == len(questions.held_out) + min(60, len(questions.search))
    store.close()


@pytest.mark.parametrize("output", [{}, {"tokenizer": "code"}, {"vocabulary": "union"}])
def test_it_is_what_it_is_on_disk(
    project: Project, tiny_family: dict[str, Path], tmp_path: Path, output: dict[str, str]
) -> None:
    """Its own config, tokenizer and vocabulary, whatever merges get."""
    places = {name: tmp_path / name for name in ("base", "math", "code")}
    for name, folder in places.items():
        shutil.copytree(tiny_family[name], folder)
    models = {name: str(places[name]) for name in ("math", "code")}
    config = load_config(project(base=str(places["base"]), models=models, output=output))
    seed = base_alone(config.space(4))
    assert seed is not None
    recipe = seed.recipe
    assert (recipe.alone, recipe.donor, recipe.tokenizer, recipe.vocabulary) == (
        "base", "base", None, None,
    )  # fmt: skip
    spec = HarnessSpec(
        models=tuple(config.locations.items()), tasks=(TaskSpec(name="any"),), device="cpu"
    )
    model = ModelBuilder(spec, Models.open(spec)).build(recipe).skeleton.model
    own = AutoModelForCausalLM.from_pretrained(places["base"])
    tokens = torch.arange(4, 20)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, own(tokens).logits)
