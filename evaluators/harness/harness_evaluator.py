"""The evaluator of real models: builds recipes into a resident model and asks it questions.

A candidate costs one pass over the weights, its forward passes, and little else. Whatever goes
wrong with one is a Failure of it. docs/scoring.md says how all of it works.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch

from evaluators.harness.answers.answer_gradients import (
    AnswerTokens,
    answers_of,
    backward,
    recomputing,
)
from evaluators.harness.answers.answer_losses import losses, right_answer
from evaluators.harness.answers.prompts import requests_of
from evaluators.harness.answers.requests import longest, mark, respond, tokens_read
from evaluators.harness.engines.continuous_engine import ContinuousEngine
from evaluators.harness.engines.engine_choice import CONTINUOUS, VLLM, engine_problems
from evaluators.harness.engines.inference_engine import InferenceEngine
from evaluators.harness.engines.vllm_engine import VllmEngine
from evaluators.harness.lm_eval_adapter import LanguageModel, catalogue_of, isolated, load_tasks
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import (
    Candidate,
    Catalogue,
    EvaluatorError,
    Failure,
    FailureKind,
    LossGradient,
    Outcome,
    Score,
    TaskScore,
)
from evaluators.resident_models.candidate_failures import (
    NonFiniteScoreError,
    failure_from,
    is_out_of_memory,
)
from evaluators.resident_models.degeneracy import PROMPTS, check_hears
from evaluators.resident_models.devices.batch_size import auto_batch_size
from evaluators.resident_models.model_builder import BuiltModel, ModelBuilder, Models
from evaluators.resident_models.skeleton import ResidentError, Skeleton
from evaluators.resident_models.tokenizer_cache import CachedTokenizer
from merging.planning.merge_plan import PlanError
from spaces.recipes.recipe import Recipe
from spaces.text.error_text import class_and_last_line

T = TypeVar("T")

_BROKEN = "the merged model gives logits that are NaN or infinite"


class HarnessEvaluator:
    """Builds recipes into a resident model and asks it lm-eval's questions.

    Raises:
        EvaluatorError: With everything that is wrong with models or tasks.
    """

    def __init__(self, spec: HarnessSpec) -> None:
        self._spec = spec
        problems: list[str] = []
        try:
            models = Models.open(spec)
            configs = {name: one.config for name, one in models.checkpoints.items()}
            problems += engine_problems(
                spec.engine, configs, max_length=spec.max_length, gpus=spec.gpus
            )
        except EvaluatorError as error:
            problems += error.problems
        try:
            self._tasks = load_tasks(spec)
        except EvaluatorError as error:
            problems += error.problems
        if problems:
            raise EvaluatorError(problems)
        self._catalogue = catalogue_of(self._tasks)
        self._place = {
            question.id: (task, question.position)
            for task in self._tasks
            for question in task.questions
        }
        self._batch = spec.batch_size if isinstance(spec.batch_size, int) else 0
        self._recomputes = False  # whether a backward pass computes activations once more
        self._builder = ModelBuilder(spec, models)
        self._engine = _engine_of(spec.engine, gpus=len(models.devices))
        self._device = self._builder.device
        self._set_up(next(iter(models.checkpoints)))

    @property
    def notes(self) -> tuple[str, ...]:
        return self._builder.notes

    def catalogue(self) -> Catalogue:
        return self._catalogue

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        fingerprint, other = "", FailureKind.ERROR
        try:
            asked = self._asked(candidate.questions)
            started = time.perf_counter()
            known = self._builder.holds(candidate.recipe)
            model = self._built(candidate.recipe)
            fingerprint = model.fingerprint
            built = time.perf_counter()
            other = FailureKind.TASK
            if not known:
                self._look(candidate.recipe, model, asked)
            tasks, outcomes = self._answer(model, asked, texts=candidate.texts)
            done = time.perf_counter()
        except Exception as error:  # noqa: BLE001 - whatever else it is, it is this candidate's
            self._builder.check_lost(error)
            failure = failure_from(error, other=other, fingerprint=fingerprint)
        else:
            self._builder.keep(candidate.recipe, model)
            return Score.of(
                self._catalogue.tasks,
                tasks,
                outcomes=outcomes,
                fingerprint=fingerprint,
                build_seconds=built - started,
                score_seconds=done - built,
            )
        self._builder.free()
        return failure

    def losses(self, candidate: Candidate) -> Mapping[str, float] | Failure:
        """Build a candidate and find how probable it thinks the right answers.

        Returns:
            By question the loss of its right answer in nats per token; questions without a known
            one are left out. Or what went wrong.
        """
        try:
            asked = self._asked(candidate.questions)
            model = self._built(candidate.recipe)
            answers: dict[str, Any] = {}
            for task in (task for task in self._tasks if task.info.name in asked):
                for position in asked[task.info.name]:
                    name = task.questions[position].id
                    request = right_answer(task, position, model.desk.requests[name])
                    answers |= {} if request is None else {name: request}
            with isolated(self._device):
                found = losses(self._lm(model.skeleton, model.desk), answers)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this candidate's
            self._builder.free()
            return failure_from(error, other=FailureKind.TASK)
        self._builder.keep(candidate.recipe, model)
        return found

    def gradient(self, candidate: Candidate) -> LossGradient | Failure:
        """Build a candidate and find how the loss of right answers moves with its coefficients.

        Args:
            candidate: What to build, the questions, and the factor of each question's loss in the
                sum whose gradient is taken.

        Returns:
            Losses and gradient, or what went wrong.
        """
        try:
            asked = self._asked(candidate.questions)
            started = time.perf_counter()
            model = self._built(candidate.recipe)
            built = time.perf_counter()
            gradients = self._builder.gradients(model)
            answers = self._answers(model, asked, candidate.targets)

            def work() -> dict[str, float]:
                gradients.zero()  # a batch that ran out of memory has left its part
                frugal = recomputing if self._recomputes else nullcontext
                with torch.enable_grad(), gradients.collecting(), frugal(model.skeleton.model):
                    return backward(
                        model.skeleton.model,
                        answers,
                        candidate.weights or {},
                        batch=self._batch,
                        device=self._device,
                    )

            try:
                found = self._with_room(work)
            except Exception as error:
                if self._recomputes or not is_out_of_memory(error):
                    raise
                self._recomputes = True
                found = self._with_room(work)
            done = time.perf_counter()
            values = tuple(gradients.values.tolist())
            if not all(map(math.isfinite, values)):
                raise NonFiniteScoreError("the gradient of the loss is NaN or infinite")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this candidate's
            self._builder.check_lost(error)
            self._builder.free()
            return failure_from(error, other=FailureKind.TASK)
        self._builder.keep(candidate.recipe, model)
        return LossGradient(
            losses=found,
            gradient=values,
            tokens=sum(len(ids) for one in answers for ids in one.read),
            passes=4 if self._recomputes else 3,
            build_seconds=built - started,
            seconds=done - built,
        )

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._builder.close()

    def _answers(
        self,
        model: BuiltModel,
        asked: Mapping[str, Sequence[int]],
        targets: Mapping[str, str] | None = None,
    ) -> list[AnswerTokens]:
        """What to judge the questions by; those without a known right answer are left out."""
        given = targets or {}
        with isolated(self._device):
            lm = self._lm(model.skeleton, model.desk)
            found = [
                answers_of(
                    task,
                    position,
                    model.desk.requests[task.questions[position].id],
                    encode=lm.pair,
                    most=int(lm.max_length),
                    thinks=model.desk.mark is not None,
                    target=given.get(task.questions[position].id),
                )
                for task in self._tasks
                for position in asked.get(task.info.name, ())
            ]
        return [one for one in found if one is not None]

    def _built(self, recipe: Recipe) -> BuiltModel:
        """A model with the weights of a recipe, and the requests in its donor's words."""
        if self._engine is not None and not self._builder.holds(recipe):
            self._engine.refill()
        built = self._builder.build(recipe)
        self._equip(built.skeleton, built.desk)
        return built

    def _set_up(self, first: str) -> None:
        """Make an empty model of the first kind and all requests, so that what fails, fails now."""
        try:
            skeleton, desk = self._builder.empty(first)
            self._equip(skeleton, desk)
            self._start(skeleton, desk)
        except EvaluatorError:
            raise
        except (PlanError, ResidentError) as error:
            start = f"model {first}: "
            lines = [start + line.removeprefix(start) for line in error.problems]
            raise EvaluatorError(lines) from error
        except Exception as error:
            what = "expected to fit" if is_out_of_memory(error) else "cannot be asked"
            problem = f"model {first}: {what} on {self._device}: {class_and_last_line(error)}"
            raise EvaluatorError([problem]) from error

    def _asked(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """Positions of the questions asked, ascending, by task in the catalogue's order."""
        unknown = [name for name in ids if name not in self._place]
        if unknown or not ids or len(set(ids)) != len(ids):
            raise ValueError(
                "questions: expected ids of the catalogue, each once and at least one, got "
                f"{unknown[:3] or 'none or some twice'}"
            )
        found: dict[str, list[int]] = {}
        for name in ids:
            task, position = self._place[name]
            found.setdefault(task.info.name, []).append(position)
        return {
            task.info.name: sorted(found[task.info.name])
            for task in self._tasks
            if task.info.name in found
        }

    def _equip(self, skeleton: Skeleton, desk: CachedTokenizer) -> None:
        """Make the requests for a tokenizer, and choose a batch size, where there is none yet."""
        if desk.requests and self._batch:
            return
        with isolated(self._device):
            lm = self._lm(skeleton, desk)
            if not desk.requests:
                desk.requests = requests_of(self._tasks, lm, self._spec)
            if not self._batch:
                self._batch = auto_batch_size(
                    self._device,
                    gpus=self._spec.gpus,
                    config=skeleton.model.config,
                    dtype=skeleton.model.dtype,
                    tokens=longest(lm, desk.requests) if self._device.type == "cuda" else 0,
                )

    def _start(self, skeleton: Skeleton, desk: CachedTokenizer) -> None:
        """Start the engine, where it has answers to write."""
        if self._engine is None or not any(task.info.written for task in self._tasks):
            return
        with isolated(self._device):
            most = longest(self._lm(skeleton, desk), desk.requests)
            self._engine.start(skeleton.model, longest=most, rows=self._batch)

    def _lm(self, skeleton: Skeleton, desk: CachedTokenizer) -> LanguageModel:
        """lm-eval around a model."""
        return LanguageModel(
            known=desk.encodings,
            engine=self._engine,
            mark=desk.mark,
            end_loops=self._spec.end_loops,
            chat_template_args=self._spec.chat_variables(),
            pretrained=skeleton.model,
            tokenizer=desk.tokenizer,
            batch_size=self._batch or 1,
            max_length=self._spec.max_length,
            trust_remote_code=self._spec.trust_remote_code,
        )

    def _look(self, recipe: Recipe, model: BuiltModel, asked: Mapping[str, Sequence[int]]) -> None:
        """Make sure that the model is worth asking; parents are always asked.

        Raises:
            DegenerateError: If it says the same whatever it is asked.
        """
        if not self._spec.check_degenerate or recipe.alone or len(recipe.models) < 2:
            return
        names = [
            task.questions[position].id
            for task in self._tasks
            for position in asked.get(task.info.name, ())
        ]
        some = names[:: max(1, len(names) // PROMPTS)]
        requests = model.desk.requests

        def look() -> None:
            lm = self._lm(model.skeleton, model.desk)
            texts = dict.fromkeys(_words(requests[name][0]) for name in some)
            prompts = [ids for text in texts if (ids := lm.tok_encode(text))]
            check_hears(model.skeleton.model, prompts, self._device, at_once=self._batch)

        self._with_room(look)
        if model.skeleton.broken:
            raise NonFiniteScoreError(_BROKEN)

    def _answer(
        self, model: BuiltModel, asked: Mapping[str, Sequence[int]], *, texts: int = 0
    ) -> tuple[tuple[TaskScore, ...], tuple[Outcome, ...]]:
        """Ask the model as it is now."""
        # lm-eval draws a bar per batch there, whatever it is told.
        bars = any(task.task.OUTPUT_TYPE == "loglikelihood_rolling" for task in self._tasks)
        return self._with_room(lambda: self._ask_once(model, asked, texts), bars=bars)

    def _with_room(self, work: Callable[[], T], *, bars: bool = True) -> T:
        """Do what takes batches, in smaller ones, for good, if memory runs out.

        Where not even single sequences fit, the batch size is not what is wrong: it stays.
        """
        before = self._batch
        while True:
            with isolated(self._device, bars=bars):
                try:
                    return work()
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    if self._batch <= 1:
                        self._batch = before
                        raise
                    self._batch //= 2
            self._builder.free()

    def _ask_once(
        self, model: BuiltModel, asked: Mapping[str, Sequence[int]], texts: int
    ) -> tuple[tuple[TaskScore, ...], tuple[Outcome, ...]]:
        tasks = [task for task in self._tasks if task.info.name in asked]
        chosen = {
            task.questions[position].id: model.desk.requests[task.questions[position].id]
            for task in tasks
            for position in asked[task.info.name]
        }
        everything = [request for requests in chosen.values() for request in requests]
        try:
            lm = self._lm(model.skeleton, model.desk)
            ends, read = respond(lm, everything), partial(tokens_read, lm)
            if model.skeleton.broken:
                raise NonFiniteScoreError(_BROKEN)
            marks = [
                mark(task, asked[task.info.name], chosen, ends, read=read, texts=texts)
                for task in tasks
            ]
        finally:
            for request in everything:  # they are used again
                request.resps = []
                request.filtered_resps = {}
        scores = tuple(score for score, _ in marks)
        for score in scores:
            if not math.isfinite(score.value):
                raise NonFiniteScoreError(f"task {score.task}: the score is {score.value}")
        return scores, tuple(item for _, outcomes in marks for item in outcomes)


def _engine_of(name: str, *, gpus: int) -> InferenceEngine | None:
    """What runs the model in the place of lm-eval's own batches, if anything does."""
    if name == VLLM:
        return VllmEngine(gpus=gpus)
    return ContinuousEngine() if name == CONTINUOUS else None


def _words(request: Any) -> str:
    """What the model reads for a request: the prompt, and the answer that is to be rated."""
    if request.request_type == "loglikelihood":
        return str(request.args[0]) + str(request.args[1])
    return str(request.args[0])
