"""Passes compiled ahead of time into libraries, which are kept on disk and loaded when warmed up.

torch's compiler (AOTInductor) makes one library per variant, for any number of whole blocks and of
threads; a library cannot be compiled anew, and calling it costs a few microseconds.
Libraries lie in torch's code cache (``TORCHINDUCTOR_CACHE_DIR``), named by all they depend on.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import inspect
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging import choices, counters, looks, passes
from merging.looks import BLOCK, LOOKS
from merging.passes import AT_ONCE, FLOAT_ROWS, INT_ROWS, MERGES, RANKED, Merge

LOOK_FLOATS, LOOK_INTS = 3, 3
"""Lengths of the numbers that passes without output take."""

_NEVER = 1 << 20  # operations and reads after which the compiler keeps a result in memory

_OPTIONS: dict[str, Any] = {
    "aot_inductor.compile_wrapper_opt_level": "O0",  # its loops are elsewhere; half the time
    "cpp.dynamic_threads": True,
    "cpp.enable_floating_point_contract_flag": "off",  # a fused multiply-add rounds once, not twice
    "cpp.enable_unsafe_math_opt_flag": False,
    "emulate_precision_casts": True,
    "realize_opcount_threshold": _NEVER,
    "realize_reads_threshold": _NEVER,
    "realize_acc_reads_threshold": _NEVER,
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What code is compiled for.

    Attributes:
        name: Of the pass.
        inputs: Number of inputs that are merged, or of tensors that are looked at.
        read: Dtype of the inputs and the base.
        written: Dtype of the output; ``None`` for passes that only look.
    """

    name: str
    inputs: int
    read: torch.dtype
    written: torch.dtype | None = None


class FusedError(RuntimeError):
    """Passes that cannot be compiled on this machine; builds run eagerly then."""


Library = Callable[[list[Tensor]], Sequence[Tensor]]
"""A compiled pass: takes all tensors, of whole blocks, in the order of ``called``."""

_loaded: dict[Variant, Library] = {}  # of this process, like torch's own code cache


def warm_up(
    variants: Iterable[Variant], *, progress: Callable[[int, int], None] | None = None
) -> float:
    """Load passes, and compile what no process here has; to be called before the first trial.

    Args:
        variants: What will be run; see ``merging.warming``.
        progress: Called after each with the number done and the number of all.

    Returns:
        Seconds it took.

    Raises:
        FusedError: If there is no working compiler; nothing is lost but speed.
    """
    began, wanted = time.monotonic(), list(dict.fromkeys(variants))
    for done, variant in enumerate(wanted, start=1):
        if variant not in _loaded:
            try:
                _loaded[variant] = _load(variant)
            except Exception as error:  # whatever a broken compiler may raise
                cause = next(iter(str(error).splitlines()), type(error).__name__)
                raise FusedError(f"{variant.name}: cannot be compiled here ({cause})") from error
        if progress is not None:
            progress(done, len(wanted))
    return time.monotonic() - began


def try_warm_up(variants: Iterable[Variant]) -> bool:
    """As ``warm_up``; without a working compiler one warning, and whether there is one."""
    try:
        warm_up(variants)
    except FusedError as error:
        _log.warning("%s; models are built without it, several times slower", error)
        return False
    return True


def load(variants: Iterable[Variant]) -> list[Variant]:
    """Load the passes that are kept on disk; those that are not come back."""
    missing = []
    for variant in dict.fromkeys(variants):
        file = _file(variant)
        if variant not in _loaded and file.is_file():
            with contextlib.suppress(RuntimeError, OSError):  # cut off, or altered: not there
                _loaded[variant] = _opened(file)
        if variant not in _loaded:
            missing.append(variant)
    return missing


def cool_down() -> None:
    """Forget what was loaded in this process; builds run eagerly from here on."""
    _loaded.clear()


def loaded() -> list[Variant]:
    """What was loaded in this process."""
    return list(_loaded)


def library(variant: Variant) -> Library | None:
    """The compiled pass, if it was warmed up."""
    return _loaded.get(variant)


