"""The arithmetic of the merge methods, on one tensor at a time.

Inputs of any float dtype are read as float32, merged chunk by chunk, and cast once on the way
out. Elements are merged by single multiplications, additions and divisions of float32 numbers (no
fused multiply-add), and whole tensors are summed in one fixed order, so that a result has the same
bits for any chunk size and thread count. Formulas: docs/methods.md.

Each method has two parts: from statistics of the whole tensors and the parameters to coefficients,
thresholds or factors, and from these to the result, elementwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from merging.methods import entrywise_methods
from merging.methods.delta_functions import delta_function
from merging.methods.linear_combination import combination
from merging.methods.operands import Kernel, Operands
from merging.methods.task_vectors import task_vectors
from spaces.catalogue.method import Combination, DeltaFunction, Method, TaskVectors
from spaces.catalogue.method_catalogue import METHODS

__all__ = ["CPU_CHUNK", "DEVICE_CHUNK", "KERNELS", "Kernel", "Operands", "combine", "flattened"]

CPU_CHUNK = 1 << 17
"""Elements at a time on a CPU: the working set stays in the cache."""
DEVICE_CHUNK = 1 << 24
"""Elements at a time elsewhere: large enough to fill the device."""


def combine(
    method: str, operands: Operands, *, out: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Merge one tensor.

    Args:
        method: Name in ``spaces.catalogue.method_catalogue.METHODS``.
        operands: Inputs and resolved parameters.
        out: Contiguous tensor to overwrite, any float dtype and device; computing happens on its
            device. ``None`` makes a float32 one on the device of the first input.
        chunk: Elements at a time; the result does not depend on it. ``None`` suits the device.

    Returns:
        ``out``.

    Raises:
        ValueError: If shapes differ, or ``out`` is not contiguous.
    """
    tensors = [*operands.inputs, *([] if operands.base is None else [operands.base])]
    if out is None:
        out = torch.empty_like(
            tensors[0], dtype=torch.float32, memory_format=torch.contiguous_format
        )
    shapes = {tuple(tensor.shape) for tensor in (*tensors, out)}
    if len(shapes) > 1:
        raise ValueError(f"{method}: expected tensors of one shape, got {sorted(shapes)}")
    if not out.is_contiguous():
        raise ValueError(f"{method}: expected a contiguous output, got strides {out.stride()}")
    flat = flattened(operands, out.shape, chunk=chunk)
    size = chunk or (CPU_CHUNK if out.device.type == "cpu" else DEVICE_CHUNK)
    if out.numel():
        KERNELS[method](flat, out.detach().view(-1), size)
    return out


def flattened(operands: Operands, shape: Sequence[int], *, chunk: int | None) -> Operands:
    """The operands as kernels take them: every tensor as one line.

    Args:
        operands: Tensors of one shape, and parameters.
        shape: Of the output.
        chunk: Elements at a time that the caller asked for.
    """
    return Operands(
        inputs=[tensor.detach().reshape(-1) for tensor in operands.inputs],
        base=None if operands.base is None else operands.base.detach().reshape(-1),
        per_input=operands.per_input,
        shared=operands.shared,
        masks=operands.masks,
        shape=tuple(shape),
        asked_chunk=chunk,
    )


def _kernel(method: Method) -> Kernel:
    """The kernel of a method, by the form of its arithmetic."""
    match method.arithmetic:
        case Combination() as arithmetic:
            return combination(arithmetic)
        case TaskVectors() as arithmetic:
            return task_vectors(arithmetic)
        case DeltaFunction() as arithmetic:
            return delta_function(method, arithmetic)
        case None:
            found: Kernel = getattr(entrywise_methods, method.name)
            return found


KERNELS: Mapping[str, Kernel] = {name: _kernel(method) for name, method in METHODS.items()}
"""The method's arithmetic by name."""
