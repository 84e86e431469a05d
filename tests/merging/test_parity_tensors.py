"""Single tensors of every rank by every method and flag, against mergekit's own functions.

The random methods are compared given the same random numbers: mergekit's draws are replaced by the
numbers that our masks are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from mergekit.merge_methods import merge_tensors
from torch import Tensor

from merging.kernels import random_masks
from merging.kernels.random_masks import MaskKey
from merging.methods.method_registry import Operands, combine
from spaces.catalogue.method_catalogue import METHODS, BaseRule, Scope

SHAPES = [(7,), (64,), (48, 65), (3, 5, 7)]
TASK_VECTORS = [name for name, found in METHODS.items() if found.parameter("lambda")]
WEIGHTS = [(0.7, 0.4, 0.5), (0.7, -0.3, 0.5), (0.9, 0.0, 0.3), (0.5, -0.5, 0.0)]


def tensors(shape: tuple[int, ...], spread: float = 0.01) -> tuple[Tensor, list[Tensor]]:
    """A base, and three models near it."""
    noise = torch.Generator().manual_seed(len(shape))
    base = torch.randn(shape, generator=noise) * 0.02
    return base, [base + torch.randn(shape, generator=noise) * spread for _ in range(3)]


def compare(
    method: str, base: Tensor | None, inputs: Sequence[Tensor], **values: Any
) -> tuple[Tensor, Tensor]:
    """Our result and mergekit's; values of one number per input are lists."""
    found = METHODS[method]
    given = {p.name: p.default for p in found.parameters if p.default is not None}
    given |= {name.rstrip("_"): value for name, value in values.items()}
    each = {
        p.name: given[p.name] if isinstance(given[p.name], list) else [given[p.name]] * len(inputs)
        for p in found.parameters
        if p.scope is Scope.INPUT
    }
    shared = {p.name: given[p.name] for p in found.parameters if p.scope is Scope.MERGE}
    keys = [MaskKey(seed=5, model=str(at), tensor="x") for at in range(len(inputs))]
    ours = combine(
        method, Operands(inputs=inputs, base=base, per_input=each, shared=shared, masks=keys)
    )
    listed = [*inputs, *([] if base is None else [base])]
    of_base = len(inputs) if base is not None else None
    theirs = merge_tensors(
        listed,
        method,
        parameters={**shared, **{name: dict(enumerate(row)) for name, row in each.items()}},
        ids=list(range(len(listed))),
        base_index=0 if found.base is BaseRule.ENDPOINT else of_base,
    )
    return ours, theirs


def check(method: str, base: Tensor | None, inputs: Sequence[Tensor], **values: Any) -> None:
    ours, theirs = compare(method, base, inputs, **values)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.fixture
def our_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """mergekit's draws use our uniform numbers, input after input."""

    def keys() -> Iterator[MaskKey]:
        yield from (MaskKey(seed=5, model=str(at), tensor="x") for at in range(3))

    upcoming = keys()

    def bernoulli(probabilities: Tensor) -> Tensor:
        numbers = random_masks.uniform(next(upcoming), start=0, stop=probabilities.numel())
        uniform = numbers.double().view(probabilities.shape) / 2**24
        return (uniform < probabilities.double()).to(probabilities.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)


@pytest.mark.usefixtures("our_numbers")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("method", TASK_VECTORS)
def test_task_vectors(
    method: str, weights: tuple[float, ...], rescale: bool, normalize: bool, shape: tuple[int, ...]
) -> None:
    base, inputs = tensors(shape)
    check(
        method,
        base,
        inputs,
        weight=list(weights),
        density=[0.4, 0.6, 0.7],
        lambda_=0.8,
        normalize=normalize,
        rescale=rescale,
    )


@pytest.mark.usefixtures("our_numbers")
@pytest.mark.parametrize("method", TASK_VECTORS)
def test_task_vectors_with_density_one_for_some(method: str) -> None:
    base, inputs = tensors((24, 31))
    check(method, base, inputs, weight=[0.7, -0.3, 0.5], density=[0.5, 0.6, 1.0])


@pytest.mark.usefixtures("our_numbers")
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_with_any_epsilon(method: str, epsilon: float) -> None:
    base, inputs = tensors((24, 31))
    check(method, base, inputs, weight=0.5, density=0.5, epsilon=epsilon)


