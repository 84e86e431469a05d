"""`search check`: what it finds out, what it warns of, and that a run refuses the same."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evaluators.protocol import (  # fmt: skip
    Candidate,
    Catalogue,
    Outcome,
    Question,
    Score,
    TaskInfo,
    TaskScore,
)
from merging.checkpoints.checkpoint import Checkpoint
from merging.tensor_statistics.model_similarity import DeltaSums, ModelSimilarity, survey
from search.engine.preparation.run_preparation import prepare
from search.inputs.given_config import read
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides
from search.preflight.advice import advise
from search.preflight.forecast import Forecast, Workforce, forecast
from search.preflight.inspection import check as look
from search.preflight.preflight_depth import PreflightDepth
from search.preflight.preflight_result import Preflight
from search.preflight.rendering.heat_map import heat_map
from search.preflight.rendering.preflight_html import fragment, page
from search.preflight.rendering.preflight_tables import sparkline
from search.preflight.smoke_test import CandidatePace, Point, SmokeTest
from search.preflight.task_levels import Level, levels
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

Project = Callable[..., Path]
Command = Callable[..., Any]


def checked(config: Path, depth: PreflightDepth | None = None, **overrides: object) -> Preflight:
    return look(
        read(config, Overrides(**overrides)),  # type: ignore[arg-type]
        depth=depth or PreflightDepth(seconds=2.0, questions=4),
        progress=lambda what, done, total: None,
    )


def alone(name: str) -> Recipe:
    source = Source(of=Model(name), parameters=parameters(weight=1.0))
    return Recipe(root=Merge(method="linear", sources=(source,)))


def test_everything_about_a_project(project: Project, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    config = project()
    found = checked(config)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, config])  # nothing is written
    assert [one.name for one in found.models] == ["base", "code", "math", "text"]
    assert {one.layers for one in found.models} == {4}
    pick, write = found.tasks
    assert (pick.questions, pick.search + pick.held_out) == (70, 70)
    assert write.metric == "exact_match,none"
    assert write.facts.kind == "generate_until"
    assert found.space.trees == 3
    assert found.affinity is not None
    assert found.affinity.whole.size(0) > 0
    assert found.smoke is not None
    assert not found.smoke.pace.failure
    assert found.smoke.pace.build > 0
    names = [point.name for point in found.smoke.points]
    assert names == [
        "base", "code", "math", "text", "code + math", "code + text", "math + text",
        "plain average",
    ]  # fmt: skip
    assert all(
        point.loss > 0 and set(point.losses) == {"pick", "write"} for point in found.smoke.points
    )
    assert set(found.smoke.barriers()) == {
        ("code", "math"), ("code", "text"), ("math", "text"), ("code", "math", "text"),
    }  # fmt: skip
    assert found.forecast is not None
    assert found.forecast.candidates == 8
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["affinity"]["whole"]["pairs"][0]["between"] == ["code", "math"]
    assert data["forecast"]["sentence"].startswith("about 8 candidates by ")


def test_the_loss_is_the_likelihood_of_the_right_answer(project: Project) -> None:
    """Against transformers alone, for a multiple choice and for a generation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = project()
    found = checked(config)
    assert found.smoke is not None
    prepared = prepare(read(config, Overrides()), dry_run=False)
    folder = str(prepared.config.models["math"])
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    place = {question.id: question for question in prepared.manifest.catalogue.questions}
    searched = [place[name] for name in prepared.manifest.questions.search]
    for task in ("pick", "write"):
        positions = [question.position for question in searched if question.task == task][:4]
        losses = []
        for position in positions:
            prompt = f"{position // 7}{position % 7}="
            answer = " ab" if task == "write" else " " + "abc"[position % 3]
            context, target = (
                tokenizer.encode(t, add_special_tokens=False) for t in (prompt, answer)
            )
            with torch.inference_mode():
                logits = model(torch.tensor([context + target])).logits[0].log_softmax(-1)
            total = sum(
                float(logits[len(context) + at - 1, token]) for at, token in enumerate(target)
            )
            losses.append(-total / len(target))
        (point,) = [point for point in found.smoke.points if point.name == "math"]
        assert point.losses[task] == pytest.approx(sum(losses) / 4, rel=1e-4)


def test_flags_leave_out_the_costly_parts(project: Project) -> None:
    quick = checked(project(), PreflightDepth(weights=False, smoke=False))
    assert (quick.affinity, quick.smoke, quick.forecast, quick.advice) == (None,) * 4
    weights = checked(project(), PreflightDepth(smoke=False, gpu_memory=24.0))
    assert weights.affinity is not None
    assert weights.smoke is None
    assert any("GPU 0: model" in line and "24.0 GB" in line for line in weights.room.lines)
    page(quick), page(weights)