def called(name: str, tensors: list[Tensor], *, at_once: bool = False) -> Sequence[Tensor]:
    """Run a pass as Python; tensors as for a ``Library``, but of any length.

    Args:
        name: Of the pass.
        tensors: What it reads and writes.
        at_once: Whether to take the one of ``merging.passes.AT_ONCE``.
    """
    first = tensors[0]
    at = torch.arange(len(first), dtype=torch.int32, device=first.device)
    return _run(name, tensors, at, AT_ONCE if at_once else MERGES)


def _run(
    name: str, tensors: list[Tensor], at: Tensor, merges: Mapping[str, Merge] = MERGES
) -> Sequence[Tensor]:
    if name in LOOKS:
        *read, floats, ints = tensors
        return LOOKS[name](read, at, floats, ints)
    *read, base, out, floats, ints = tensors
    merges[name](read, base, out, at, floats, ints)
    return ()


def _load(variant: Variant) -> Library:
    file = _file(variant)
    if file.is_file():
        try:
            return _opened(file)
        except (RuntimeError, OSError) as error:  # cut off, or altered
            _log.info("%s: compiled anew (%s)", file, error)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        draft = Path(folder) / file.name
        _compile(variant, draft)
        draft.replace(file)
    return _opened(file)


def _opened(file: Path) -> Library:
    # What torch._inductor.aoti_load_package wraps: importing that takes seconds, and its __call__,
    # which flattens and checks arguments, four times the call.
    run = torch._C._aoti.AOTIModelPackageLoader(str(file), "model", False, 1, -1).run
    columns = _columns()
    return lambda tensors: run([*tensors, columns])


def _compile(variant: Variant, file: Path) -> None:
    length = BLOCK * torch.export.Dim("blocks", min=1)
    tensors = _examples(variant)
    shapes = [{0: length} if tensor.numel() > BLOCK else None for tensor in tensors]
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns of its own code
        program = torch.export.export(
            _Module(variant), (tensors,), dynamic_shapes=(shapes,), strict=False
        )
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(file), inductor_configs=_OPTIONS
        )


def _examples(variant: Variant) -> list[Tensor]:
    """Tensors like those that the library will be given."""
    whole = 3 * BLOCK
    read = [torch.zeros(whole, dtype=variant.read) for _ in range(variant.inputs)]
    if variant.name in LOOKS:
        if variant.name in RANKED:
            read[2] = torch.zeros(whole)
        numbers = torch.zeros(LOOK_FLOATS), torch.zeros(LOOK_INTS, dtype=torch.int32)
        return [*read, *numbers, _columns()]
    return [
        *read,
        *(torch.zeros(whole) for _ in range(variant.inputs if variant.name in RANKED else 0)),
        torch.zeros(whole, dtype=variant.read),
        torch.zeros(whole, dtype=variant.written),
        torch.zeros(FLOAT_ROWS, variant.inputs),
        torch.zeros(INT_ROWS, variant.inputs, dtype=torch.int32),
        _columns(),
    ]


@cache
def _columns() -> Tensor:
    return torch.arange(BLOCK, dtype=torch.int32)


class _Module(torch.nn.Module):
    """A pass in the form that torch exports: over rows of a block each.

    The index within a block comes as a tensor: reading it is several times cheaper than what the
    compiler writes to count up.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self._name = variant.name

    def forward(self, tensors: list[Tensor]) -> Sequence[Tensor]:
        *large, floats, ints, columns = tensors
        rows = [one.view(-1, BLOCK) for one in large]
        at = torch.arange(rows[0].shape[0], dtype=torch.int32)[:, None] * BLOCK + columns[None, :]
        return _run(self._name, [*rows, floats, ints], at)


def _file(variant: Variant) -> Path:
    return _folder() / f"{variant.name}-{_digest(variant)}.pt2"


def _folder() -> Path:
    """Within torch's code cache; torch's own function for it takes seconds to import."""
    kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if kept is None:
        with contextlib.suppress(KeyError, OSError, ImportError):  # a user without a name
            kept = str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")
    return Path(kept or tempfile.gettempdir()) / "merge-search"


def _digest(variant: Variant) -> str:
    said = f"{variant} {_surroundings()}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@cache
def _surroundings() -> str:
    """What a library depends on besides its variant: our code, torch, and the processor."""
    sources = [inspect.getsource(module) for module in (choices, counters, looks, passes)]
    return repr((sources, torch.__version__, sorted(_OPTIONS.items()), _processor()))


def _processor() -> str:
    """What instructions there are: code is made for this very processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
