"""From an exception to the failure of one candidate."""

from __future__ import annotations

import traceback

import torch

from evaluators.protocol import Failure, FailureKind
from evaluators.resident_models.degeneracy import DegenerateError
from evaluators.resident_models.skeleton import ResidentError
from merging.building.output_checks import BuildError, NonFiniteError
from merging.checkpoints.checkpoint import CheckpointError
from merging.planning.merge_plan import PlanError
from spaces.recipes.recipe import RecipeError
from spaces.text.error_text import said

_FULL = (
    "can't allocate memory",  # on the CPU
    "CUDA error: out of memory",  # page-locked memory, code that is loaded when first used
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What torch says where memory ran out beside its own allocator for GPUs, which has a class."""

_BUILD = (PlanError, BuildError, ResidentError, CheckpointError, RecipeError)


class NonFiniteScoreError(ArithmeticError):
    """Logits, a likelihood or a score that is NaN or infinite."""


def failure_from(error: BaseException, *, other: FailureKind, fingerprint: str = "") -> Failure:
    """What went wrong with a candidate.

    Args:
        error: What was raised.
        other: Kind for what has no kind of its own.
        fingerprint: Hash of the merged weights if they were built.
    """
    if isinstance(error, NonFiniteError | NonFiniteScoreError | OverflowError):
        kind = FailureKind.NON_FINITE
    elif isinstance(error, DegenerateError):
        kind = FailureKind.DEGENERATE
    elif is_out_of_memory(error):
        kind = FailureKind.OUT_OF_MEMORY
    elif isinstance(error, _BUILD):
        kind = FailureKind.BUILD
    else:
        kind = other
    lines = [line.strip() for line in said(error).splitlines() if line.strip()]
    message = "; ".join(lines[:3]) or type(error).__name__
    if kind is other:
        message = f"{type(error).__name__}: {message}"
    return Failure(
        kind=kind,
        message=message,
        detail="".join(traceback.format_exception(error)),
        fingerprint=fingerprint,
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in said(error) for words in _FULL)


def device_is_lost(error: BaseException) -> bool:
    """Whether the GPU's context is gone: whatever this process asks of it will fail from now on."""
    lost = getattr(torch, "AcceleratorError", None)
    return lost is not None and isinstance(error, lost) and not is_out_of_memory(error)