@pytest.mark.parametrize(
    ("search", "note"),
    [
        ({"trials": 9, "learn": False}, "Learning is off: search.learn is off."),
        ({"trials": 2}, "Learning is off: the budget pays for 6 steps of at least 20."),
        ({"trials": 300}, "Before the search, the weights of 2 recipes are learned in 120 steps."),
    ],
)
def test_it_says_whether_a_run_learns(
    project: Project, search: dict[str, object], note: str
) -> None:
    found = checked(project(search=search), PreflightDepth(weights=False, smoke=False))
    assert found.notes[-1] == note


def test_it_names_tasks_that_are_not_learned_from_references(
    project: Project, tasks_folder: Path, tmp_path: Path
) -> None:
    text = (tasks_folder / "write.yaml").read_text()
    rolling = text.replace("task: write", "task: flow").replace("exact_match", "word_perplexity")
    rolling = re.sub(r"output_type: \S+", "output_type: loglikelihood_rolling", rolling)
    (tmp_path / "flow.yaml").write_text(rolling)
    asked = re.sub(
        r"doc_to_target: .*", 'doc_to_target: ""', text.replace("task: write", "task: say")
    )
    (tmp_path / "say.yaml").write_text(asked)
    found = checked(
        project(
            tasks=["pick", "flow", {"name": "say", "metric": "exact_match,none"}],
            include_path=[str(tasks_folder), str(tmp_path)],
            search={"trials": 300},
        ),
        PreflightDepth(weights=False, questions=2),
    )
    assert found.notes[-1] == (
        "Before the search, the weights of 2 recipes are learned in 120 steps; flow: nothing, as "
        "it has no right answers to learn from; say: from answers of parents, as references alone "
        "would not be marked right."
    )


def test_a_filter_that_no_tensor_has_is_named(project: Project) -> None:
    config = project(space={"methods": ["linear"], "filters": ["self_attn", "mpl"]})
    found = checked(config, PreflightDepth(weights=False, smoke=False))
    (line,) = [text for text in found.warnings if "filters" in text]
    assert "'mpl' is part of no tensor's name" in line


def test_a_vision_tower_that_no_model_has_is_refused(project: Project) -> None:
    config = project(output={"dtype": "float32", "vision": "average"})
    with pytest.raises(InputError, match="vision: expected models with a vision tower"):
        checked(config, PreflightDepth(weights=False, smoke=False))


def test_worked_examples_and_documents_are_told(project: Project) -> None:
    found = checked(
        project(tasks=[{"name": "pick", "num_fewshot": 2}]),
        PreflightDepth(weights=False, smoke=False),
    )
    (pick,) = found.tasks
    aside = 70 - pick.questions
    assert aside in (2, 3)
    assert pick.facts.examples == f"split {pick.facts.split!r}"
    assert pick.search + pick.held_out == pick.questions == pick.documents
    assert (
        f"pick: {aside} of 70 questions are not asked: their documents are set " in found.notes[0]
    )
    assert "2 from split" in page(found)


def test_the_command_shows_tables_json_and_a_page(
    project: Project, command: Command, tmp_path: Path
) -> None:
    config = project()
    done = command("check", config, "--no-smoke", "--html", tmp_path / "c.html")
    assert done.returncode == 0, done.stderr
    for word in ("Models", "Between deltas", "Worth searching", "held out"):
        assert word in done.stdout
    text = (tmp_path / "c.html").read_text()
    assert "Conflicts of sign" in text
    assert not re.search(r"https?://|<script|src=", text)
    done = command("check", config, "--quick", "--json")
    assert json.loads(done.stdout)["format"] == 1


def test_names_are_escaped(project: Project) -> None:
    found = checked(project(), PreflightDepth(weights=False, smoke=False))
    bad = replace(found, title="<script>alert(1)</script>", warnings=("<b>bold</b>",))
    assert "<script>" not in page(bad)
    assert "<b>bold</b>" not in fragment(bad)
    assert bad._repr_html_() == fragment(bad)


def test_all_problems_at_once_and_code_2(project: Project, command: Command) -> None:
    config = project(
        models={"math": "./nowhere"}, tasks=["pick", {"name": "write", "metric": "bleu"}]
    )
    done = command("check", config)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any("nowhere" in line for line in lines)
    assert any("task write: " in line and "bleu" in line for line in lines)
    assert all(line.startswith("search: error: ") for line in lines)
    missing = command("check", "none.yaml")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


