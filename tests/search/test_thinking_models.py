"""Models that think before they answer: thoughts stripped, capped, learned, searched whole."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.harness.answers.thoughts import MarkError, ThoughtMark
from evaluators.harness.engines.engine_choice import ENGINES
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import LanguageModel
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, LossGradient, Score, TaskScore
from evaluators.resident_models.encoding_cache import EncodingCache
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from tests.search.thinking_family import MARK, TOKENS, WORDY, make_tokenizer, write_family

Command = Callable[..., Any]
Project = Callable[..., Path]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_family(tmp_path_factory.mktemp("thinking"))


@pytest.fixture
def spec(family: dict[str, Path]) -> HarnessSpec:
    return HarnessSpec(
        models=tuple((name, str(folder)) for name, folder in family.items()),
        tasks=(TaskSpec(name="largest"),),
        include_path=(str(family["wordy"].parent / "tasks"),),
        batch_size=8,
        think_end_token=MARK,
    )


def alone(name: str) -> Recipe:
    source = Source(of=Model(name), parameters=parameters(weight=1.0))
    return Recipe(root=Merge(method="linear", sources=(source,)))


def ask(spec: HarnessSpec, name: str, *, texts: int = 0) -> Score:
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    found = evaluator.evaluate(Candidate(id=0, recipe=alone(name), questions=ids, texts=texts))
    evaluator.close()
    assert isinstance(found, Score), found
    return found


def task_of(spec: HarnessSpec, name: str) -> TaskScore:
    return ask(spec, name).tasks[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_thoughts_are_no_part_of_the_answer(spec: HarnessSpec, engine: str) -> None:
    spec = replace(spec, engine=engine)
    found = task_of(spec, "wordy")  # its thoughts have the stop sequence in them
    assert (found.value, found.length, found.cut_off, found.looped) == (1.0, 1.0, 0.0, 0.0)
    assert found.tokens == 60 * (4 + WORDY + 2)  # prompt, thoughts, answer and end
    assert task_of(replace(spec, think_end_token=None), "wordy").value == 0.0
    assert 0.1 < task_of(spec, "brief").value < 0.6  # the first digit is the largest


@pytest.mark.parametrize("engine", ENGINES)
def test_thoughts_have_a_cap_of_their_own(spec: HarnessSpec, engine: str) -> None:
    short = replace(spec, engine=engine, gen_kwargs=(("max_gen_toks", 2),))
    assert task_of(short, "wordy").cut_off == 1.0
    found = task_of(replace(short, max_think_toks=WORDY), "wordy")
    assert (found.value, found.cut_off) == (1.0, 0.0)
    capped = ask(replace(short, max_think_toks=5), "wordy", texts=1000)
    assert capped.tasks[0].cut_off < 0.5  # whoever is cut short may be confused
    right = [one.text for one in capped.outcomes if one.value == 1.0]
    assert right
    assert all(re.fullmatch(r"(\d{3})\n</think>\d", text) for text in right)  # 4 and the mark
    longer = replace(spec, gen_kwargs=(("max_gen_toks", 1),), max_think_toks=WORDY)
    assert task_of(longer, "wordy").cut_off == 1.0  # the end of text is the second token


def test_a_mark_that_is_a_special_token(
    spec: HarnessSpec, family: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(family["wordy"], tmp_path / "wordy"))
    make_tokenizer(special=True).save_pretrained(folder)
    for mark in (MARK, TOKENS[MARK], str(TOKENS[MARK])):
        asked = replace(spec, models=(("wordy", str(folder)),), think_end_token=mark)
        found = ask(asked, "wordy", texts=1000)
        assert found.value == 1.0
        assert all(re.fullmatch(r".{11}</think>\d", o.text, re.DOTALL) for o in found.outcomes)


@pytest.mark.parametrize("mark", [MARK, TOKENS[MARK]])
def test_answers_after_thoughts_are_those_of_lm_eval(family: dict[str, Path], mark: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(family["wordy"])
    tokenizer = AutoTokenizer.from_pretrained(family["wordy"])
    asked = [
        Instance("generate_until", {}, (f"{n}>", {"until": ["\n\n"], "max_gen_toks": 20}), n)
        for n in range(120, 140)
    ]
    given = ThoughtMark.of(tokenizer, HarnessSpec(models=(), tasks=(), think_end_token=mark))
    options = {"pretrained": model, "tokenizer": tokenizer, "batch_size": 8}
    theirs = HFLM(**options, think_end_token=mark).generate_until(asked, disable_tqdm=True)
    ours = LanguageModel(known=EncodingCache(), mark=given, **options)
    assert ours.generate_until(asked, disable_tqdm=True) == theirs
    assert len(set(theirs)) > 3


@pytest.mark.parametrize(
    ("asked", "most", "message"),
    [
        ("<end>", None, "think_end_token: expected a text that the tokenizer can write"),
        ("12</s>", None, "think_end_token: expected a text that the tokenizer can write"),
        (99, None, f"think_end_token: expected a token below {len(TOKENS)}, got 99"),
        ("12", None, ""),
        (MARK, 1, "max_think_toks: expected more than the 1 tokens of harness.think_end_token"),
        (MARK, 2, ""),
    ],
)
def test_marks_that_cannot_be(asked: str | int, most: int | None, message: str) -> None:
    spec = HarnessSpec(models=(), tasks=(), think_end_token=asked, max_think_toks=most)
    if not message:
        assert ThoughtMark.of(make_tokenizer(), spec) is not None
        return
    with pytest.raises(MarkError, match=re.escape(message)):
        ThoughtMark.of(make_tokenizer(), spec)


@pytest.mark.parametrize("mark", [MARK, "12"])
def test_the_answer_is_what_follows_the_last_mark(mark: str) -> None:
    tokenizer = make_tokenizer()
    given = ThoughtMark.of(tokenizer, HarnessSpec(models=(), tasks=(), think_end_token=mark))
    assert given is not None
    one, two, three = (tokenizer.encode(word, add_special_tokens=False) for word in "345")
    tokens = [*one, *given.tokens, *two, *given.tokens, *three]
    assert given.last_in(tokens) == len(tokens) - len(three)
    assert given.last_in([*one, *given.tokens]) == len(one) + len(given.tokens)
    assert given.last_in([*one, *two]) == 0


def test_references_without_thoughts_are_not_learned_from(spec: HarnessSpec) -> None:
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)[:2]
    recipe = Recipe(
        root=Merge(
            method="linear",
            sources=tuple(
                Source(of=Model(name), parameters=parameters(weight=0.5))
                for name in ("wordy", "brief")
            ),
        )
    )
    asked = Candidate(id=0, recipe=recipe, questions=ids, weights=dict.fromkeys(ids, 0.5))
    found = evaluator.gradient(replace(asked, targets={ids[1]: f"012\n012{MARK}2"}))
    assert isinstance(found, LossGradient), found
    assert list(found.losses) == [ids[1]]
    assert isinstance(evaluator.losses(asked), dict)


@pytest.fixture
def thinking(project: Project, family: dict[str, Path]) -> Project:
    """Writes a config that searches the family."""

    def write(*, harness: dict[str, Any], **changes: object) -> Path:
        return project(
            base=None,
            models={name: str(folder) for name, folder in family.items()},
            tasks=["largest"],
            include_path=str(family["wordy"].parent / "tasks"),
            harness={"think_end_token": MARK, "check_degenerate": False} | harness,
            search={"trials": 5, "seed": 1, "sampler": "random"},
            held_out=0.4,
            **changes,
        )

    return write


def rows_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    return {row["origin"]: row for row in found["candidates"]}


def test_a_whole_run(thinking: Project, command: Command) -> None:
    chat = {"apply_chat_template": True, "enable_thinking": True, "max_think_toks": WORDY}
    config = thinking(harness=chat | {"gen_kwargs": {"max_gen_toks": 2}})
    done = command("run", config)
    assert done.returncode == 0, done.stderr
    assert "cut off" not in done.stdout
    rows = rows_of(config.parent / "mix")
    assert rows["parent wordy"]["score"] == 1.0
    assert rows["parent wordy"]["cut_off:largest"] == rows["parent wordy"]["looped:largest"] == 0.0
    study = config.parent / "mix" / "study.db"
    config.write_text(config.read_text().replace("max_think_toks: 12", "max_think_toks: 3"))
    done = command("resume", study, "--trials", 6)
    assert "harness.max_think_toks: 12 counts, the file says 3" in done.stdout


def test_the_cap_decides_who_wins(thinking: Project, command: Command) -> None:
    """12 tokens are the wordy one's thoughts, and leave nothing for its answers."""
    config = thinking(harness={"gen_kwargs": {"max_gen_toks": WORDY}})
    done = command("check", config)
    assert done.returncode == 0, done.stderr
    assert "questions of largest that were tried are cut off" in " ".join(done.stdout.split())
    assert "most tokens allowed: 100% of wordy. What is compared" in " ".join(done.stdout.split())
    done = command("run", config)
    assert done.returncode == 0, done.stderr
    warned = "largest: 100% of the answers of parent 'wordy' were cut off, 0% of those of"
    assert warned in " ".join(done.stdout.split())
    folder = config.parent / "mix"
    before = rows_of(folder)
    assert before["parent brief"]["held_out"] > before["parent wordy"]["held_out"] == 0.0
    again = ("validate", folder / "study.db", "--max-gen-toks")
    text = " ".join(command(*again, 16).stdout.split())
    assert "Held-out questions with max_gen_toks 16" in text
    assert "another set-up than the run's: it is kept in the file below" in text
    done = command(*again, 16, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "max-gen-toks-16.json").read_text(encoding="utf-8"))
    assert json.loads(done.stdout)["recheck"] == found
    scores = {one["origin"]: one["value"] for one in found["candidates"]}
    assert 1.0 == scores["parent wordy"] > scores["parent brief"]
    assert not any("cut off" in note for note in found["notes"])
    done = command("report", folder / "study.db")
    assert done.returncode == 0, done.stderr
    assert rows_of(folder) == before  # nothing of it is the run's
    quantised = ("validate", folder / "study.db", "--quantize")
    done = command(*quantised, "nf4", "--max-gen-toks", 16, "--json")
    assert done.returncode == 0, done.stderr
    file = folder / "max-gen-toks-16-quantize-nf4.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["quantize"], found["max_gen_toks"]) == ("nf4", 16)
    assert len(found["candidates"]) == len(scores)
    assert rows_of(folder) == before
    done = command(*quantised, "nf3")
    assert (done.returncode, done.stderr) == (
        2,
        "search: error: --quantize: expected one of nf4, int8, fp8, got 'nf3'\n",
    )
    done = command(*again, 64)  # as many as the models take at all
    assert done.returncode == 2
    said = "--max-gen-toks: expected room for a prompt in the 64 tokens that model wordy takes, got"
    assert f"{said} answers of 64" in done.stderr
    assert "loading" not in done.stdout.split("reading the models")[-1]
    config.write_text(config.read_text().replace(f"max_gen_toks: {WORDY}", "max_gen_toks: 90"))
    done = command("run", config, "--out", folder.with_name("other"))
    assert done.returncode == 2
    assert "harness.gen_kwargs: expected room for a prompt in the 64 tokens" in done.stderr


