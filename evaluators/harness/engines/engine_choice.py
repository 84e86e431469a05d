"""Which engines there are, and which models each can run: told from configs, before any weight."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

STATIC, CONTINUOUS = "static", "continuous"

ENGINES = (STATIC, CONTINUOUS)
"""lm-eval's own batches, to its last bit; and the engine that computes nothing twice."""

PROVEN = ("gemma", "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")
"""Kinds of models (``model_type``) for which tests hold ``continuous`` to ``static``."""

_VERSION = "2"
"""Of ``continuous``; another one may give other last digits."""

_HEEDED = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "repetition_penalty"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("num_beams", "length_penalty", "early_stopping", "max_length", "max_new_tokens"),
    *("use_cache", "cache_implementation", "_from_model_config", "transformers_version"),
}
"""Settings of a model's own that engines heed, or that say nothing of the likeliest tokens."""


def engine_versions(engine: str) -> dict[str, str]:
    """What a study is bound to by its engine; ``static`` binds to nothing else."""
    if engine == STATIC:
        return {"engine": STATIC}
    return {
        "engine": f"{engine} {_VERSION}",
        "transformers": metadata.version("transformers"),
    }


def engine_problems(
    engine: str, configs: Mapping[str, Mapping[str, Any]], *, max_length: int | None
) -> list[str]:
    """Which models an engine cannot run, one line each.

    Args:
        engine: Its name.
        configs: Content of ``config.json`` by model.
        max_length: Longest text in tokens; ``None`` for what each model takes.
    """
    if engine not in ENGINES:
        return [f"harness.engine: expected one of {', '.join(ENGINES)}, got {engine!r}"]
    if engine == STATIC:
        return []
    found = {name: _unproven(config, max_length) for name, config in configs.items()}
    return [
        f"harness.engine: expected {STATIC} for model {name}, {why}, got {engine}"
        for name, why in found.items()
        if why
    ]


def _unproven(config: Mapping[str, Any], max_length: int | None) -> str:
    from transformers import AutoConfig

    kind = config.get("model_type")
    if kind not in PROVEN or "auto_map" in config:
        code = "with code of its own" if "auto_map" in config else f"a {kind}"
        return f"{code} (only {', '.join(PROVEN)} are proven)"
    made = AutoConfig.for_model(**config)
    window = getattr(made, "sliding_window", None)
    longest = max_length or made.max_position_embeddings
    if window is not None and window < longest:
        return f"which looks back {window} tokens of {longest} (harness.max_length: {window} does)"
    return ""


def takes_likeliest(settings: Any) -> bool:
    """Whether an engine can write under a model's own ``generation_config``."""
    return {key for key, value in settings.to_diff_dict().items() if value} <= _HEEDED