@pytest.fixture
def benchmark(project: Project, tasks_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A project whose task is called as a well-known test set is."""
    folder = tmp_path / "known"
    folder.mkdir()
    data = yaml.safe_load((tasks_folder / "write.yaml").read_text())
    data |= {
        "task": "gsm8k",
        "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": data["dataset_kwargs"]["data_files"]}},
    }
    (folder / "gsm8k.yaml").write_text(yaml.safe_dump(data))

    def write(**changes: object) -> Path:
        places = [str(tasks_folder), str(folder)]
        return project(**{"tasks": ["pick", "gsm8k"], "include_path": places} | changes)

    return write


def test_test_sets_must_be_confirmed(
    benchmark: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    config = benchmark()
    for name in ("check", "run"):
        done = command(name, config)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "gsm8k: expected a train or dev split" in line
        assert "--allow-test-sets" in line
    assert not (tmp_path / "mix").exists()
    quick = PreflightDepth(weights=False, smoke=False)
    found = checked(config, quick, allow_test_sets=True)
    assert "well-known test set (GSM8K" in found.warnings[0]
    search_section = {"trials": 8, "allow_test_sets": True}
    assert checked(benchmark(search=search_section), quick).warnings
    # what only checks the winner leads nobody
    prepare(read(benchmark(held_out=["gsm8k"]), Overrides()), dry_run=False)


def sums(products: list[list[float]], along: list[float], *, conflict: float = 0.5) -> DeltaSums:
    k = len(products)
    both = tuple(tuple(100.0 for _ in range(k)) for _ in range(k))
    against = tuple(tuple(0.0 if i == j else 100.0 * conflict for j in range(k)) for i in range(k))
    return DeltaSums(
        elements=100.0, origin=1.0, along=tuple(along),
        products=tuple(map(tuple, products)), both=both, against=against,
    )  # fmt: skip


def affinity(
    products: list[list[float]], along: list[float] | None = None, **more: object
) -> ModelSimilarity:
    names = ("a", "b", "c")[: len(products)]
    based = bool(more.pop("based", True))
    whole = sums(products, along or [0.0] * len(products), **more)  # type: ignore[arg-type]
    return ModelSimilarity(
        parents=names, based=based, layers=1, groups={(0, "mlp"): whole}, covered=1.0
    )


SMALL = 4e-4  # the square of a delta of two per cent


@pytest.mark.parametrize(
    ("found", "warning", "method"),
    [
        (affinity([[SMALL, 0.0], [0.0, SMALL]]), None, "task_arithmetic"),
        (affinity([[SMALL, 0.6 * SMALL], [0.6 * SMALL, SMALL]]), None, "linear"),
        (
            affinity([[SMALL, -0.5 * SMALL], [-0.5 * SMALL, SMALL]], conflict=0.7),
            "conflict",
            "ties",
        ),
        (affinity([[SMALL, 0.99 * SMALL], [0.99 * SMALL, SMALL]]), "nearly alike", "linear"),
        (affinity([[0.0, 0.0], [0.0, SMALL]]), "a is the base", "task_arithmetic"),
        (affinity([[1.9, 0.0], [0.0, SMALL]], [-0.95, 0.0]), "not fine-tuned from", "slerp"),
        (affinity([[0.16, 0.0], [0.0, SMALL]]), "a is far from the base", "slerp"),
        (affinity([[SMALL, SMALL], [SMALL, SMALL]]), "a and b are the same model", "linear"),
        (affinity([[SMALL, -SMALL], [-SMALL, SMALL]], conflict=1.0), "undo each other", "ties"),
        (affinity([[25 * SMALL, 0.0], [0.0, SMALL]]), "uneven", "task_arithmetic"),
        (affinity([[0.5, -0.5], [-0.5, 0.5]], based=False), "no common origin", "slerp"),
        (affinity([[SMALL, -SMALL], [-SMALL, SMALL]], based=False), None, "linear"),
    ],
)  # fmt: skip
def test_advice(found: ModelSimilarity, warning: str | None, method: str) -> None:
    advice = advise(found)
    if warning is None:
        assert not advice.warnings
        assert "Nothing in their weights" in advice.verdict
    else:
        assert any(warning in text for text in advice.warnings), advice.warnings
    assert advice.methods[0] == method
    assert advice.reasons


def changed(source: Path, folder: Path, change: Callable[[str, Any], Any]) -> Path:
    """A model with other weights."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    made = {name: change(name, value).contiguous() for name, value in tensors.items()}
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def misfits(tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Models beside ``math`` that should not be merged with it, made of real weights."""
    root = tmp_path_factory.mktemp("misfits")
    base = load_file(tiny_family["base"] / "model.safetensors")
    source = torch.Generator().manual_seed(5)

    def times(factor: float) -> Callable[[str, Any], Any]:
        return lambda name, value: base[name] + factor * (value - base[name])

    def anew(name: str, value: Any) -> Any:
        return value.std() * torch.randn(value.shape, generator=source)

    made = {
        "far": times(3.0), "against": times(-1.0), "copy": times(1.0), "small": times(0.05),
        "stranger": anew,
        "holes": lambda name, value: value * math.nan if "layers.2.mlp.up" in name else value,
    }  # fmt: skip
    folders = {name: changed(tiny_family["math"], root / name, how) for name, how in made.items()}
    return {**tiny_family, **folders}


@pytest.mark.parametrize(
    ("names", "said", "worth", "not_worth"),
    [
        (
            ("stranger", "code"),
            "stranger was not fine-tuned from this base",
            "slerp",
            "dare_linear",
        ),
        (("far", "code"), "far is far from the base", "slerp", "task_arithmetic"),
        (("math", "against"), "undo each other", "ties", "linear"),
        (("math", "copy"), "math and copy are the same model", "linear", "task_arithmetic"),
        (("math", "base"), "same is the base, or nearly", "task_arithmetic", "ties"),
        (("code", "small"), "The deltas are uneven", "task_arithmetic", "della"),
        (("code", "holes"), "holes has NaN or infinity", "task_arithmetic", "della"),
    ],
)
def test_families_made_to_be_bad(
    misfits: Any, names: tuple[str, str], said: str, worth: str, not_worth: str
) -> None:
    """What is wrong is said, and no method is praised that the warning speaks against."""
    opened = {"base": Checkpoint.open(str(misfits["base"]), name="base")}
    for name in names:
        called = "same" if name == "base" else name
        opened[called] = Checkpoint.open(str(misfits[name]), name=called)
    advice = advise(survey(opened, "base", seconds=20.0))
    assert any(said in text for text in advice.warnings), advice.warnings
    assert advice.verdict.startswith("Something stands against")
    assert worth in advice.methods
    assert not_worth not in advice.methods
    assert "most in" not in " ".join(advice.warnings)


def test_a_parent_that_is_far_worse_than_the_base_everywhere_is_named() -> None:
    def smoke(first: float, second: float) -> SmokeTest:
        points = (
            Point(name="base", ends=(), losses={"t": 1.0, "u": 2.0}),
            Point(name="a", ends=("a",), losses={"t": first, "u": second}),
            Point(name="b", ends=("b",), losses={"t": 0.5, "u": 2.5}),
        )
        return SmokeTest(pace=CandidatePace(build=1.0, question=0.1, questions=4), points=points)

    found = affinity([[SMALL, 0.0], [0.0, SMALL]])
    (warning,) = advise(found, smoke(2.5, 4.5)).warnings
    assert "a is far worse than the base in every task" in warning
    assert not advise(found, smoke(2.5, 3.5)).warnings


def test_one_model_alone_can_be_checked(project: Project, tiny_family: dict[str, Path]) -> None:
    found = checked(project(models={"math": str(tiny_family["math"])}))
    assert found.advice is not None
    assert found.smoke is not None
    assert [point.name for point in found.smoke.points] == ["base", "math"]
    assert "how much of one" in found.advice.reasons[0]


@pytest.mark.parametrize(
    ("middle", "verdict", "barrier"),
    [(0.5, "These models merge", False), (1.05, "should merge", False), (1.6, "stands", True)],
)
def test_a_barrier_is_a_rise_between_the_ends(middle: float, verdict: str, barrier: bool) -> None:
    points = (
        Point(name="a", ends=("a",), losses={"t": 1.0}),
        Point(name="b", ends=("b",), losses={"t": 1.0}),
        Point(name="a + b", ends=("a", "b"), losses={"t": middle}),
    )
    smoke = SmokeTest(pace=CandidatePace(build=1.0, question=0.1, questions=4), points=points)
    assert smoke.barriers() == {("a", "b"): pytest.approx(middle - 1.0)}
    advice = advise(affinity([[SMALL, 0.0], [0.0, SMALL]]), smoke)
    assert verdict in advice.verdict
    assert any("barrier between a and b" in text for text in advice.warnings) is barrier


def forecast_of(config: Path, crew: Workforce, **overrides: object) -> Forecast:
    prepared = prepare(read(config, Overrides(**overrides)), dry_run=False)  # type: ignore[arg-type]
    return forecast(
        prepared.config,
        prepared.manifest,
        pace=CandidatePace(build=1.0, question=0.01, questions=98, tokens=10.0, setup=10.0),
        crew=crew,
    )


def test_the_forecast_is_the_arithmetic_of_the_budget(project: Project) -> None:
    config = project(search={"trials": 100, "asking": "all"})
    one = forecast_of(config, Workforce(workers=1, gpus=0.0))
    assert (one.candidates, one.limit) == (100, "search.trials")
    assert one.seconds == pytest.approx(1.0 + 98 * 0.01)  # 70 % of 140 questions
    eight = forecast_of(config, Workforce(workers=8, gpus=1.0))
    assert one.hours > 6 * eight.hours
    timed = forecast_of(
        project(search={"hours": 1.0, "asking": "all"}), Workforce(workers=8, gpus=1.0)
    )
    assert timed.limit == "search.hours"
    assert timed.hours <= 1.0
    assert timed.candidates == pytest.approx(8 * 3600 / one.seconds, rel=0.02)
    dear = forecast_of(
        project(search={"gpu_hours": 0.5, "asking": "all"}), Workforce(workers=8, gpus=1.0)
    )
    assert dear.candidates == pytest.approx(0.5 * 3600 / one.seconds, rel=0.05)
    tokens = forecast_of(
        project(search={"tokens": 140_000, "asking": "all"}), Workforce(workers=1, gpus=0.0)
    )
    assert tokens.limit == "search.tokens"
    assert 0.8 * 14_000 < tokens.questions <= 14_000  # ten tokens each
    few = forecast_of(project(search={"questions": 5000}), Workforce(workers=1, gpus=0.0))
    assert few.questions <= 5000
    assert few.limit == "search.questions"


def test_the_forecast_knows_that_a_front_has_more_recipes_checked(project: Project) -> None:
    """The first in rank and the best in each of the two tasks."""
    searched = {"trials": 100, "objective": "pareto"}
    one, three = (
        forecast_of(project(search={**searched, "validate": top}), Workforce(workers=1, gpus=0.0))
        for top in (1, 3)
    )
    assert one == three


@pytest.mark.parametrize(
    ("scores", "alike", "chance", "words"),
    [
        ({"a": 0.0, "b": 0.0}, 0.0, math.nan, "No model answers any of the 40 questions of arc"),
        ({"a": 0.0, "b": 0.0}, 0.0, 0.25, "No model answers any of the 40 questions of arc"),
        ({"a": 1.0, "b": 1.0}, 1.0, 0.25, "Every model answers all of the 40 questions of arc"),
        ({"a": 0.5, "b": 0.5}, 0.5, math.nan, "Every model has the same value, 0.5, for all of"),
        ({"a": 0.2, "b": 0.35}, math.nan, 0.25, "better than guessing (0.25) on the 40 questions"),
        ({"a": 0.2, "b": 0.35}, math.nan, 0.25, "the best, b, scores 0.35."),
        ({"a": 0.2, "b": 0.4}, math.nan, 0.25, ""),
        ({"a": 0.0, "b": 0.1}, math.nan, math.nan, ""),
    ],
)
def test_a_task_that_tells_no_model_from_another(
    scores: dict[str, float], alike: float, chance: float, words: str
) -> None:
    level = Level(task="arc", questions=40, scores=scores, alike=alike, chance=chance)
    assert words in level.warning()
    assert bool(level.warning()) is bool(words)


def test_tasks_too_hard_or_too_easy_for_every_model_are_named(
    project: Project, tasks_folder: Path, tmp_path: Path
) -> None:
    """No untrained model writes ``ab``, and each takes the only choice there is."""
    rows = [{"question": f"{n}=", "choices": ["a"], "label": 0} for n in range(70)]
    (tmp_path / "sure.json").write_text("\n".join(map(json.dumps, rows)))
    text = (tasks_folder / "pick.yaml").read_text().replace("task: pick", "task: sure")
    text = text.replace(str(tasks_folder / "pick.json"), str(tmp_path / "sure.json"))
    (tmp_path / "sure.yaml").write_text(text)
    config = project(
        tasks=["sure", {"name": "write", "metric": "exact_match,none"}],
        include_path=[str(tasks_folder), str(tmp_path)],
    )
    found = checked(config)
    assert [one.facts.chance for one in found.tasks] == [1.0, None]
    assert found.smoke is not None
    assert {level.task: level.alike for level in found.smoke.levels} == {"sure": 1.0, "write": 0.0}
    assert {*found.smoke.levels[0].scores} == {"code", "math", "text"}
    easy, hard = (line for line in found.warnings if "nothing to go by" in line)
    assert easy.startswith("Every model answers all of the ")
    assert hard.startswith("No model answers any of the ")
    data = found.to_dict()["smoke"]["levels"]
    assert [one["warning"] for one in data] == [easy, hard]
    assert data[0]["scores"]["math"] == 1.0
    assert (data[0]["cut_off"], min(data[1]["cut_off"].values())) == ({}, 1.0)
    (cut_off,) = (line for line in found.warnings if "are cut off" in line)
    assert "questions of write that were tried are cut off at the most tokens allowed: " in cut_off
    assert "100% of math" in cut_off


@pytest.mark.parametrize(("share", "asks"), [(0.0, True), (1.0, True), (0.3, True), (0.6, False)])
def test_models_are_asked_only_where_the_candidate_says_little(share: float, asks: bool) -> None:
    """A candidate clearly better than guessing leaves nothing to ask."""
    names = [f"t/{n}" for n in range(40)]
    task = TaskInfo(name="t", metric="acc,none", higher_is_better=True, weight=1.0, mean=True)
    questions = tuple(Question(id=name, task="t", position=n) for n, name in enumerate(names))
    catalogue = Catalogue(tasks=(task,), questions=questions)

    def score(recipe: Recipe, asked: tuple[str, ...]) -> Score:
        outcomes = tuple(
            Outcome(question=name, value=float(n < share * len(asked)))
            for n, name in enumerate(asked)
        )
        mean = TaskScore(task="t", value=share, stderr=0.1, n=len(asked))
        return Score.of(
            (task,), (mean,), outcomes=outcomes, fingerprint=recipe.key,
            build_seconds=0.0, score_seconds=len(asked),
        )  # fmt: skip

    class Asked:
        notes: tuple[str, ...] = ()

        def __init__(self) -> None:
            self.candidates: list[Candidate] = []

        def catalogue(self) -> Catalogue:
            return catalogue

        def evaluate(self, candidate: Candidate) -> Score:
            self.candidates.append(candidate)
            return score(candidate.recipe, candidate.questions)

        def close(self) -> None:
            pass

    evaluator, recipes = Asked(), {name: alone(name) for name in ("a", "b")}
    tried = score(recipes["a"], tuple(names))
    found = levels(evaluator, recipes, tried, chances={"t": 0.25}, seconds=60.0)
    assert bool(found) is asks
    # at one second a question, sixty seconds are thirty questions for each of two
    assert [len(one.questions) for one in evaluator.candidates] == ([30, 30] if asks else [])


@pytest.mark.parametrize(
    ("count", "hours", "crew", "words"),
    [
        (
            617,
            8.0,
            Workforce(workers=8, gpus=1.0),
            "about 620 candidates by 07:00 on 26 November on 8 GPUs",
        ),
        (60, 0.5, Workforce(workers=2, gpus=0.0), "about 60 candidates by 23:30 on 2 workers"),
        (1, 0.1, Workforce(workers=1, gpus=0.5), "about 1 candidate by 23:06 on 0.5 GPUs"),
    ],
)  # fmt: skip
def test_the_sentence(count: int, hours: float, crew: Workforce, words: str) -> None:
    found = Forecast(
        candidates=count, questions=1, hours=hours, limit="search.trials", seconds=1.0, crew=crew
    )
    assert found.sentence(datetime(2026, 11, 25, 23, 0, tzinfo=UTC)) == words


def test_heat_map_colours_and_sparklines() -> None:
    found = heat_map(
        "t", [("row", [0.0, 1.0, math.nan])], columns=["x", "y", "z"], note="", low=0, high=1
    )
    ((_, cells),) = found.rows
    assert [cell.text for cell in cells] == ["0.00", "1.00", ""]
    assert [cell.ink for cell in cells] == ["#000", "#fff", "#000"]
    assert cells[0].colour != cells[1].colour
    assert cells[2].tip == "row, z: no value"
    assert sparkline([0.0, math.nan, 7.0]) == "▁ █"
    assert sparkline([math.nan]) == ""