def test_choices_know_no_cap(project: Project, command: Command) -> None:
    config = project(search={"trials": 8, "sampler": "random"})
    assert command("run", config, "--dry-run").returncode == 0
    done = command("validate", config.parent / "mix" / "study.db", "--max-gen-toks", 16)
    assert done.returncode == 2
    assert "--max-gen-toks: expected a task whose answers are written, got none" in done.stderr


@pytest.mark.parametrize(
    ("harness", "message"),
    [
        ({"enable_thinking": True}, "enable_thinking: expected none without harness.apply_chat_te"),
        ({"chat_template_args": {"a": 1}}, "chat_template_args: expected none without harness.ap"),
        (
            {"apply_chat_template": True, "chat_template_args": {"enable_thinkng": True}},
            "model wordy: harness.chat_template_args.enable_thinkng: expected a chat template that",
        ),
        (
            {"apply_chat_template": True, "chat_template_args": {"enable_thinking": True}},
            "harness.chat_template_args.enable_thinking: expected it as harness.enable_thinking",
        ),
        (
            {"apply_chat_template": True, "enable_thinking": True, "think_end_token": None},
            "harness.enable_thinking: expected false without harness.think_end_token",
        ),
        ({"think_end_token": "<end>"}, "model brief: harness.think_end_token: expected a text"),
        (
            {"think_end_token": 1.5},
            "think_end_token: expected a text, or a token's number, got 1.5",
        ),
        ({"think_end_token": None, "max_think_toks": 4}, "max_think_toks: expected none without"),
        ({"max_think_toks": 0}, "max_think_toks: expected a number of at least 1, got 0"),
        ({"gen_kwargs": {"num_beams": 2}}, "num_beams: expected 1 with harness.think_end_token"),
    ],
)
def test_bad_input(
    thinking: Project, command: Command, harness: dict[str, Any], message: str
) -> None:
    done = command("check", thinking(harness=harness), "--quick")
    assert done.returncode == 2
    assert message in done.stderr


def test_choices_cannot_be_asked_with_thoughts(
    thinking: Project, command: Command, tasks_folder: Path
) -> None:
    config = thinking(harness={"apply_chat_template": True, "enable_thinking": True})
    text = (
        config.read_text()
        .replace("- largest", "- pick")
        .replace(
            next(line for line in config.read_text().splitlines() if "include_path" in line),
            f"include_path: {tasks_folder}",
        )
    )
    config.write_text(text)
    done = command("check", config, "--quick")
    assert done.returncode == 2
    assert "task pick: output_type: expected generate_until with harness.enable_thin" in done.stderr
