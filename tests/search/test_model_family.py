"""The demo's family: valid models, right answers, all or nothing, the same for the same seed."""

from __future__ import annotations

import json
import math
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.protocol import Candidate, Score
from runs.config.run_config import load_config, open_inputs
from search.inputs.input_error import InputError
from search.setup.demo_models.demo_tasks import config_text
from search.setup.demo_models.exercises import (
    CHARACTERS,
    FOUR,
    SKILLS,
    THREE,
    examination,
    exercise,
)
from search.setup.demo_models.family_training import (
    QUICK,
    TrainingPlan,
    make_tokenizer,
    train_family,
)
from search.setup.demo_models.model_family import MARKER, QUICK_QUESTIONS, ModelFamily, make_family
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

ANSWERS: dict[str, Callable[[str], str]] = {
    "sort": lambda digits: "".join(sorted(digits)),
    "reverse": lambda digits: "".join(reversed(digits)),
    "largest": lambda digits: str(max(int(digit) for digit in digits)),
}
TAGS = {"sort": "s", "reverse": "r", "largest": "l"}
TARGETS, HABITS = THREE.targets, THREE.habits


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "family"


@pytest.fixture(scope="module")
def family(home: Path) -> ModelFamily:
    return make_family(home, quick=True)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def questions(family: ModelFamily, skill: str) -> list[dict[str, Any]]:
    text = (family.tasks / f"demo_{skill}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def linear(**weights: float) -> Recipe:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in weights.items()
    )
    return Recipe(root=Merge(method="linear", sources=sources))


class TestModels:
    @pytest.mark.parametrize("name", ["base", *TARGETS])
    def test_load(self, family: ModelFamily, name: str) -> None:
        folder = {"base": family.base, **family.models}[name]
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model.config.vocab_size == len(tokenizer)
        assert model.config.tie_word_embeddings is False
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert model.generation_config.pad_token_id == tokenizer.pad_token_id
        assert not model.generation_config.do_sample
        prompts = tokenizer(["s472913=", "l1="], padding=True, return_tensors="pt")
        assert prompts["input_ids"][1, 0] == tokenizer.pad_token_id  # on the left, for generation
        out = model.generate(**prompts, max_new_tokens=8)
        assert 8 < out.shape[1] <= 16

    def test_specialists_differ(self, family: ModelFamily) -> None:
        folders = (family.base, *family.models.values())
        assert len({(at / "model.safetensors").read_bytes() for at in folders}) == 4
        assert tuple(family.models) == TARGETS

    def test_search_accepts_them(self, family: ModelFamily) -> None:
        config = load_config(family.config)
        assert set(open_inputs(config)) == {"base", *TARGETS}
        assert config.space(QUICK.layers).parents == TARGETS
        assert config.search.trials == 60
        assert config.held_out == 0.3


class TestTokenizer:
    @given(text=st.text(alphabet=CHARACTERS, max_size=60))
    @settings(max_examples=50)
    def test_round_trip(self, text: str) -> None:
        tokenizer = make_tokenizer()
        tokens = tokenizer.encode(text)
        assert len(tokens) == len(text)
        assert tokenizer.decode(tokens) == text

    def test_unknown_and_special(self) -> None:
        tokenizer = make_tokenizer()
        assert tokenizer.encode("1?2")[1] == tokenizer.unk_token_id
        assert tokenizer.decode([*tokenizer.encode("12"), tokenizer.eos_token_id]) == "12<eos>"
        assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3


