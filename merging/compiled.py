"""Passes compiled ahead of time into libraries, which are kept on disk and loaded when warmed up.

torch's compiler (AOTInductor) makes one library per variant, for any length of the tensors and any
number of threads; a library cannot be compiled anew, and calling it costs a few microseconds.
Libraries lie in torch's code cache (``TORCHINDUCTOR_CACHE_DIR``), named by all they depend on.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging import choices, counters, looks, passes
from merging.looks import BLOCK, IN_BLOCKS, LOOKS
from merging.passes import FLOAT_ROWS, INT_ROWS, MERGES, RANKED

LOOK_FLOATS, LOOK_INTS = 2, 3
"""Lengths of the numbers that passes without output take."""

_OPTIONS: dict[str, Any] = {
    "aot_inductor.compile_wrapper_opt_level": "O0",  # its loops are elsewhere; half the time
    "cpp.dynamic_threads": True,
    "cpp.enable_floating_point_contract_flag": "off",  # a fused multiply-add rounds once, not twice
    "cpp.enable_unsafe_math_opt_flag": False,
    "emulate_precision_casts": True,
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
"""A compiled pass: takes all tensors, the output included, in the order of ``called``."""

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


def cool_down() -> None:
    """Forget what was loaded in this process; builds run eagerly from here on."""
    _loaded.clear()


def library(variant: Variant) -> Library | None:
    """The compiled pass, if it was warmed up."""
    return _loaded.get(variant)


def called(name: str, tensors: list[Tensor]) -> Sequence[Tensor]:
    """Run a pass as Python; tensors as for a ``Library``."""
    if name in LOOKS:
        *read, floats, ints = tensors
        return LOOKS[name](read, floats, ints)
    *read, base, out, floats, ints = tensors
    MERGES[name](read, base, out, floats, ints)
    return ()


def _load(variant: Variant) -> Library:
    file = _folder() / f"{variant.name}-{_digest(variant)}.pt2"
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
    # the model's own __call__ flattens and checks arguments, which takes four times the call
    run: Library = torch._inductor.aoti_load_package(str(file)).loader.run
    return run


def _compile(variant: Variant, file: Path) -> None:
    length = torch.export.Dim("length", min=1)
    if variant.name in IN_BLOCKS:
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
    ranks = [torch.zeros(whole, dtype=torch.int32) for _ in read]
    if variant.name in LOOKS:
        if variant.name in RANKED:
            read[-1] = ranks[-1]
        return [*read, torch.zeros(LOOK_FLOATS), torch.zeros(LOOK_INTS, dtype=torch.int32)]
    return [
        *read,
        *(ranks if variant.name in RANKED else ()),
        torch.zeros(whole, dtype=variant.read),
        torch.zeros(whole, dtype=variant.written),
        torch.zeros(FLOAT_ROWS, variant.inputs),
        torch.zeros(INT_ROWS, variant.inputs, dtype=torch.int32),
    ]


class _Module(torch.nn.Module):
    """A pass in the form that torch exports."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self._name = variant.name

    def forward(self, tensors: list[Tensor]) -> Sequence[Tensor]:
        return called(self._name, tensors)


def _folder() -> Path:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / "merge-search"


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
