"""Preparing an lm-eval task, and finding out what it reports."""

from __future__ import annotations

from typing import Any

from evaluators.base import EvaluatorError
from evaluators.spec import HarnessSpec, TaskSpec
from evaluators.task_finder import last_line

OUTPUT_TYPES = ("loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until")
"""Kinds of tasks that can be asked."""


def configure(task: Any, wanted: TaskSpec, spec: HarnessSpec) -> list[str]:
    """Put the spec's settings into a task, in the way of ``simple_evaluate``; what forbids it."""
    problems = []
    if task.OUTPUT_TYPE not in OUTPUT_TYPES:
        problems.append(
            f"output_type: expected one of {', '.join(OUTPUT_TYPES)}, got {task.OUTPUT_TYPE}"
        )
    if getattr(task, "MULTIMODAL", False):
        problems.append("task: expected one of text only, got one with images or sound")
    if getattr(task, "UNSAFE_CODE", False) and not spec.trust_remote_code:
        problems.append(
            "task: expected one that runs no code, got one that runs what the model writes; set "
            "trust_remote_code if that is what you want"
        )
    if task.OUTPUT_TYPE == "generate_until" and spec.gen_kwargs:
        task.set_config(key="generation_kwargs", value=dict(spec.gen_kwargs), update=True)
    own = task.get_config("num_fewshot")
    if own == 0 and wanted.num_fewshot:
        problems.append(f"num_fewshot: expected 0 (the task fixes it), got {wanted.num_fewshot}")
    elif wanted.num_fewshot is not None or own is None:
        task.set_config(key="num_fewshot", value=wanted.num_fewshot or 0)
    task.set_fewshot_seed(seed=spec.seed)
    return problems


def reported(task: Any, document: Any) -> list[str]:
    """Metrics that a task reports: what it makes of an empty answer, else what it declares.

    Raises:
        EvaluatorError: If not even a prompt can be made.
    """
    try:
        prompt = task.fewshot_context(document, num_fewshot=task.get_config("num_fewshot") or 0)
        made = task.construct_requests(document, prompt, metadata=(task.task_name, 0, 1))
    except Exception as error:
        raise EvaluatorError([f"prompt of the first question: {last_line(error)}"]) from error
    declared = [str(name) for name in task.aggregation()]
    if getattr(task, "UNSAFE_CODE", False):
        return declared
    empty = {"loglikelihood": (-1.0, False), "loglikelihood_rolling": -1.0, "generate_until": ""}
    requests = made if isinstance(made, list) else [made]
    try:
        given = task.process_results(document, [empty[item.request_type] for item in requests])
    except Exception:  # noqa: BLE001 - some tasks take no empty answer; nothing is lost
        return declared
    reported = [str(name) for name in given]
    return [name for name in declared if name in reported] + [
        name for name in reported if name not in declared
    ]
