"""Methods that are one function: what it is given, and what becomes of what it gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from merging.methods.delta_functions import delta_function
from merging.methods.operands import Operands
from spaces.catalogue.merge_method import merge_method, parameter
from spaces.catalogue.method import DeltaFunction, Kind, Method
from spaces.catalogue.shared_parameters import DENSITY, WEIGHT


def made(method: Method, inputs: list[Tensor], **operands: Any) -> Tensor:
    """What the method makes of tensors, in chunks of a block."""
    assert isinstance(method.arithmetic, DeltaFunction)
    shape = inputs[0].shape
    flat = Operands(inputs=[one.flatten() for one in inputs], shape=tuple(shape), **operands)
    out = torch.empty(inputs[0].numel())
    delta_function(method, method.arithmetic)(flat, out, 4096)
    return out.view(shape)


def test_weights_broadcast_over_entries() -> None:
    @merge_method(source="none")
    def weighted(deltas: Any, weight: Any = WEIGHT) -> Any:
        assert weight.shape == (len(deltas), 1)
        return (weight * deltas).sum(dim=0)

    base = torch.zeros(5000)
    found = made(weighted, [base + 1, base + 2], base=base, per_input={"weight": [0.5, 0.25]})
    assert torch.equal(found, torch.ones(5000))
    assert weighted.drawn == ("weight",)


def test_a_whole_tensor_keeps_its_shape_and_inputs_their_values() -> None:
    @merge_method(source="none", base=False, whole=True, least=2)
    def lines(inputs: Any, largest: bool = parameter(True, meaning="of each row")) -> Any:
        assert inputs.shape == (2, 3, 4000)
        best = inputs.abs().amax(dim=2, keepdim=True)
        return (inputs / best).mean(dim=0) if largest else inputs[0]

    one = torch.arange(1.0, 12001.0).view(3, 4000)
    assert torch.equal(made(lines, [one, one]), one / one[:, -1:])
    assert torch.equal(made(lines, [one, one], shared={"largest": False}), one)
    assert lines.whole_inputs
    assert (lines.min_inputs, lines.drawn) == (2, ())
    assert lines.parameters[0].kind is Kind.FLAG


def test_what_has_another_shape_is_refused() -> None:
    @merge_method(source="none", base=False)
    def first(inputs: Any) -> Any:
        return inputs

    with pytest.raises(ValueError, match=r"first: expected a tensor of shape \[8\], got \[1, 8\]"):
        made(first, [torch.ones(8)])


def test_arguments_that_are_no_parameters_are_refused() -> None:
    def no_parameter(deltas: Any, strength: float = 1.0) -> Any: ...

    def other_name(deltas: Any, share: Any = DENSITY) -> Any: ...

    def out_of_range(
        deltas: Any, x: Any = parameter(1.0, low=0.0, search=(-1.0, 1.0), meaning="x")
    ) -> Any: ...

    def no_logarithm(
        deltas: Any, x: Any = parameter(1.0, log=True, search=(0.0, 1.0), meaning="x")
    ) -> Any: ...

    for function, said in (
        (no_parameter, r"no_parameter: expected strength=parameter\(\.\.\.\), got 1\.0"),
        (other_name, "other_name: expected density as the name of share"),
        (out_of_range, r"a value in \[0, inf\), got -1 to 1"),
        (no_logarithm, "expected a search of x above 0 for log=True"),
    ):
        with pytest.raises(ValueError, match=said):
            merge_method(source="none")(function)
