"""The arithmetic on single tensors: hand-worked vectors, and equal bits however it is cut up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from merging.kernels import random_masks
from merging.kernels.random_masks import MaskKey
from merging.methods.method_registry import KERNELS, Operands, combine
from spaces.catalogue.linear_coefficients import slerp_coefficients
from spaces.catalogue.method_catalogue import METHODS

A = torch.tensor([1.0, -2.0, 0.5])
B = torch.tensor([-3.0, 1.0, 0.5])


def vectors(method: str, *, weight: list[float], normalize: bool, strength: float = 1.0) -> Tensor:
    return combine(
        method,
        Operands(
            inputs=[A, B],
            base=torch.zeros(3),
            per_input={"weight": weight, "density": [1.0, 1.0]},
            shared={"normalize": normalize, "lambda": strength, "rescale": False},
            masks=[MaskKey(seed=0, model=name, tensor="x") for name in "ab"],
        ),
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (vectors("ties", weight=[1, 1], normalize=True), [-3, -2, 0.5]),
        (vectors("ties", weight=[0.2, 0.8], normalize=True), [-3, 1, 0.5]),
        (vectors("dare_ties", weight=[0.2, 0.8], normalize=False), [-2.4, 0.8, 0.5]),
        (vectors("task_arithmetic", weight=[1, 1], normalize=False, strength=0.5), [-1, -0.5, 0.5]),
        (vectors("dare_linear", weight=[1, 1], normalize=False, strength=0.5), [-1, -0.5, 0.5]),
        (vectors("task_arithmetic", weight=[1, 3], normalize=True), [-2, 0.25, 0.5]),
        (vectors("linear", weight=[1, 3], normalize=True), [-2, 0.25, 0.5]),
        (vectors("linear", weight=[1, 3], normalize=False), [-8, 1, 2]),
    ],
)
def test_hand_worked(made: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(made, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(
    ("start", "end", "t", "expected"),
    [
        ([2.0, 0.0], [0.0, 1.0], 0.5, [1.4142, 0.7071]),
        ([1.0, 0.0], [0.0, 1.0], 0.25, [0.9239, 0.3827]),
        ([1.0, 0.0], [0.0, 1.0], 0.0, [1.0, 0.0]),
        ([1.0, 0.0], [0.0, 1.0], 1.0, [0.0, 1.0]),
        ([1.0, 0.0], [2.0, 0.0], 0.5, [1.5, 0.0]),  # parallel: a straight line
        ([1.0, 0.0], [-1.0, 0.0], 0.25, [0.5, 0.0]),  # opposite: too
        ([0.0, 0.0], [3.0, 0.0], 0.5, [2.1213, 0.0]),  # no direction: cosine 0
    ],
)
def test_slerp(start: list[float], end: list[float], t: float, expected: list[float]) -> None:
    inputs = [torch.tensor(start), torch.tensor(end)]
    made = combine("slerp", Operands(inputs=inputs, shared={"t": t}))
    torch.testing.assert_close(made, torch.tensor(expected), atol=5e-5, rtol=0)


def test_slerp_with_one_input_is_that_input() -> None:
    assert torch.equal(combine("slerp", Operands(inputs=[A], shared={"t": 0.3})), A)


@given(t=st.floats(0, 1), angle=st.floats(0.05, 3.0))
def test_slerp_keeps_the_norm(t: float, angle: float) -> None:
    gram = [[1.0, math.cos(angle)], [math.cos(angle), 1.0]]
    first, second = slerp_coefficients(gram, t=t)
    norm = first**2 + second**2 + 2 * first * second * math.cos(angle)
    assert norm == pytest.approx(1.0, abs=1e-9)


def test_passthrough_scales() -> None:
    made = combine("passthrough", Operands(inputs=[A], per_input={"scale": [-0.5]}))
    assert made.tolist() == [-0.5, 1.0, -0.25]


def test_rescale_gives_back_the_norm() -> None:
    delta = torch.tensor([1.0, 1.0, 2.0, 4.0])
    made = combine(
        "ties",
        Operands(
            inputs=[delta],
            base=torch.zeros(4),
            per_input={"weight": [1.0], "density": [0.5]},
            shared={"rescale": True, "normalize": False},
        ),
    )
    torch.testing.assert_close(made, torch.tensor([0.0, 0.0, 8 / 3, 16 / 3]))


def test_rescale_under_a_random_mask() -> None:
    """The norm of what was there, not one over the density: with the mask 1, 0, 1, 0 times 8/3."""
    keys = (MaskKey(seed=seed, model="a", tensor="x") for seed in range(1000))
    drawn = ((key, random_masks.keep(key, density=0.5, start=0, stop=4).tolist()) for key in keys)
    found = next(key for key, mask in drawn if mask == [1, 0, 1, 0])
    operands = Operands(
        inputs=[torch.tensor([1.0, 1.0, 2.0, 4.0])],
        base=torch.zeros(4),
        per_input={"weight": [1.0], "density": [0.5]},
        shared={"rescale": True, "normalize": False},
        masks=[found],
    )
    expected = torch.tensor([8 / 3, 0.0, 16 / 3, 0.0])
    torch.testing.assert_close(combine("dare_linear", operands), expected)


def test_no_rescale_where_nothing_is_left() -> None:
    made = combine(
        "dare_linear",
        Operands(
            inputs=[torch.zeros(8)],
            base=torch.ones(8),
            per_input={"weight": [1.0], "density": [2.0**-24]},
            shared={"rescale": True},
            masks=[MaskKey(seed=0, model="a", tensor="x")],
        ),
    )
    assert torch.equal(made, torch.ones(8))


def test_votes_that_cancel_count_as_plus() -> None:
    inputs = [torch.tensor([2.0]), torch.tensor([-2.0])]
    operands = Operands(inputs=inputs, base=torch.zeros(1), per_input={"weight": [1.0, 1.0]})
    assert combine("ties", operands).tolist() == [2.0]


def test_weights_that_cancel_do_not_divide() -> None:
    operands = Operands(
        inputs=[A, A],
        base=torch.zeros(3),
        per_input={"weight": [1.0, -1.0]},
        shared={"normalize": True},
    )
    assert combine("ties", operands).isfinite().all()
    assert combine("task_arithmetic", operands).tolist() == [0.0, 0.0, 0.0]


def test_every_method_has_a_kernel() -> None:
    assert KERNELS.keys() == METHODS.keys()


def random_operands(method: str, count: int, dtype: torch.dtype = torch.bfloat16) -> Operands:
    """Inputs near a base; coarse bfloat16 deltas, so many magnitudes are equal."""
    noise = torch.Generator().manual_seed(count)
    base = torch.randn(count, generator=noise).mul_(0.02).to(dtype)
    inputs = [(base + torch.randn(count, generator=noise) * 0.01).to(dtype) for _ in range(3)]
    number = METHODS[method].max_inputs or 3
    return Operands(
        inputs=inputs[:number],
        base=base if METHODS[method].base.apart else None,
        per_input={
            "weight": [0.7, -0.3, 0.5][:number],
            "density": [0.3, 0.6, 1.0][:number],
            "epsilon": [0.1, 0.2, 0.3][:number],
            "gamma": [0.05, 0.0, 0.1][:number],
            "scale": [0.8][:number],
        },
        shared={
            "t": 0.3 if method == "slerp" else 0.005,
            "lambda": 0.9,
            "normalize": True,
            "rescale": True,
            "select_topk": 0.4,
            "epsilon": 0.004,
        },
        masks=[MaskKey(seed=3, model=name, tensor="x") for name in "abc"[:number]],
    )


def tensors_of(operands: Operands) -> list[Tensor]:
    return [*operands.inputs, *([] if operands.base is None else [operands.base])]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 7, 4096, 3 * 4096 + 17, 50_000])
def test_same_bits_for_any_chunk(method: str, count: int) -> None:
    operands = random_operands(method, count)
    whole = combine(method, operands, chunk=1 << 20)
    for chunk in (1, 5000, 8192):
        assert torch.equal(whole, combine(method, operands, chunk=chunk))


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", METHODS)
def test_same_bits_for_any_number_of_threads(method: str, threads: Any) -> None:
    operands = random_operands(method, 200_000)
    threads(1)
    alone = combine(method, operands, chunk=1 << 20)
    threads(2)
    assert torch.equal(alone, combine(method, operands, chunk=1 << 20))


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_left_alone(method: str) -> None:
    operands = random_operands(method, 5000, torch.float32)
    before = [tensor.clone() for tensor in tensors_of(operands)]
    combine(method, operands)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(operands), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_cast_once_at_the_end(method: str) -> None:
    operands = random_operands(method, 3000)
    wide = combine(method, operands)
    narrow = combine(method, operands, out=torch.empty(3000, dtype=torch.float16))
    assert wide.dtype == torch.float32
    assert torch.equal(wide.to(torch.float16), narrow)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_weights_stay_visible(method: str, bad: float) -> None:
    operands = random_operands(method, 5000, torch.float32)
    operands.inputs[0][4321] = bad
    if METHODS[method].random:  # the entry may be dropped, but its norm is not a number
        assert not combine(method, operands).isfinite().all()
        return
    assert not combine(method, operands)[4321].isfinite()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
@pytest.mark.parametrize("method", METHODS)
def test_shapes(method: str, shape: tuple[int, ...]) -> None:
    operands = random_operands(method, math.prod(shape))
    made = combine(method, reshaped(operands, shape))
    assert made.shape == shape
    if method in BY_ROWS and len(shape) > 1:
        assert made.isfinite().all()
    else:
        assert torch.equal(made, combine(method, operands).view(shape))


def reshaped(operands: Operands, shape: tuple[int, ...]) -> Operands:
    return replace(
        operands,
        inputs=[tensor.view(shape) for tensor in operands.inputs],
        base=None if operands.base is None else operands.base.view(shape),
    )


ROWS = [
    ("della", {}),
    ("della_linear", {}),
    ("arcee_fusion", {}),
    ("model_stock", {"filter_wise": True}),
    ("nuslerp", {"nuslerp_flatten": False}),
    ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
]
BY_ROWS = {"della", "della_linear", "arcee_fusion"}


@pytest.mark.parametrize(("method", "flags"), ROWS)
@pytest.mark.parametrize("shape", [(4096, 3), (3, 4096), (7, 11, 13)])
def test_rows_have_the_same_bits_for_any_chunk(
    method: str, flags: dict[str, bool], shape: tuple[int, ...]
) -> None:
    plain = random_operands(method, math.prod(shape))
    operands = replace(reshaped(plain, shape), shared={**plain.shared, **flags})
    whole = combine(method, operands, chunk=1 << 20)
    for chunk in (1, 1000, 8192):
        assert torch.equal(whole, combine(method, operands, chunk=chunk))
    assert not torch.equal(whole, combine(method, plain).view(shape))


def test_strided_inputs() -> None:
    first, second = torch.randn(6, 4).t(), torch.randn(4, 6)
    made = combine("linear", Operands(inputs=[first, second], per_input={"weight": [1.0, 3.0]}))
    torch.testing.assert_close(made, first * 0.25 + second * 0.75)


def test_shapes_must_agree() -> None:
    operands = Operands(inputs=[A, torch.zeros(4)], per_input={"weight": [1.0, 1.0]})
    with pytest.raises(ValueError, match=r"linear: expected tensors of one shape, got \[\(3,\)"):
        combine("linear", operands)


def test_output_must_be_contiguous() -> None:
    inputs = [torch.zeros(4, 3)]
    with pytest.raises(ValueError, match="expected a contiguous output"):
        combine("passthrough", Operands(inputs=inputs), out=torch.zeros(3, 4).t())


@settings(max_examples=60)
@given(
    count=st.integers(1, 300), density=st.floats(1e-4, 0.999), levels=st.sampled_from([1, 3, 10**6])
)
def test_ties_keeps_the_largest_and_of_equals_the_first(
    count: int, density: float, levels: int
) -> None:
    noise = torch.Generator().manual_seed(count)
    delta = torch.randint(1, levels + 1, (count,), generator=noise).float()
    delta *= torch.randint(0, 2, (count,), generator=noise) * 2 - 1
    made = combine(
        "ties",
        Operands(
            inputs=[delta],
            base=torch.zeros(count),
            per_input={"weight": [1.0], "density": [density]},
            shared={"normalize": True},
        ),
        chunk=1,
    )
    kept = max(1, int(density * count))
    largest = delta.abs().sort(descending=True, stable=True).indices[:kept]
    expected = torch.zeros(count)
    expected[largest] = delta[largest]
    assert torch.equal(made, expected)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_is_the_formula_with_our_mask(method: str) -> None:
    operands = random_operands(method, 20_000, torch.float32)
    assert operands.base is not None
    thinned = []
    for tensor, key, density, weight in zip(
        operands.inputs,
        operands.masks,
        operands.per_input["density"],
        operands.per_input["weight"],
        strict=True,
    ):
        delta = (tensor - operands.base).double()
        kept = delta * random_masks.keep(key, density=density, start=0, stop=20_000)
        factor = delta.abs().sum() / kept.abs().sum() if density < 1 else 1.0
        thinned.append(kept * factor * weight)
    stacked, weights = torch.stack(thinned), torch.tensor(operands.per_input["weight"])
    if method == "dare_ties":
        sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
        agree = stacked.sign() == sign
        divisor = (agree * weights[:, None]).sum(0)
        mixed = (stacked * agree).sum(0) / torch.where(divisor == 0, 1.0, divisor)
    else:
        mixed = stacked.sum(0) / weights.sum()
    expected = operands.base + 0.9 * mixed
    torch.testing.assert_close(combine(method, operands).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9])
def test_dare_keeps_the_fraction_and_the_norm(density: float) -> None:
    count = 40_000
    delta = torch.randn(count, generator=torch.Generator().manual_seed(1)) * 0.01
    made = combine(
        "dare_linear",
        Operands(
            inputs=[delta],
            base=torch.zeros(count),
            per_input={"weight": [1.0], "density": [density]},
            shared={"rescale": True},
            masks=[MaskKey(seed=7, model="math", tensor="x")],
        ),
    )
    deviation = abs(int(made.count_nonzero()) / count - density)
    assert deviation < 4 * math.sqrt(density * (1 - density) / count)
    norms = made.double().abs().sum() / delta.double().abs().sum()
    assert float(norms) == pytest.approx(1.0, abs=1e-4)


def test_every_method_and_parameter_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    for method in METHODS.values():
        assert f"\n## {method.name}\n" in text
        for parameter in method.parameters:
            assert f"| `{parameter.name}`" in text
