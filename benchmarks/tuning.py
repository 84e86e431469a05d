"""Fine-tuning of a resident model in place: all weights, or LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch

from evaluators.harness.answers.answer_gradients import AnswerTokens, backward
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import TaskScore
from evaluators.resident_models.model_builder import BuiltModel
from runs.records.question_split import Questions
from search.engine.learning.adam_descent import Batches
from search.engine.learning.learning_plan import kept_aside
from spaces.recipes.recipe import Recipe

ALL, LORA = "all weights", "LoRA"

RANK = 16

CHECKS = (2, 5, 10)
"""Full evaluations whose price is paid."""


Scores = Mapping[str, TaskScore]


@dataclass(kw_only=True)
class Bench:
    """A resident model with the weights of a recipe, to be tuned in place and asked.

    Attributes:
        evaluator: Of the models and tasks.
        start: What is tuned.
        questions: Search questions are tuned on, but for those that learning keeps aside.
        trained: Tasks to tune on; equally important.
        batch: Questions of a step.
        seed: Of the order of the questions.
    """

    evaluator: HarnessEvaluator
    start: Recipe
    questions: Questions
    trained: Sequence[str]
    batch: int
    seed: int

    def batches(self) -> Batches:
        """The questions of each step: those of learning."""
        catalogue = self.evaluator.catalogue()
        aside = set(kept_aside(self.questions.search, catalogue.documents()))
        task_of = {one.id: one.task for one in catalogue.questions}
        tasks: dict[str, list[str]] = {name: [] for name in self.trained}
        for name in self.questions.search:
            if name not in aside:
                tasks[task_of[name]].append(name)
        return Batches(tasks=tasks, size=self.batch, seed=self.seed)

    def tuned(
        self, way: str, rate: float, checks: Sequence[int], asked: Sequence[str]
    ) -> Iterator[tuple[Scores, BuiltModel]]:
        """Tune from the start; at each number of steps, the scores of all tasks, and the model.

        Args:
            way: ``ALL`` or ``LORA``.
            rate: AdamW's, after three steps of warming up.
            checks: Steps after which to ask, ascending.
            asked: Questions.
        """
        torch.manual_seed(self.seed)
        evaluator = self.evaluator
        evaluator._builder.free()  # a benchmark may look inside: what was built may be tuned
        built = evaluator._built(self.start)
        batches, model = self.batches(), built.skeleton.model
        wanted = evaluator._asked([name for names in batches.tasks.values() for name in names])
        end = tuple(built.desk.tokenizer("\n", add_special_tokens=False).input_ids)
        texts = {one.question: _ended(one, end) for one in evaluator._answers(built, wanted)}
        with _open(model, way) as parameters:
            optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
            for step in range(max(checks)):
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1.0, (step + 1) / 3)
                self._step(model, batches.of(step), texts)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if step + 1 in checks:
                    with torch.no_grad():
                        scores, _ = evaluator._answer(built, evaluator._asked(asked))
                    yield {one.task: one for one in scores}, built
        evaluator._builder.free()

    def loss(self, built: BuiltModel, asked: Sequence[str]) -> float:
        """Mean loss of right answers of the model as it is now: finer than counting them."""
        evaluator = self.evaluator
        answers = evaluator._answers(built, evaluator._asked(asked))
        found = backward(
            built.skeleton.model, answers, {}, batch=32, device=built.skeleton.model.device
        )
        return fmean(found.values())

    def _step(
        self, model: Any, batch: Mapping[str, Sequence[str]], texts: Mapping[str, AnswerTokens]
    ) -> None:
        """Add the gradients of a batch, every task as important as any other."""
        weights = {
            name: 1.0 / len(batch) / len(names) for names in batch.values() for name in names
        }
        with torch.enable_grad():
            backward(
                model,
                [texts[name] for name in weights],
                weights,
                batch=len(weights),
                device=model.device,
            )


def _ended(answers: AnswerTokens, end: tuple[int, ...]) -> AnswerTokens:
    """A written answer with the end of its line."""
    if len(answers.texts) > 1:
        return answers
    return replace(answers, texts=(answers.texts[0] + end,))


@contextmanager
def _open(model: Any, way: str) -> Iterator[list[torch.nn.Parameter]]:
    """The parameters to tune; afterwards the model needs no gradients and has no adapter."""
    if way == LORA:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        wrapped = get_peft_model(model, config)
        try:
            yield [one for one in wrapped.parameters() if one.requires_grad]
        finally:
            wrapped.unload()
    else:
        model.requires_grad_(True)
        try:
            yield list(model.parameters())
        finally:
            model.requires_grad_(False)


def steps_paid(full_evaluations: float, questions: int, batch: int) -> int:
    """Steps for the price of some evaluations of all search questions."""
    return max(1, math.floor(full_evaluations * questions / (3 * batch)))
