"""lm-eval's tasks, prompts and language model: the only module that imports lm_eval.

Tasks, prompts and requests are built once and used for every candidate
(``evaluators/harness/harness_evaluator.py``). Scores are those that ``lm_eval.simple_evaluate``
gives for the same weights, questions and batch size. docs/scoring.md says how all of it works.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import compress
from typing import Any

import torch
from lm_eval.api import metrics as lm_metrics
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.filters import build_filter_ensemble
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.tasks import TaskManager
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from evaluators.harness.answers.answer_endings import AnswerEnd, AnswerEndings, ending_of
from evaluators.harness.answers.generation_stopping import AnswerRules, GenerationStopping
from evaluators.harness.answers.requests import AskedTask
from evaluators.harness.answers.thoughts import ThoughtCap, ThoughtMark
from evaluators.harness.engines.engine_choice import takes_likeliest
from evaluators.harness.engines.inference_engine import (
    ROW_TOKENS,
    Continuation,
    InferenceEngine,
    Prompt,
)
from evaluators.harness.process_isolation import quiet, seeded
from evaluators.harness.questions.question_ids import questions_of
from evaluators.harness.questions.question_texts import question_texts
from evaluators.harness.shared_documents import brought_together
from evaluators.harness.tasks.metric_choice import MetricError, choose_metric
from evaluators.harness.tasks.task_facts import Survey, facts_of
from evaluators.harness.tasks.task_files import shipped_tasks
from evaluators.harness.tasks.task_finder import TaskFinder
from evaluators.harness.tasks.task_settings import configure, documents_of, reported
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Catalogue, EvaluatorError, QuestionText, TaskInfo
from evaluators.resident_models.encoding_cache import EncodingCache
from spaces.paths import is_folder

LOGGERS = ("lm_eval", "datasets", "transformers", "vllm")
"""Whose warnings say nothing to a user of this program."""

BY_ITEM = (
    lm_metrics.perplexity,
    lm_metrics.weighted_perplexity,
    lm_metrics.bits_per_byte,
    lm_metrics.median,
    lm_metrics.nanmean,
)
"""Aggregations other than the mean that mean something for a single item."""

CPU = torch.device("cpu")

_GREEDY = {"attention_mask", "do_sample", "temperature"}
"""What is given for answers that take the likeliest token each."""


def check(spec: HarnessSpec) -> Catalogue:
    """What can be asked, without loading a model.

    Raises:
        EvaluatorError: With everything that is wrong with the tasks.
    """
    return catalogue_of(load_tasks(spec))


def survey(spec: HarnessSpec) -> Survey:
    """The same with what each task is.

    Raises:
        EvaluatorError: With everything that is wrong with the tasks.
    """
    asked = load_tasks(spec)
    with isolated(CPU):
        facts = tuple(facts_of(task) for task in asked)

    def texts() -> dict[str, QuestionText]:
        with isolated(CPU):
            return question_texts(asked)

    return Survey(catalogue=catalogue_of(asked), tasks=facts, texts=texts)


def load_tasks(spec: HarnessSpec) -> tuple[AskedTask, ...]:
    """The tasks of a spec, in its order.

    Raises:
        EvaluatorError: With everything that is wrong with them.
    """
    problems = spec.problems()
    if not all(is_folder(folder) for folder in spec.include_path):
        raise EvaluatorError(problems)  # every task of theirs would be called unknown
    asked: list[AskedTask] = []
    with isolated(CPU):
        finder = _finder(spec.include_path, spec.models[0][1] if spec.models else None)
        for task in {task.name: task for task in spec.tasks}.values():
            try:
                asked += _ask_all(finder, task, spec)
            except EvaluatorError as error:
                problems += [f"task {task.name}: {problem}" for problem in error.problems]
        names = Counter(one.info.name for one in asked)
        problems += [
            f"task {name}: expected each task once, got it {count} times, as a member of groups too"
            for name, count in names.items()
            if count > 1
        ]
        if problems:
            raise EvaluatorError(list(dict.fromkeys(problems)))
        return brought_together(asked)


def catalogue_of(asked: Sequence[AskedTask]) -> Catalogue:
    """Tasks and questions of what is asked."""
    return Catalogue(
        tasks=tuple(task.info for task in asked),
        questions=tuple(question for task in asked for question in task.asked()),
    )


@contextmanager
def isolated(device: torch.device, *, bars: bool = True) -> Iterator[None]:
    """Seeds as ``simple_evaluate`` sets them, and nothing of it visible outside."""
    with (
        seeded(device, python=DEFAULT_RANDOM_SEED, others=DEFAULT_OTHER_SEED),
        quiet(*LOGGERS, bars=bars),
    ):
        yield


def name_problems(names: Sequence[str], folders: Sequence[str]) -> dict[str, str]:
    """What is wrong with names of tasks; no data is loaded.

    Args:
        names: Of tasks that a user wants.
        folders: The user's folders of task files.

    Returns:
        A line for each name that is not known.
    """
    found: dict[str, str] = {}
    with isolated(CPU):
        finder = _finder(folders)
        for name in names:
            try:
                finder.check(name)
            except EvaluatorError as error:
                found[name] = "; ".join(error.problems)
    return found


def _finder(folders: Sequence[str], model: str | None = None) -> TaskFinder:
    # Some tasks make their prompts to the length of a tokenizer and ask for a model's name.
    metadata = {"pretrained": model} if model is not None else None
    own = TaskManager(include_path=list(folders) or None, include_defaults=False, metadata=metadata)
    return TaskFinder(
        own,
        everything=lambda: _all_tasks(tuple(folders)),
        folders=folders,
        shipped=shipped_tasks(),
    )


@cache
def _all_tasks(folders: tuple[str, ...]) -> TaskManager:
    return TaskManager(include_path=list(folders) or None)


def _ask_all(finder: TaskFinder, wanted: TaskSpec, spec: HarnessSpec) -> list[AskedTask]:
    """A task, or the members of a group or tag with their shares of its weight."""
    found = finder.load(wanted.name)
    if not found.group:
        return [_ask(found.tasks[0], wanted, spec)]
    asked: list[AskedTask] = []
    problems: list[str] = []
    for task in found.tasks:
        member = replace(wanted, name=task.task_name, metric=found.metric(wanted.metric))
        try:
            asked.append(_ask(task, member, spec))
        except EvaluatorError as error:
            problems += [f"member {member.name}: {problem}" for problem in error.problems]
    if problems:
        raise EvaluatorError(problems)
    weights = found.weights(wanted.weight, wanted.metric, [len(one.documents) for one in asked])
    return [
        replace(one, info=replace(one.info, weight=weight, asked_as=found.group))
        for one, weight in zip(asked, weights, strict=True)
    ]


def _ask(task: Any, wanted: TaskSpec, spec: HarnessSpec) -> AskedTask:
    problems = configure(task, wanted, spec)
    if problems:
        raise EvaluatorError(problems)
    documents, keys, pool = documents_of(task, wanted)
    declared = task.get_config("filter_list") or [
        {"name": "none", "filter": [{"function": "take_first"}]}
    ]
    try:
        metric, chosen = choose_metric(
            wanted.metric,
            metrics=reported(task, copy.deepcopy(documents[0])),
            filters=[str(item["name"]) for item in declared],
        )
    except MetricError as error:
        raise EvaluatorError([str(error)]) from error
    steps = next(item["filter"] for item in declared if item["name"] == chosen)
    lower = wanted.lower_is_better
    own_direction = bool(task.higher_is_better().get(metric, True))
    aggregate = task.aggregation().get(metric, lm_metrics.mean)
    return AskedTask(
        spec=wanted,
        task=task,
        info=TaskInfo(
            name=wanted.name,
            metric=f"{metric},{chosen}",
            higher_is_better=own_direction if lower is None else not lower,
            weight=wanted.weight,
            mean=aggregate is lm_metrics.mean,
            written=task.OUTPUT_TYPE == "generate_until",
            floor=wanted.floor,
        ),
        metric=metric,
        filter=chosen,
        filters=build_filter_ensemble(
            chosen,
            [
                (step["function"], {key: step[key] for key in step if key != "function"})
                for step in steps
            ],
        ),
        aggregate=aggregate,
        by_item=aggregate in BY_ITEM,
        documents=documents,
        questions=questions_of(wanted.name, documents),
        keys=keys,
        pool=pool,
    )


class LanguageModel(HFLM):  # type: ignore[misc]  # lm_eval has no types
    """lm-eval's transformers model, which remembers how a text was tokenized.

    Args:
        known: Tokens of texts.
        engine: What runs the model; ``None`` for lm-eval's own batches.
        mark: What ends thoughts, where there are any.
        end_loops: Whether answers that repeat themselves are ended.
        options: lm-eval's.

    Attributes:
        endings: How the answers written last ended.
    """

    def __init__(
        self,
        *,
        known: EncodingCache,
        engine: InferenceEngine | None = None,
        mark: ThoughtMark | None = None,
        end_loops: bool = True,
        **options: Any,
    ) -> None:
        self._known = known
        self._engine = engine
        self._mark, self._end_loops = mark, end_loops
        super().__init__(**options, think_end_token=None if mark is None else mark.given)
        self._rows, self._writes = int(self.batch_size), False
        self.endings = self.cache_hook = AnswerEndings()

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        def encode() -> list[int]:
            found: list[int] = super(LanguageModel, self).tok_encode(
                string, add_special_tokens, left_truncate_len, **kwargs
            )
            return found

        return self._known.get(string, (add_special_tokens, left_truncate_len), encode)

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of a prompt and of what follows it, as likelihoods are asked for.

        A prompt of no tokens becomes the one that starts a text.
        """
        if not context:
            return [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)
        before, after = self._encode_pair(context, continuation)
        return before, after

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        """As HFLM's, which ratings of answers and of whole texts go through, or by the engine."""
        if self._engine is None:
            found: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **options)
            return found
        return self._engine.likelihoods(
            self.model,
            [Continuation(before=before, tokens=tokens) for _, before, tokens in requests],
            most=int(self.max_length),
            room=ROW_TOKENS * self._rows,
        )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As HFLM's, which hands an engine all its answers in one batch."""
        found: dict[int, str] = {}
        for by_engine in (True, False):
            some = [at for at, one in enumerate(requests) if self._is_for_engine(one) is by_engine]
            self._writes = by_engine
            self.batch_size_per_gpu = len(some) if by_engine else self._rows
            texts = super().generate_until([requests[at] for at in some], disable_tqdm)
            found |= zip(some, texts, strict=True)
        return [found[at] for at in range(len(requests))]

    def _is_for_engine(self, request: Any) -> bool:
        """Whether the engine writes the answer; else it is as with lm-eval's own batches."""
        if self._engine is None or not takes_likeliest(self.model.generation_config):
            return False
        options = dict(normalize_gen_kwargs(request.args[1], self.max_gen_toks))
        del options["max_gen_toks"]
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        return self._ends_early([*options.pop("until", []), end], options)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **options: Any
    ) -> Tensor:
        """As HFLM's, but a batch of greedy answers ends as soon as all of them are settled."""
        start, usual = context.shape[1], not self._ends_early(stop, options)
        if self._engine is not None and self._writes:
            mask = options["attention_mask"]
            return self._written(self._engine, context, mask, most=max_length - start, stop=stop)
        if usual and self._mark is None:
            written: Tensor = super()._model_generate(context, max_length, stop, **options)
            ends = [self._end_of(row, stop) for row in written[:, start:].tolist()]
        else:
            stopping = self._stopping(context, max_length, stop)
            written = self.model.generate(
                input_ids=context,
                max_length=max_length,
                stopping_criteria=StoppingCriteriaList([stopping]),
                logits_processor=LogitsProcessorList(filter(None, [self._cap(stopping, start)])),
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                **_settings(options),
            )
            ends = stopping.answer_ends(written[:, start:].tolist())
        self.endings.note(ends)
        return written

    def _written(
        self, engine: InferenceEngine, context: Tensor, mask: Tensor, *, most: int, stop: list[str]
    ) -> Tensor:
        """An engine's answers as lm-eval takes a batch's; each ends as in a batch of its own."""
        rows = zip(context.tolist(), mask.bool().tolist(), strict=True)
        prompts = [
            tuple(compress(row, shown)) or (self.prefix_token_id,) for row, shown in rows
        ]  # one of no tokens becomes the token that starts a text
        rules = {prompt: self._stopping(context[:1, :0], most, stop) for prompt in prompts}
        answers = engine.answers(
            self.model,
            [self._prompt(prompt, rules[prompt]) for prompt in prompts],
            most=most,
            rows=self._rows,
            penalty=self.model.generation_config.repetition_penalty or 1.0,
        )
        told = zip(prompts, answers, strict=True)
        self.endings.note([rules[prompt].answer_ends([answer])[0] for prompt, answer in told])
        longest, pad = max(map(len, answers)), [self.tokenizer.pad_token_id]
        ids = [answer + pad * (longest - len(answer)) for answer in answers]
        return torch.cat([context, torch.tensor(ids, device=context.device)], dim=1)

    def _prompt(self, tokens: Sequence[int], stopping: GenerationStopping) -> Prompt:
        over = _told(stopping)
        if (cap := self._cap(stopping, 0)) is None:
            return Prompt(tokens=tokens, over=over)
        return Prompt(tokens=tokens, over=over, due=lambda had: cap.due(0, had))

    def _end_of(self, tokens: list[int], stop: list[str]) -> AnswerEnd:
        ends = self._end_tokens()
        last = next((at for at, token in enumerate(tokens, start=1) if token in ends), len(tokens))
        ending = ending_of(self.tokenizer, tokens, stops=stop, ends=ends)
        return AnswerEnd(ending=ending, tokens=last)

    def _end_tokens(self) -> frozenset[int]:
        ends = self.model.generation_config.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def _stopping(self, context: Tensor, max_length: int, stop: list[str]) -> GenerationStopping:
        start, mark = context.shape[1], self._mark
        rules = AnswerRules(
            tokenizer=self.tokenizer,
            stops=tuple(stop),
            ends=self._end_tokens(),
            mark=mark,
            most=max_length - start - mark.most if mark and mark.most else None,
            end_loops=self._end_loops,
        )
        usual = stop_sequences_criteria(self.tokenizer, stop, start, context.shape[0])
        return GenerationStopping(usual, rules, start=start)

    def _cap(self, stopping: GenerationStopping, start: int) -> ThoughtCap | None:
        mark = self._mark
        if mark is None or mark.most is None:
            return None
        return ThoughtCap(mark, mark.most, stopping.starts, start=start)

    def _ends_early(self, stop: Sequence[str], options: Mapping[str, Any]) -> bool:
        """Whether what comes after an answer's end is sure to be cut off, whatever it is.

        Not where answers are drawn: the next batch goes on with the random numbers left.
        """
        tokenizer = self.tokenizer
        return (
            options.get("do_sample") is False
            and not options.keys() - _GREEDY
            and (self.model.generation_config.num_beams or 1) == 1
            and all(stop)
            and tokenizer.pad_token_id in tokenizer.all_special_ids
            and not tokenizer.clean_up_tokenization_spaces
        )


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is given for answers, less the temperature where none is drawn."""
    drawn = options.get("do_sample")
    return {key: value for key, value in options.items() if drawn or key != "temperature"}


def _told(criterion: GenerationStopping) -> Callable[[list[int]], bool]:
    """The same for the tokens of a single answer."""
    return lambda tokens: bool(criterion(torch.tensor([tokens]), None))
