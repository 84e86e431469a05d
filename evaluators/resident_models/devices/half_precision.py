"""What a processor computes slowly."""

from __future__ import annotations

import torch

HALVES = ("bfloat16", "float16")

WITHOUT_HALVES = "AVX2"
"""Processors on which torch emulates half precision: a model takes about five times as long."""


def slow_note(dtype: str) -> str:
    """What to know before models of a dtype are asked on this machine's CPU; may be empty."""
    if dtype not in HALVES or torch.backends.cpu.get_cpu_capability() != WITHOUT_HALVES:
        return ""
    return (
        f"models in {dtype} answer several times slower on this CPU than in float32: "
        "set output.dtype: float32"
    )
