"""Methods that are one function of the deltas: run over chunks, or whole tensors, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.kernels import dispatch
from merging.kernels.blocked_sums import load
from merging.kernels.chunks import spans
from merging.methods.operands import Kernel, Operands
from spaces.catalogue.method import DeltaFunction, Kind, Method, Scope


def delta_function(method: Method, arithmetic: DeltaFunction) -> Kernel:
    """The kernel of such a method.

    A pass of the native library that has its name takes its place: the rows of its table
    are then the method's parameters in their order.
    """

    def merge(operands: Operands, out: Tensor, chunk: int) -> None:
        if not arithmetic.whole and dispatch.has_native(method.name, out.device):
            rows = [_row(method, name, operands) for name in _names(method)]
            dispatch.merge(
                method.name,
                operands.inputs,
                operands.base,
                out,
                floats=rows,
                chunk=operands.asked_chunk,
            )
            return
        shape = operands.shape if arithmetic.whole else None
        everything = [(0, out.numel())]
        for start, stop in everything if arithmetic.whole else spans(out.numel(), chunk):
            deltas, origin = _deltas(operands, start, stop, out.device)
            deltas = deltas if shape is None else deltas.view(len(deltas), *shape)
            values = _values(method, operands, deltas)
            moved = arithmetic.function(deltas, **values)
            if not isinstance(moved, Tensor) or moved.shape != deltas.shape[1:]:
                raise ValueError(
                    f"{method.name}: expected a tensor of shape {list(deltas.shape[1:])}, got "
                    f"{list(moved.shape) if isinstance(moved, Tensor) else type(moved).__name__}"
                )
            # what is no number in an input must not get lost, whatever the function does with it
            moved = moved.where(deltas.isfinite().all(dim=0), torch.nan).reshape(-1)
            out[start:stop].copy_(moved if origin is None else origin + moved)

    return merge


def _names(method: Method) -> list[str]:
    return [spec.name for spec in method.parameters]


def _row(method: Method, name: str, operands: Operands) -> list[float]:
    """A parameter's values, one per input; its default where the operands have none."""
    spec = method.parameter(name)
    assert spec is not None
    if spec.scope is Scope.INPUT and name in operands.per_input:
        return list(operands.per_input[name])
    default = 1.0 if spec.default is None else float(spec.default)
    return [float(operands.shared.get(name, default))] * len(operands.inputs)


def _deltas(
    operands: Operands, start: int, stop: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Entries of the inputs, ``(k, m)`` float32, less those of the base where there is one."""
    inputs = torch.stack([load(one, start, stop, device) for one in operands.inputs])
    if operands.base is None:
        return inputs, None
    origin = load(operands.base, start, stop, device)
    return inputs.sub_(origin), origin


def _values(method: Method, operands: Operands, deltas: Tensor) -> dict[str, Tensor | float | bool]:
    """The parameters by name, those per input as a tensor that broadcasts over the deltas."""
    values: dict[str, Tensor | float | bool] = {}
    for spec in method.parameters:
        row = _row(method, spec.name, operands)
        if spec.scope is Scope.INPUT:
            column = torch.tensor(row, dtype=torch.float32, device=deltas.device)
            values[spec.name] = column.view(-1, *[1] * (deltas.dim() - 1))
        else:
            values[spec.name] = bool(row[0]) if spec.kind is Kind.FLAG else row[0]
    return values