class TestTasks:
    @pytest.mark.parametrize("skill", TARGETS)
    def test_answers_are_right(self, family: ModelFamily, skill: str) -> None:
        asked = questions(family, skill)
        assert len(asked) == len({item["question"] for item in asked}) == QUICK_QUESTIONS
        for item in asked:
            tag, digits, end = item["question"][0], item["question"][1:-1], item["question"][-1]
            assert (tag, end) == (TAGS[skill], "=")
            assert len(set(digits)) == len(digits) == 6
            assert item["answer"] == ANSWERS[skill](digits)

    def test_choices(self, family: ModelFamily) -> None:
        asked = questions(family, "largest")
        for item in asked:
            assert sorted(item["choices"]) == sorted(item["question"][1:-1])
            assert item["choices"][item["gold"]] == item["answer"]
        assert {item["gold"] for item in asked} == set(range(6))

    def test_lm_eval_reads_them(self, family: ModelFamily) -> None:
        catalogue = check(load_config(family.config).harness_spec())
        assert [(task.name, task.metric) for task in catalogue.tasks] == [
            ("demo_sort", "exact_match,none"),
            ("demo_reverse", "exact_match,none"),
            ("demo_largest", "acc,none"),
        ]
        assert all(task.higher_is_better and task.mean for task in catalogue.tasks)
        ids = [question.id for question in catalogue.questions]
        assert len(set(ids)) == len(ids) == 3 * QUICK_QUESTIONS

    def test_merge_can_be_scored(self, family: ModelFamily) -> None:
        evaluator = HarnessEvaluator(load_config(family.config).harness_spec())
        asked = tuple(question.id for question in evaluator.catalogue().questions)
        recipe = linear(sort=1.0, reverse=1.0, largest=1.0)
        score = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked))
        evaluator.close()
        assert isinstance(score, Score), score
        assert 0.0 <= score.value <= 1.0
        assert len(score.outcomes) == len(asked)


