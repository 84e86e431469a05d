"""What is said of dtypes that a processor computes slowly."""

from __future__ import annotations

import pytest
import torch

from evaluators.resident_models.devices.half_precision import slow_note


@pytest.mark.parametrize(
    ("dtype", "processor", "said"),
    [
        ("bfloat16", "AVX2", True),
        ("float16", "AVX2", True),
        ("float32", "AVX2", False),
        ("bfloat16", "AVX512", False),
        ("bfloat16", "DEFAULT", False),
    ],
)
def test_half_precision_is_slow_on_some(
    monkeypatch: pytest.MonkeyPatch, dtype: str, processor: str, said: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    assert ("set output.dtype: float32" in slow_note(dtype)) is said
