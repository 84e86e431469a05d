"""The loss of right answers with its gradient: what coefficients are learned from.

A question with a known right answer is one of two kinds. A text: the negative log-likelihood of its
tokens after the prompt, in nats per token. A choice: the negative log of the softmax over the
likelihoods of all choices, at the right one, in nats; so what makes every choice likelier counts
for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from evaluators.harness.answers.answer_losses import right_answer
from evaluators.harness.answers.requests import AskedTask
from evaluators.resident_models.candidate_failures import NonFiniteScoreError

Encode = Callable[[str, str], tuple[list[int], list[int]]]
"""The tokens of a prompt and of what follows it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTokens:
    """What a model reads to be judged on one question.

    Attributes:
        question: Its id.
        texts: Prompt and answer as tokens, one for each choice, or one for a written answer.
        starts: Where each answer begins.
        right: Which of the texts has the right answer.
    """

    question: str
    texts: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    right: int

    @property
    def length(self) -> int:
        """Tokens of the longest text."""
        return max(map(len, self.texts))

    @property
    def read(self) -> tuple[tuple[int, ...], ...]:
        """What goes through the model: all but each last token, where nothing follows.

        Choices of one token are thus all read off the prompt.
        """
        return tuple(dict.fromkeys(text[:-1] for text in self.texts))


def answers_of(
    task: AskedTask,
    position: int,
    requests: Sequence[Any],
    *,
    encode: Encode,
    most: int,
    thinks: bool = False,
    target: str | None = None,
) -> AnswerTokens | None:
    """What to judge a question by; ``None`` where no right answer is known.

    Args:
        task: The question's task.
        position: The question's document.
        requests: What is asked of the question, in order.
        encode: The model's tokenizer.
        most: Most tokens the model takes; more are cut off in front.
        thinks: Whether models are to think before they write: a reference has no thoughts.
        target: A text that was marked right; ``None`` takes the reference.
    """
    if target is not None:
        given = (requests[0].args[0], target)
        right = replace(requests[0], request_type="loglikelihood", arguments=given, resps=[])
    else:
        right = right_answer(task, position, requests)
        if right is None or right.request_type != "loglikelihood":
            return None
        if task.info.written and (thinks or not _is_marked_right(task, position, requests)):
            return None
    choices = [right]
    if task.task.OUTPUT_TYPE == "multiple_choice":
        choices = [one for one in requests if one.request_type == "loglikelihood"]
    at = next((n for n, one in enumerate(choices) if one.args == right.args), None)
    if at is None:
        return None
    texts, starts = [], []
    for one in choices:
        prompt, answer = encode(*one.args)
        text = (prompt + answer)[-most:]
        if not answer or len(answer) >= len(text):  # nothing to read before it
            return None
        texts.append(tuple(text))
        starts.append(len(text) - len(answer))
    return AnswerTokens(
        question=task.questions[position].id, texts=tuple(texts), starts=tuple(starts), right=at
    )


def _is_marked_right(task: AskedTask, position: int, requests: Sequence[Any]) -> bool:
    """Whether the reference would be marked right as a written answer, without a word before it.

    It would not where the task looks for the answer in a longer text: learning to write the bare
    reference would unlearn what leads to it.
    """
    target = task.task.doc_to_target(task.document(position))
    target = target[0] if isinstance(target, list | tuple) else target
    written = [replace(one, resps=[target], filtered_resps={}) for one in requests]
    task.filters.apply(written)
    given = task.task.process_results(
        task.document(position), [one.filtered_resps[task.filter] for one in written]
    ).get(task.metric)
    if isinstance(given, bool | int | float):
        return float(given) > 0 if task.info.higher_is_better else float(given) <= 0
    return True  # marks that mean something for a whole task only


def backward(
    model: Any,
    answers: Sequence[AnswerTokens],
    weights: Mapping[str, float],
    *,
    batch: int,
    device: torch.device,
) -> dict[str, float]:
    """Run forward and backward passes; gradients go to whoever collects them.

    Args:
        model: transformers' model, some of whose parameters need gradients.
        answers: The questions.
        weights: Factor of each question's loss in the sum that is differentiated; questions
            without one get forward passes only.
        batch: Sequences at a time, at least one question's.
        device: Where inputs go.

    Returns:
        The loss of every question.

    Raises:
        NonFiniteScoreError: If one is not finite.
    """
    found: dict[str, float] = {}
    learned = [one for one in answers if weights.get(one.question)]
    others = [one for one in answers if not weights.get(one.question)]
    for some in (*_batches(learned, batch), *_batches(others, batch)):
        learns = bool(weights.get(some[0].question))
        with torch.set_grad_enabled(learns):
            losses = _losses(model, some, device)
        for one, loss in zip(some, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise NonFiniteScoreError(f"question {one.question}: the loss is {loss}")
            found[one.question] = loss
        if not learns:
            continue
        factors = torch.tensor([weights[one.question] for one in some], device=losses.device)
        (losses * factors).sum().backward()  # type: ignore[no-untyped-call]
    return found


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Within it, the layers keep no activations: a backward pass computes them once more.

    Args:
        model: transformers' model in eval mode; one whose layers cannot do so stays as it is.
    """
    layers: list[Any]
    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    for layer in layers:
        layer._gradient_checkpointing_func = partial(_evaluated_twice, layer)
        layer.gradient_checkpointing = layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False


def _evaluated_twice(layer: Any, run: Callable[..., Any], *inputs: Any) -> Any:
    """A layer's pass, and the same again when its gradient is taken.

    transformers' layers do so in training only; what they run must not drop values all the same.
    """

    def evaluating(*given: Any) -> Any:
        layer.training = False
        try:
            return run(*given)
        finally:
            layer.training = True

    return checkpoint(evaluating, *inputs, use_reentrant=False)


def _batches(answers: Sequence[AnswerTokens], batch: int) -> Iterator[list[AnswerTokens]]:
    """Questions of like length together, longest first, so many sequences at a time."""
    some: list[AnswerTokens] = []
    for one in sorted(answers, key=lambda item: -item.length):
        if some and sum(len(item.read) for item in some) + len(one.read) > batch:
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _losses(model: Any, some: Sequence[AnswerTokens], device: torch.device) -> Tensor:
    """``(questions,)`` float32, with a graph."""
    rows: dict[tuple[int, ...], int] = {}
    for read in (read for one in some for read in one.read):
        rows.setdefault(read, len(rows))
    longest = max(map(len, rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for read, row in rows.items():  # padded behind: positions stay as they are
        ids[row, : len(read)] = torch.tensor(read)
        mask[row, : len(read)] = 1
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    sums, lengths = [], []
    for text, start in (pair for one in some for pair in zip(one.texts, one.starts, strict=True)):
        target = torch.tensor(text[start:], device=logits.device)
        said = logits[rows[text[:-1]], start - 1 : len(text) - 1].float()
        sums.append(cross_entropy(said, target, reduction="sum"))
        lengths.append(len(target))
    losses, at = [], 0
    for one in some:
        mine = torch.stack(sums[at : at + len(one.texts)])
        if len(one.texts) == 1:
            losses.append(mine[0] / lengths[at])
        else:
            losses.append(torch.logsumexp(-mine, dim=0) + mine[one.right])
        at += len(one.texts)
    return torch.stack(losses)