@pytest.mark.parametrize("gamma", [0.0, 0.005, 0.3, 1.0])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.99])
@pytest.mark.parametrize("shape", SHAPES)
def test_breadcrumbs(gamma: float, density: float, shape: tuple[int, ...]) -> None:
    """Also where no entry is an outlier, and where none is left."""
    base, inputs = tensors(shape)
    for method in ("breadcrumbs", "breadcrumbs_ties"):
        check(method, base, inputs, weight=0.5, density=density, gamma=gamma)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "flags",
    [{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}],
)
@pytest.mark.parametrize("weights", [(0.3, 0.9), (1.0, 0.0), (1.3, -0.4), (0.5, -0.5), (0.0, 0.0)])
def test_nuslerp(
    shape: tuple[int, ...], flags: dict[str, bool], weights: tuple[float, ...]
) -> None:
    base, inputs = tensors(shape)
    for start in (base, None):
        check("nuslerp", start, inputs[:2], weight=list(weights), **flags)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS[:3])
def test_multislerp(shape: tuple[int, ...], normalize: bool, weights: tuple[float, ...]) -> None:
    base, inputs = tensors(shape)
    for start in (base, None):
        values = {"weight": list(weights), "normalize_weights": normalize}
        check("multislerp", start, inputs, **values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.001, 0.01, 1.0])
def test_karcher(shape: tuple[int, ...], spread: float) -> None:
    _, inputs = tensors(shape, spread)
    check("karcher", None, inputs)
    check("karcher", None, [*inputs, torch.zeros(shape)], max_iter=3, tol=1e-6)
    check("karcher", None, [torch.zeros(shape)] * 2)
    check("karcher", None, inputs[:1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [1e-5, 0.01])
def test_model_stock(shape: tuple[int, ...], spread: float) -> None:
    base, inputs = tensors(shape, spread)
    for flag in (True, False):
        check("model_stock", base, inputs, filter_wise=flag)
        check("model_stock", base, inputs[:2], filter_wise=flag)
        check("model_stock", base, [base, inputs[0]], filter_wise=flag)
        check("model_stock", base, [base + 0.5, base - 0.5], filter_wise=flag)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("topk", [0.0, 0.01, 0.5, 1.0])
def test_sce(shape: tuple[int, ...], topk: float) -> None:
    for spread in (1e-4, 0.01, 1.0):
        base, inputs = tensors(shape, spread)
        check("sce", base, inputs, select_topk=topk)
        check("sce", base, [base, base, inputs[0]], select_topk=topk)
        check("sce", base, [inputs[0]] * 3, select_topk=topk)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epsilon", [0.0, 0.005, 10.0])
def test_ram(shape: tuple[int, ...], epsilon: float) -> None:
    base, inputs = tensors(shape)
    inputs[1] = torch.where(inputs[0] > 0, base, inputs[1])
    check("ram", base, inputs, epsilon=epsilon)
    for r, alpha in ((0.1, 0.2), (2.0, 5.0), (-0.5, 0.0)):
        check("ramplus_tl", base, inputs, epsilon=epsilon, r=r, alpha=alpha)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("t", [0.0, 1e-6, 0.004, 1.0])
def test_nearswap(shape: tuple[int, ...], t: float) -> None:
    base, inputs = tensors(shape)
    inputs[0].flatten()[0] = base.flatten()[0]
    check("nearswap", None, [base, inputs[0]], t=t)


@pytest.mark.parametrize("shape", [*SHAPES, (300, 400)])
@pytest.mark.parametrize("spread", [0.001, 0.01, 1.0])
def test_arcee_fusion(shape: tuple[int, ...], spread: float) -> None:
    """In float64, where mergekit's rounding is below ours: the same entries are taken."""
    base, inputs = tensors(shape, spread)
    ours = combine("arcee_fusion", Operands(inputs=[base, inputs[0]]))
    theirs = merge_tensors([base.double(), inputs[0].double()], "arcee_fusion", base_index=0)
    assert len(shape) < 2 or not torch.equal(ours, base)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", WEIGHTS[:3])
def test_first_ones(shape: tuple[int, ...], weights: tuple[float, ...]) -> None:
    base, inputs = tensors(shape)
    for flag in (True, False):
        check("linear", None, inputs, weight=list(weights), normalize=flag)
    for t in (-0.2, 0.0, 0.4, 1.0):
        check("slerp", None, [base, inputs[0]], t=t)
    check("passthrough", None, inputs[:1], scale=-0.7)
