"""The texts of answers: those that lm-eval has marked, and the choices that were made."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from evaluators.harness.answers.answer_texts import BETWEEN, answer_text
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import survey
from evaluators.protocol import Candidate, QuestionText, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.attempt import attempt
from spaces.recipes.recipe import Merge, Model, Recipe, Source

SHORT = 6


def answered(spec: Any, recipe: Any, *, texts: int) -> Score:
    evaluator = HarnessEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    found = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked, texts=texts))
    evaluator.close()
    assert isinstance(found, Score), found
    return found


def test_answers_are_right_where_they_are_what_was_expected(make_spec: Any, mix: Any) -> None:
    spec = make_spec("tiny_pick", "tiny_write", "tiny_vote", "tiny_last", "tiny_text")
    score = answered(spec, mix(math=0.7, code=0.2, text=0.4), texts=2000)
    assert score.outcomes == answered(spec, mix(math=0.7, code=0.2, text=0.4), texts=0).outcomes
    said: Mapping[str, QuestionText] = survey(spec).texts()
    right: dict[str, set[bool]] = {}
    for one in score.outcomes:
        task, question = one.question.split("/")[0], said[one.question]
        right.setdefault(task, set()).add(one.value == 1.0)
        if task == "tiny_pick":
            chosen, rates = one.text.split("\nlog-likelihoods: ")
            assert question.prompt.startswith("max:")
            assert chosen in question.choices
            assert (chosen == question.expected) == (one.value == 1.0)
            numbers = [float(number) for number in rates.split(", ")]
            assert numbers[question.choices.index(chosen)] == max(numbers)
        elif task == "tiny_write":
            assert question.prompt.startswith("sort:")
            assert one.length == len(one.text)
            assert (one.text.strip()[:1] == question.expected) == (
                one.value == 1.0
            )  # by its filter
        elif task == "tiny_vote":
            assert BETWEEN in one.text
        elif task == "tiny_last":
            assert one.text.startswith("log-likelihood: -")
        else:
            assert one.text == ""
    assert right["tiny_pick"] == right["tiny_write"] == {True, False}  # or nothing would be shown


def test_long_answers_come_back_short(make_spec: Any, mix: Any) -> None:
    score = answered(make_spec("tiny_pick"), mix(math=1.0), texts=SHORT)
    assert {len(one.text) for one in score.outcomes} == {SHORT}


def rated(*pairs: tuple[str, str, float]) -> list[Any]:
    return [
        SimpleNamespace(request_type="loglikelihood", args=(prompt, answer), resps=[(rate, False)])
        for prompt, answer, rate in pairs
    ]


@pytest.mark.parametrize(
    ("metric", "chosen"), [("acc", "no"), ("acc_norm", "no w"), ("acc_bytes", "äöü")]
)
def test_the_choice_is_made_as_the_metric_makes_it(metric: str, chosen: str) -> None:
    requests = rated(("q", " no", -2.0), ("q", " no w", -2.2), ("q", " äöü", -2.4))
    assert answer_text(requests, metric, {}) == f"{chosen}\nlog-likelihoods: -2.00, -2.20, -2.40"


def test_choices_that_stand_in_the_prompt_are_told_by_what_differs() -> None:
    requests = rated(("I saw the cat", " run", -3.0), ("I saw the dog", " run", -1.0))
    assert answer_text(requests, "acc", {}).startswith("dog\n")


def test_choices_rated_without_the_prompt_are_none() -> None:
    requests = rated(("q", " a", -3.0), ("q", " b", -2.0), ("", " a", -1.0), ("", " b", -9.0))
    assert answer_text(requests, "acc_mutual_info", {}) == "b\nlog-likelihoods: -3.00, -2.00"


def test_texts_of_a_stranger_are_bounded_and_text() -> None:
    class Talkative(SyntheticEvaluator):
        def _words(self, outcome: Any) -> Any:
            return "x" * (10**6 if outcome.value else 1)

    evaluator = Talkative(SyntheticSpec(parents=("math",), tasks=(("one", 1.0),), questions=20))
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    recipe = Recipe(root=Merge(method="passthrough", sources=(Source(of=Model("math")),)))
    for texts in (0, 50):
        found = attempt(evaluator, Candidate(id=0, recipe=recipe, questions=asked, texts=texts))
        assert isinstance(found, Score)
        assert texts - 2 <= max(len(one.text) for one in found.outcomes) <= texts