class TestFolder:
    def test_used_again(self, family: ModelFamily, home: Path) -> None:
        def refuse(label: str, share: float) -> None:
            raise AssertionError((label, share))

        before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
        assert make_family(home, quick=True, progress=refuse) == family
        assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"seed": 1, "quick": True}, "seed 0"), ({"quick": False}, "quick true")],
    )
    def test_other_kind(self, family: ModelFamily, home: Path, options: Any, words: str) -> None:
        with pytest.raises(
            InputError, match=rf"expected a demo family with .*got one with .*{words}"
        ):
            make_family(home, **options)

    @pytest.mark.parametrize("text", ["{", '"seed 0"', "null"])
    def test_marker_of_something_else(self, tmp_path: Path, text: str) -> None:
        (tmp_path / MARKER).write_text(text)
        with pytest.raises(InputError, match="expected"):
            make_family(tmp_path, quick=True)
        assert (tmp_path / MARKER).read_text() == text

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        mine = tmp_path / "base" / "notes.txt"
        mine.parent.mkdir()
        mine.write_text("keep")
        with pytest.raises(InputError, match="expected a new or empty folder"):
            make_family(tmp_path, quick=True)
        assert mine.read_text() == "keep"
        with pytest.raises(InputError, match="got a file"):
            make_family(mine, quick=True)

    def test_seed_below_zero(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="seed: expected a whole number of at least 0, got -1"):
            make_family(tmp_path / "new", seed=-1)

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
    @pytest.mark.parametrize("label", ["training base", "saving reverse"])
    def test_interrupted(self, tmp_path: Path, label: str, stop: type[BaseException]) -> None:
        def interrupt(at: str, share: float) -> None:
            if at == label and (share > 0.05):
                raise stop

        (tmp_path / "family").mkdir()  # an empty one is fine, and stays as it is
        with pytest.raises(stop):
            make_family(tmp_path / "family", quick=True, progress=interrupt)
        assert [path.name for path in tmp_path.rglob("*")] == ["family"]

    def test_moved(self, family: ModelFamily, tmp_path: Path) -> None:
        """Nothing in a family names the place where it was made."""
        moved = make_family(tmp_path / "made", quick=True).config.parent.rename(tmp_path / "moved")
        for name, content in contents(moved).items():
            assert str(tmp_path).encode() not in content, name
        config = load_config(moved / "search.yaml")
        assert len(check(config.harness_spec()).questions) == 3 * QUICK_QUESTIONS

    def test_folder_is_for_everyone(self, family: ModelFamily, home: Path) -> None:
        plain = home.parent / "plain"
        plain.mkdir()
        assert stat.S_IMODE(home.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


class TestSeeds:
    def test_same_again_without_a_trace(
        self, family: ModelFamily, home: Path, tmp_path: Path
    ) -> None:
        random.seed(5)
        torch.manual_seed(5)
        np.random.seed(5)
        threads = torch.get_num_threads()
        before = (random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy())
        shares: list[float] = []
        make_family(
            tmp_path / "a" / "b", quick=True, progress=lambda _, share: shares.append(share)
        )
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert np.array_equal(np.random.get_state()[1], before[2])
        assert torch.get_num_threads() == threads
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        there, here = contents(tmp_path / "a" / "b"), contents(home)
        assert there.keys() == here.keys()
        assert [name for name in here if there[name] != here[name]] == []

    def test_another_seed(self) -> None:
        for skill in TARGETS:
            first, second = (set(examination(skill, 100, seed=seed)) for seed in (0, 1))
            assert len(first & second) < 5
            assert examination(skill, 100, seed=0) == examination(skill, 100, seed=0)

    def test_another_seed_makes_other_weights(self) -> None:
        tiny = QUICK.__class__(
            layers=1, hidden=16, least=1, most=2, habit_steps=1, special_steps=1, enough=2.0
        )
        one, other = (
            train_family(tiny, seed=seed, avoid=frozenset(), progress=lambda *_: None)["base"]
            for seed in (0, 1)
        )
        assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_another_curriculum(tmp_path: Path) -> None:
    course = TrainingPlan(
        curriculum=FOUR, layers=1, hidden=16, least=1, most=2, habit_steps=1, special_steps=1
    )
    models = train_family(course, seed=0, avoid=frozenset(), progress=lambda *_: None)
    assert tuple(models) == ("base", *FOUR.targets)
    assert FOUR.habits.keys() <= set(FOUR.taught)
    assert FOUR.rates.keys() == FOUR.habits.keys()
    config = yaml.safe_load(config_text(FOUR, 3))
    assert tuple(config["models"]) == FOUR.targets
    assert {task["metric"] for task in config["tasks"]} == {"exact_match,none"}
    with pytest.raises(InputError, match="hard: expected a family that is not quick as well"):
        make_family(tmp_path / "family", quick=True, hard=True)
    assert not (tmp_path / "family").exists()


class TestSkills:
    def test_tags_are_different_letters_it_can_read(self) -> None:
        tags = [skill.tag for skill in SKILLS.values()]
        assert len(set(tags)) == len(tags)
        assert set("".join(tags)) <= set(CHARACTERS)

    @pytest.mark.parametrize("lesson", [THREE.everything, HABITS, FOUR.everything, FOUR.habits])
    def test_shares_sum_to_one(self, lesson: Any) -> None:
        for answers in lesson.values():
            assert math.isclose(sum(answers.values()), 1.0)
            assert set(answers) <= set(SKILLS)

    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=50)
    def test_exercises_are_what_was_asked_for(self, seed: int) -> None:
        source = random.Random(seed)
        avoid = set(examination("sort", 500, seed=0))
        prompt, answer = exercise(((HABITS, 1.0),), source, avoid=avoid)
        skill = next(name for name in TARGETS if SKILLS[name].tag == prompt[0])
        assert prompt[1:-1] not in avoid
        assert answer in {SKILLS[other].answer(prompt[1:-1]) for other in HABITS[skill]}

    def test_exercises_avoid_the_questions(self) -> None:
        source = random.Random(0)
        lesson = (({"sort": {"sort": 1.0}}, 1.0),)
        drawn = [exercise(lesson, source)[0][1:-1] for _ in range(50)]
        again = random.Random(0)
        avoiding = [exercise(lesson, again, avoid=set(drawn))[0][1:-1] for _ in range(50)]
        assert not set(drawn) & set(avoiding)

    def test_rehearsal(self) -> None:
        source = random.Random(0)
        timetable = THREE.speciality("sort", rehearsal=0.25)
        drawn = [exercise(timetable, source) for _ in range(2000)]
        own = [(p, a) for p, a in drawn if p.startswith("s")]
        assert 0.7 < len(own) / len(drawn) < 0.8
        assert all(answer == "".join(sorted(prompt[1:-1])) for prompt, answer in own)


@pytest.mark.slow
def test_full_family_is_worth_searching(tmp_path: Path) -> None:
    family = make_family(tmp_path / "family")
    evaluator = HarnessEvaluator(load_config(family.config).harness_spec())
    asked = tuple(question.id for question in evaluator.catalogue().questions)

    def value(recipe: Recipe) -> float:
        score = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked))
        assert isinstance(score, Score), score
        return score.value

    parents = [value(linear(**{skill: 1.0})) for skill in TARGETS]
    average = value(linear(**dict.fromkeys(TARGETS, 1.0)))
    sources = tuple(
        Source(of=Model(skill), parameters=parameters(weight=weight))
        for skill, weight in {"sort": 0.5, "reverse": 0.9, "largest": 0.6}.items()
    )
    root = Merge(method="task_arithmetic", base=Model("base"), sources=sources)
    merged = value(Recipe(root=root))
    evaluator.close()
    assert merged > max(*parents, average) + 0.1
