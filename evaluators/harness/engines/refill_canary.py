"""Whether an engine answers by new weights: tried at its start, away from any real model."""

from __future__ import annotations

import math
from typing import Any

import torch

from evaluators.harness.engines.inference_engine import InferenceEngine, Prompt
from evaluators.protocol import EvaluatorError

PROMPTS, SHARED, ANSWER = 8, 400, 8
"""Prompts, tokens that they begin with alike (blocks of a cache among them), tokens of answers."""

WRONG = 0.1
"""Most of an answer's distance from another model's that rounding may bring."""


def check_refill(engine: InferenceEngine, model: Any, *, longest: int, rows: int) -> None:
    """Fill a model twice and compare what an engine writes with a forward pass of the second.

    The second differs from the first in every weight: what is kept of the first (keys and values
    of a prompt, a packed copy of a head) gives other answers.

    Args:
        engine: Told of every change of the weights.
        model: The resident model; its weights are overwritten.
        longest: Tokens of the longest prompt with its answer.
        rows: Most answers under way at a time.

    Raises:
        EvaluatorError: If the engine's answers are not those of the second weights.
    """
    source = torch.Generator().manual_seed(0)
    words = model.config.get_text_config().vocab_size
    most = min(ANSWER, max(1, longest // 4))
    own = max(1, min(8, longest // 4))
    shared = torch.randint(words, (max(1, min(SHARED, longest - most - own)),), generator=source)
    prompts = [
        torch.cat([shared, torch.randint(words, (own,), generator=source)]).tolist()
        for _ in range(PROMPTS)
    ]
    asked = [Prompt(tokens=prompt, over=lambda _: False) for prompt in prompts]
    written = []
    for seed in (1, 2):
        _draw(model, seed)
        engine.refill()
        written.append(engine.answers(model, asked, most=most, rows=rows, penalty=1.0))
    earlier, now = (_regret(model, prompts, answers) for answers in written)
    if not now <= WRONG * earlier:
        raise EvaluatorError(
            [
                "harness.engine: expected an engine that answers by the weights it is given, got "
                f"answers {now:.3g} nats a token from the likeliest after other weights were "
                f"loaded (those of the weights before: {earlier:.3g}); take continuous or static"
            ]
        )


def _draw(model: Any, seed: int) -> None:
    """Weights that make a lively model: what it says next hangs on all that it reads."""
    with torch.no_grad():
        for at, parameter in enumerate(model.parameters()):
            source = torch.Generator(parameter.device).manual_seed(10_000 * seed + at)
            spread = math.sqrt(3 / parameter.shape[-1]) if parameter.dim() > 1 else 0.1
            drawn = torch.empty_like(parameter).uniform_(-spread, spread, generator=source)
            parameter.copy_(drawn if parameter.dim() > 1 else drawn + 1)


def _regret(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> float:
    """Nats a token that answers are from the likeliest tokens, on average."""
    ids = torch.tensor(
        [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
        device=model.device,
    )
    count = len(answers[0])
    with torch.inference_mode():
        logits = model(ids[:, :-1], logits_to_keep=count).logits.float()
    taken = logits.gather(-1, ids[:, -count:, None])[..., 0]
    return float((logits.amax(dim=-1) - taken).mean())
