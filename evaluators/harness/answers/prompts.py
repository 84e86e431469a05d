"""The requests that a model is sent: every question of every task, in a tokenizer's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluators.harness.answers.requests import AskedTask
from evaluators.harness_spec import HarnessSpec


def requests_of(tasks: Sequence[AskedTask], lm: Any, spec: HarnessSpec) -> dict[str, list[Any]]:
    """Every request of every task, by question id, in the words of a model's tokenizer."""
    chat = bool(spec.apply_chat_template)
    result: dict[str, list[Any]] = {}
    for asked in tasks:
        task = asked.task
        task.set_fewshot_seed(seed=spec.seed)
        template = lm.apply_chat_template if chat else None
        for question in asked.asked():
            document = asked.document(question.position)
            prompt = task.fewshot_context(
                document,
                num_fewshot=task.get_config("num_fewshot") or 0,
                system_instruction=spec.system_instruction,
                apply_chat_template=chat,
                fewshot_as_multiturn=spec.fewshot_as_multiturn,
                chat_template=template,
                gen_prefix=task.doc_to_prefix(document),
            )
            made = task.construct_requests(
                doc=document,
                ctx=prompt,
                metadata=(task.get_config("task"), question.position, task.get_config("repeats")),
                apply_chat_template=chat,
                chat_template=template,
            )
            requests = made if isinstance(made, list) else [made]
            result[question.id] = sorted(requests, key=lambda request: request.idx)
    return result
