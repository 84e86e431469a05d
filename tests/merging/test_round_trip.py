"""Weights quantised on load: against the formulas, and against what is read of quantised files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from merging.checkpoints.quantisation import round_trip
from merging.checkpoints.quantisation.round_trip import KINDS, NF4, quantise
from merging.checkpoints.quantisation.storage_kinds import METHODS
from tests.merging import quantisers


def weights(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) * 0.02


def left(weight: Tensor, kind: str) -> Tensor:
    copy = weight.clone()
    quantise(copy, kind)
    return copy


@pytest.mark.parametrize("columns", [128, 96])
def test_nf4_is_what_bitsandbytes_stores(columns: int) -> None:
    """Its nearest level of sixteen, found by another way, and read as a stored weight is."""
    weight = weights(32, columns)
    stored, _, state = quantisers.four_bit(weight, "nf4", quantisers.NF4)
    kind = METHODS["bitsandbytes"][0]
    parts = {"weight": "weight", "scale": "weight.absmax", "map": "weight.quant_map"}
    read = kind.run({role: stored[name] for role, name in parts.items()}, state)
    assert torch.equal(left(weight, "nf4"), read)
    assert quantisers.NF4 == NF4


def test_int8_is_what_bitsandbytes_stores() -> None:
    weight = weights(32, 80)
    stored, expected = quantisers.llm_int8(weight)
    parts = {"weight": stored["weight"], "scale": stored["SCB"]}
    found = left(weight, "int8")
    torch.testing.assert_close(found, METHODS["bitsandbytes"][1].run(parts, {}), rtol=1e-6, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_fp8_has_a_scale_for_each_row() -> None:
    weight = weights(32, 80)
    for row, found in zip(weight, left(weight, "fp8"), strict=True):
        scale = row.abs().max() / 448
        assert torch.equal(found, (row / scale).to(torch.float8_e4m3fn).float() * scale)


@pytest.mark.parametrize(("kind", "most"), [("nf4", 0.16), ("int8", 0.5 / 127), ("fp8", 0.04)])
def test_what_is_lost_is_bounded(kind: str, most: float) -> None:
    """No number moves by more than half the widest step, relative to the largest of its row."""
    weight = weights(48, 128)
    weight[7] = 0.0
    found = left(weight, kind)
    largest = weight.abs().amax(dim=1, keepdim=True)
    assert ((found - weight).abs() <= most * largest * 1.0001).all()
    assert not torch.equal(found, weight)
    assert torch.equal(found[7], weight[7])
    torch.testing.assert_close(left(found, kind), found, rtol=1e-6, atol=0)  # nothing more to lose


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_layouts_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weights(200, 30).bfloat16()
    whole = left(weight, kind)
    assert whole.dtype == torch.bfloat16
    monkeypatch.setattr(round_trip, "CHUNK", 1)
    assert torch.equal(left(weight, kind), whole)
    turned = weight.T.contiguous()
    quantise(turned.T, kind)
    assert torch.equal(turned.T, whole)
