"""Looking at what was merged: whether it is finite, and what it adds to the fingerprint."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.building.fingerprint import FEW, describe, seal, seals
from merging.building.tensor_sources import Want
from merging.planning.merge_plan import TensorJob


class BuildError(RuntimeError):
    """A plan that could not be carried out."""


class NoSpaceError(BuildError):
    """The disk has no room for the model."""


class NonFiniteError(BuildError):
    """Merged weights that are NaN or infinite.

    Attributes:
        tensor: Name of the first output tensor that has one.
        dtype: Of that tensor.
        cause: The parent's file and tensor that has one too, if there is such; begins with ": ".
    """

    def __init__(self, tensor: str, dtype: torch.dtype, cause: str = "") -> None:
        super().__init__(
            f"{tensor}: expected finite weights, got NaN or infinity "
            f"(in {str(dtype).removeprefix('torch.')}){cause}"
        )
        self.tensor = tensor
        self.dtype = dtype
        self.cause = cause

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, torch.dtype, str]]:
        return type(self), (self.tensor, self.dtype, self.cause)


class OutputChecks:
    """Checks what was made, and describes it for the fingerprint; small tensors some at a time."""

    def __init__(self, chunk: int | None) -> None:
        self.lines: list[str] = []
        self._chunk = chunk
        self._waiting: list[tuple[TensorJob, Want, Tensor]] = []
        self._entries = 0

    def add(self, job: TensorJob, want: Want, made: Tensor) -> None:
        """Take what was made; raises NonFiniteError as ``finish`` does."""
        self._waiting.append((job, want, made))
        self._entries += made.numel()
        if self._entries > FEW:  # while it is in the cache
            self.finish()

    def finish(self) -> None:
        """Look at all that was taken.

        Raises:
            NonFiniteError: If there is NaN or infinity; the first tensor of these is named.
        """
        found = seals([made for *_, made in self._waiting], chunk=self._chunk)
        for (job, want, made), one in zip(self._waiting, found, strict=True):
            if not one.finite:
                raise NonFiniteError(job.name, job.dtype, _cause(want))
            self.lines.append(describe(job.name, made, one.digest))
        self._waiting, self._entries = [], 0


def _cause(want: Want) -> str:
    """Which parent is to blame for a weight that is not finite; empty for none."""
    for source, tensor in want.stored.values():
        for checkpoint, name in source.made_of(tensor):
            found = checkpoint.tensor(name)
            if found.dtype.is_floating_point and not seal(found).finite:
                return f": model {checkpoint.name}: {checkpoint.file_of(name)}: {name} has one"
    return ""
