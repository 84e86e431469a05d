"""The scores are lm-eval's: for the same weights on disk, questions and batch size, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Failure, Score, TaskScore
from merging.building.build import build_into, write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters


def reference(
    spec: HarnessSpec, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[str, Any]:
    """What lm-eval itself reports for a model on disk."""
    monkeypatch.chdir(spec.include_path[0])  # lm-eval reads data files relative to where it runs
    manager = TaskManager(include_path=list(spec.include_path), include_defaults=False)
    result = simple_evaluate(
        model=HFLM(pretrained=str(folder), device="cpu", batch_size=spec.batch_size),
        tasks=[task.name for task in spec.tasks],
        task_manager=manager,
        bootstrap_iters=100,
        fewshot_random_seed=spec.seed,
        **options,
    )
    return dict(result["results"])


def build(spec: HarnessSpec, recipe: Recipe, out: Path) -> str:
    checkpoints = {name: Checkpoint.open(at, name=name) for name, at in spec.models}
    return write_model(plan(recipe, checkpoints), checkpoints, out)


def evaluate(spec: HarnessSpec, recipe: Recipe, keep: Any = lambda position: True) -> Score:
    evaluator = HarnessEvaluator(spec)
    asked = tuple(q.id for q in evaluator.catalogue().questions if keep(q.position))
    source = Source(of=Model("base"), parameters=parameters(weight=1.0))
    before = Recipe(root=Merge(method="linear", sources=(source,)))
    evaluator.evaluate(Candidate(id=0, recipe=before, questions=asked))  # nothing of it may be left
    result = evaluator.evaluate(Candidate(id=1, recipe=recipe, questions=asked[::-1]))
    assert isinstance(result, Score), result
    evaluator.close()
    return result


def by_task(score: Score) -> dict[str, TaskScore]:
    return {task.task: task for task in score.tasks}


@pytest.fixture(autouse=True)
def no_bootstrap_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")


def test_equals_simple_evaluate_on_a_subset(
    make_spec: Any, mix: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {
        "tiny_pick": "acc",
        "tiny_first": "acc",
        "tiny_write": "exact_match,loose",
        "tiny_text": "word_perplexity",
        "tiny_last": "perplexity",
    }
    spec = make_spec(*(TaskSpec(name=name, metric=metric) for name, metric in wanted.items()))
    recipe = mix(math=0.7, code=0.2, text=0.4)
    positions = [position for position in range(40) if position % 3]
    score = evaluate(spec, recipe, keep=lambda position: position % 3)
    assert build(spec, recipe, tmp_path / "model") == score.fingerprint
    found = reference(
        spec, tmp_path / "model", monkeypatch, samples=dict.fromkeys(wanted, positions)
    )
    for name, task in by_task(score).items():
        metric = wanted[name] if "," in wanted[name] else f"{wanted[name]},none"
        assert task.value == found[name][metric], name
        assert task.n == len(positions)
    for name in ("tiny_pick", "tiny_first"):
        assert by_task(score)[name].stderr == pytest.approx(
            found[name]["acc_stderr,none"], abs=1e-12
        )
    assert 0 < by_task(score)["tiny_write"].value < 1  # or nothing would be shown
    bootstrapped = found["tiny_last"]["perplexity_stderr,none"]
    assert by_task(score)["tiny_last"].stderr == pytest.approx(bootstrapped, rel=0.4)


@pytest.mark.parametrize(("metric", "key"), [("acc_norm", "acc_norm,none"), ("mcc", "mcc,none")])
def test_other_metrics(
    make_spec: Any, mix: Any, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    metric: str, key: str,
) -> None:  # fmt: skip
    spec = make_spec(TaskSpec(name="tiny_pick", metric=metric))
    score = evaluate(spec, mix(math=1.0))
    found = reference(spec, tiny_family["math"], monkeypatch)["tiny_pick"]
    assert by_task(score)["tiny_pick"].value == found[key]


def test_sampled_answers_and_votes(
    make_spec: Any, mix: Any, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("tiny_vote")
    first, second = (by_task(evaluate(spec, mix(code=1.0)))["tiny_vote"] for _ in range(2))
    assert first == second
    found = reference(spec, tiny_family["code"], monkeypatch)["tiny_vote"]
    assert first.value == found["exact_match,maj"]


def test_drawn_few_shot_examples(
    make_spec: Any, mix: Any, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("tiny_shots", seed=7)
    score = evaluate(spec, mix(text=1.0))
    found = reference(spec, tiny_family["text"], monkeypatch)["tiny_shots"]
    assert score.value == found["acc,none"]
    # A question has the same examples whatever else is asked, so comparisons are paired.
    part = evaluate(spec, mix(text=1.0), keep=lambda position: position >= 20)
    whole = {outcome.question: outcome.value for outcome in score.outcomes}
    assert all(whole[outcome.question] == outcome.value for outcome in part.outcomes)


@pytest.mark.parametrize("multiturn", [False, True])
def test_chat_template(
    make_spec: Any, mix: Any, chat_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    multiturn: bool,
) -> None:  # fmt: skip
    fields = {
        "apply_chat_template": True,
        "fewshot_as_multiturn": multiturn,
        "system_instruction": "sort or max",
    }
    tasks = ("tiny_first", TaskSpec(name="tiny_write", metric="exact_match,strict"))
    spec = make_spec(*tasks, models=chat_family, **fields)
    score = evaluate(spec, mix(math=1.0))
    found = reference(spec, chat_family["math"], monkeypatch, **fields)
    assert by_task(score)["tiny_first"].value == found["tiny_first"]["acc,none"]
    assert by_task(score)["tiny_write"].value == found["tiny_write"]["exact_match,strict"]


def test_generation_settings_and_max_length(
    make_spec: Any, mix: Any, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (("max_gen_toks", 1),)
    spec = make_spec(TaskSpec(name="tiny_write", metric="exact_match,strict"), gen_kwargs=settings)
    found = reference(spec, tiny_family["code"], monkeypatch, gen_kwargs=dict(settings))
    assert evaluate(spec, mix(code=1.0)).value == found["tiny_write"]["exact_match,strict"]
    short = make_spec("tiny_last", max_length=4)
    long = make_spec("tiny_last")
    assert evaluate(short, mix(code=1.0)).value != evaluate(long, mix(code=1.0)).value


def test_limit_num_fewshot_weight_and_direction(make_spec: Any, mix: Any) -> None:
    spec = make_spec(
        TaskSpec(name="tiny_pick", metric="acc", limit=10, num_fewshot=1, weight=3.0),
        TaskSpec(name="tiny_write", metric="exact_match,loose", lower_is_better=True, limit=5),
    )
    score = evaluate(spec, mix(math=1.0))
    tasks = by_task(score)
    assert (tasks["tiny_pick"].n, tasks["tiny_write"].n) == (10, 5)
    expected = 0.75 * tasks["tiny_pick"].value - 0.25 * tasks["tiny_write"].value
    assert score.value == pytest.approx(expected)


def test_outcomes_are_in_the_metrics_unit(make_spec: Any, mix: Any) -> None:
    names = {"tiny_text": "word_perplexity", "tiny_last": "perplexity", "tiny_pick": "mcc"}
    spec = make_spec(*(TaskSpec(name=name, metric=metric) for name, metric in names.items()))
    info = {task.name: task for task in check(spec).tasks}
    assert not info["tiny_text"].higher_is_better
    assert not any(task.mean for task in info.values())
    score = evaluate(spec, mix(math=1.0))
    values = {
        name: [o.value for o in score.outcomes if o.question.startswith(name)] for name in names
    }
    assert all(
        value != value for value in values["tiny_pick"]
    )  # no correlation of a single question
    for name in ("tiny_text", "tiny_last"):
        assert all(value >= 1.0 for value in values[name])  # perplexities, one a question


def test_lengths_of_written_answers(
    make_spec: Any, mix: Any, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("tiny_write", "tiny_vote", "tiny_pick")
    assert [task.written for task in check(spec).tasks] == [True, True, False]
    score = evaluate(spec, mix(code=1.0))
    monkeypatch.chdir(spec.include_path[0])
    manager = TaskManager(include_path=list(spec.include_path), include_defaults=False)
    found = simple_evaluate(
        model=HFLM(pretrained=str(tiny_family["code"]), device="cpu", batch_size=spec.batch_size),
        tasks=["tiny_write", "tiny_vote"],
        task_manager=manager,
        bootstrap_iters=0,
    )
    lengths = iter(score.outcomes)
    for name in ("tiny_write", "tiny_vote"):
        samples = {sample["doc_id"]: sample["resps"][0] for sample in found["samples"][name]}
        for position in range(len(samples)):
            expected = sum(map(len, samples[position])) / len(samples[position])
            assert next(lengths).length == pytest.approx(expected), (name, position)
    assert all(outcome.length is None for outcome in lengths)


def test_donors_with_other_tokenizers_get_their_own_prompts(
    make_spec: Any, mix: Any, chat_family: dict[str, Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = shutil.copytree(chat_family["math"], tmp_path / "math")
    (other / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    models = {"code": chat_family["code"], "math": other}
    spec = make_spec("tiny_first", models=models, apply_chat_template=True)
    evaluator = HarnessEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    for name in ("code", "math", "code"):
        score = evaluator.evaluate(Candidate(id=0, recipe=mix(**{name: 1.0}), questions=asked))
        assert isinstance(score, Score), score
        found = reference(
            spec, models[name], monkeypatch, apply_chat_template=True, fewshot_as_multiturn=False
        )
        assert score.value == found["tiny_first"]["acc,none"]


def test_the_recipe_scored_last_is_not_built_again(
    make_spec: Any, mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    weights: dict[str, torch.Tensor] = {}

    def building(planned: Any, checkpoints: Any, targets: Any, **options: Any) -> str:
        weights.update(targets)
        built.append(build_into(planned, checkpoints, targets, **options))
        return built[-1]

    monkeypatch.setattr("evaluators.resident_models.model_builder.build_into", building)
    evaluator = HarnessEvaluator(make_spec("tiny_pick", device="cpu"))
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    first, second = mix(math=0.5, code=0.5), mix(math=0.2, code=0.8)

    def ask(recipe: Recipe, questions: tuple[str, ...] = ids) -> Any:
        return evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=questions))

    part, whole = ask(first, ids[:5]), ask(first)
    assert built == [part.fingerprint] == [whole.fingerprint]
    assert set(part.outcomes) <= set(whole.outcomes)
    assert ask(second).fingerprint == built[1] != built[0]
    assert ask(first).outcomes == whole.outcomes
    weights["lm_head.weight"].fill_(float("nan"))
    assert isinstance(ask(first), Failure)  # it was not built again
    assert ask(first).outcomes == whole.outcomes  # but after a failure it is
    assert built == [built[0], built[1], built[0], built[0]]
    evaluator.close()
