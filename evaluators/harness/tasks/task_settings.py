"""Preparing an lm-eval task, and finding out what it reports."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from evaluators.harness.questions.document_keys import asking, keys_of, rows_of
from evaluators.harness.questions.few_shot import FewShotExamples, FewShotPool, asked_split, pool_of
from evaluators.harness.questions.question_ids import Keys
from evaluators.harness_spec import MOST_KEYS, HarnessSpec, TaskSpec
from evaluators.protocol import EvaluatorError
from spaces.text.error_text import class_and_last_line

OUTPUT_TYPES = ("loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until")
"""Kinds of tasks that can be asked."""

MOST_TOKENS = 256
"""Most tokens of an answer where nothing says it, as in lm-eval."""

_EMPTY = {"loglikelihood": (-1.0, False), "loglikelihood_rolling": -1.0, "generate_until": ""}
"""By kind of request, an answer that says nothing."""


def configure(task: Any, wanted: TaskSpec, spec: HarnessSpec) -> list[str]:
    """Put the spec's settings into a task, in the way of ``simple_evaluate``; what forbids it."""
    problems = []
    if task.OUTPUT_TYPE not in OUTPUT_TYPES:
        problems.append(
            f"output_type: expected one of {', '.join(OUTPUT_TYPES)}, got {task.OUTPUT_TYPE}"
        )
    if getattr(task, "MULTIMODAL", False):
        problems.append(
            "task: expected one of text only, got one with images or sound (models that see are "
            "searched by what they answer to text)"
        )
    if getattr(task, "UNSAFE_CODE", False) and not spec.trust_remote_code:
        problems.append(
            "task: expected one that runs no code, got one that runs what the model writes; set "
            "trust_remote_code if that is what you want"
        )
    if task.OUTPUT_TYPE == "generate_until":
        problems += _configure_answers(task, spec)
    elif spec.enable_thinking:
        problems.append(
            "output_type: expected generate_until with harness.enable_thinking (no thoughts come "
            f"before choices), got {task.OUTPUT_TYPE}"
        )
    own = task.get_config("num_fewshot")
    if own == 0 and wanted.num_fewshot:
        problems.append(f"num_fewshot: expected 0 (the task fixes it), got {wanted.num_fewshot}")
    elif wanted.num_fewshot is not None or own is None:
        task.set_config(key="num_fewshot", value=wanted.num_fewshot or 0)
    task.set_fewshot_seed(seed=spec.seed)
    if hasattr(task, "sampler"):
        task.sampler = FewShotExamples(task.sampler)
    return problems


def _configure_answers(task: Any, spec: HarnessSpec) -> list[str]:
    """Say how long answers may be, thoughts included; what forbids it."""
    settings = (task.get_config("generation_kwargs") or {}) | dict(spec.gen_kwargs)
    if spec.max_think_toks is not None:
        most = next(
            (settings[key] for key in MOST_KEYS if settings.get(key) is not None), MOST_TOKENS
        )
        settings = {key: value for key, value in settings.items() if key not in MOST_KEYS}
        settings["max_gen_toks"] = spec.max_think_toks + int(most)
    if settings:
        task.set_config(key="generation_kwargs", value=settings)
    if spec.think_end_token is not None and (beams := settings.get("num_beams", 1)) != 1:
        return [f"num_beams: expected 1 with harness.think_end_token, got {beams}"]
    return []


def documents_of(
    task: Any, wanted: TaskSpec
) -> tuple[tuple[Any, ...], tuple[Keys, ...], FewShotPool | None]:
    """The documents that a task asks, their keys, and where its worked examples are from.

    Raises:
        EvaluatorError: If they cannot be read, or there are none.
    """
    try:
        documents = tuple(document for _, document in task.doc_iterator(limit=wanted.limit))
    except Exception as error:
        raise EvaluatorError([f"documents: {class_and_last_line(error)}"]) from error
    if not documents:
        raise EvaluatorError(["documents: expected at least one, got none"])
    read = asking(task)

    def keys(made: Sequence[Any], split: str | None, process: Any) -> tuple[Keys, ...]:
        rows = rows_of(task, split, process)
        known = rows if len(rows) >= len(made) else ()
        return keys_of(made, rows=known, asked=read, group_by=wanted.group_by)

    of_examples = getattr(task.get_config("fewshot_config"), "process_docs", None)
    return (
        documents,
        keys(documents, asked_split(task), task.get_config("process_docs")),
        pool_of(task, lambda made, split: keys(made, split, of_examples)),
    )


def reported(task: Any, document: Any) -> list[str]:
    """Metrics that a task reports: what it makes of an empty answer or the right one.

    Args:
        task: lm-eval's.
        document: Of a question; the task may change it.

    Raises:
        EvaluatorError: If not even a prompt can be made, or not even the right answer be marked.
    """
    try:
        given = copy.deepcopy(document)
        prompt = task.fewshot_context(given, num_fewshot=task.get_config("num_fewshot") or 0)
        made = task.construct_requests(given, prompt, metadata=(task.task_name, 0, 1))
    except Exception as error:
        raise EvaluatorError(
            [f"prompt of the first question: {class_and_last_line(error)}"]
        ) from error
    declared = [str(name) for name in task.aggregation()]
    if getattr(task, "UNSAFE_CODE", False):
        return declared
    requests = made if isinstance(made, list) else [made]
    given, why = _marked(task, document, [_EMPTY[item.request_type] for item in requests])
    if why is not None and task.OUTPUT_TYPE == "generate_until":  # some take no empty answer
        given, why = _marked(task, document, [_right_answer(task, document)] * len(requests))
    if why is not None:
        raise EvaluatorError([f"metric_list: the first question's answer cannot be marked: {why}"])
    names = [name for name in declared if name in given]
    names += [name for name in given if name not in declared]
    if not names:
        raise EvaluatorError(
            [
                f"metric_list: expected a metric that lm-eval computes for {task.OUTPUT_TYPE}, got "
                f"{', '.join(declared) or 'none'}; one of your own is computed by a function under "
                "process_results, which gives a value by each metric's name"
            ]
        )
    return names


def _marked(task: Any, document: Any, answers: list[Any]) -> tuple[list[str], str | None]:
    """Names of the metrics that a task gives for answers, or why it gives none."""
    try:
        given = task.process_results(copy.deepcopy(document), answers)
        return [str(name) for name in given], None
    except Exception as error:  # noqa: BLE001 - the task's own code
        if isinstance(error, KeyError) and error.args and error.args[0] in task.aggregation():
            return [], (
                f"{error.args[0]} gives several values, which lm-eval takes only where "
                "doc_to_target is a single text; compute it by a function under process_results"
            )
        return [], class_and_last_line(error)


def _right_answer(task: Any, document: Any) -> str:
    """A text like the right answer, as far as the task tells one."""
    try:
        target = task.doc_to_target(copy.deepcopy(document))
    except Exception:  # noqa: BLE001 - the task's own code
        return ""
    return str(target[0] if isinstance(target, list) and target else target)
