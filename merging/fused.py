"""Running passes: compiled into one loop over memory where warmed up for, eager elsewhere.

Nothing is ever compiled in the middle of a build: a pass that was not warmed up runs eagerly over
chunks that stay in the cache. Both ways give the same bits, so which one runs is a matter of speed.
Compiled code is kept by torch in ``TORCHINDUCTOR_CACHE_DIR`` and read back by later processes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from merging import passes
from merging.passes import BLOCK, MERGES

LARGE = 20_000_000
"""Elements of a model from which compiling pays: below, a build takes less than the warm-up."""

SMALLEST = BLOCK
"""Elements from which the compiled loop is worth its call."""

_COMPILED_CHUNK = 1 << 22  # few calls: each costs as much as tens of thousands of elements
_NORM_CHUNK = 1 << 20  # partial sums of one chunk stay in the cache
_EAGER_CHUNK = 1 << 16  # temporaries stay in the cache
_DEVICE_CHUNK = 1 << 24
_READ = (torch.bfloat16, torch.float16, torch.float32)
_OPTIONS: dict[str, Any] = {
    "cpp.dynamic_threads": True,  # torch's thread count may change after the warm-up
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
        inputs: Number of inputs; 1 for sums.
        read: Dtype of all inputs and the base.
        written: Dtype of the output; that of the inputs for sums.
        device: Type of device.
    """

    name: str
    inputs: int
    read: torch.dtype
    written: torch.dtype
    device: str = "cpu"


class FusedError(RuntimeError):
    """Passes that cannot be compiled on this machine; builds run eagerly then."""


_Compiled = Callable[..., Any]
# of this process, like torch's own code cache; torch compiles anew for another thread count
_ready: dict[tuple[Variant, int], _Compiled] = {}


def warm_up(
    variants: Iterable[Variant], *, progress: Callable[[int, int], None] | None = None
) -> float:
    """Compile passes, or load them from torch's cache; to be called before the first trial.

    Args:
        variants: What will be run; see ``variants``.
        progress: Called after each with the number done and the number of all.

    Returns:
        Seconds it took.

    Raises:
        FusedError: If there is no working compiler; nothing is lost but speed.
    """
    began, wanted = time.monotonic(), list(dict.fromkeys(variants))
    for done, variant in enumerate(wanted, start=1):
        if not is_warm(variant):
            try:
                _ready[variant, torch.get_num_threads()] = _compile(variant)
            except Exception as error:  # whatever a broken compiler may raise
                raise FusedError(
                    f"{variant.name}: cannot be compiled here ({str(error).splitlines()[0]})"
                ) from error
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
    """Forget what was compiled in this process; builds run eagerly from here on."""
    _ready.clear()


def is_warm(variant: Variant) -> bool:
    """Whether a pass would run compiled, with as many threads as torch now has."""
    return (variant, torch.get_num_threads()) in _ready


def variants(
    names: Iterable[str],
    *,
    inputs: Iterable[int],
    read: torch.dtype,
    written: torch.dtype,
    device: str = "cpu",
    trees: bool = False,
) -> list[Variant]:
    """What to warm up for.

    Args:
        names: Passes in ``merging.passes.MERGES``.
        inputs: Numbers of inputs, the base not counted.
        read: Dtype of the models.
        written: Dtype of the output.
        device: Type of device.
        trees: Also for merges of merges, whose inner tensors are float32.
    """
    kinds = [(read, written)]
    if trees:
        wide = torch.float32
        kinds += [(read, wide), (wide, written), (wide, wide)]
    counts, found = sorted(set(inputs)), []
    for name in names:
        for one_read, one_written in kinds:
            found += [
                Variant(name=name, inputs=n, read=one_read, written=one_written, device=device)
                for n in counts
            ]
    for one_read in dict.fromkeys(kind for kind, _ in kinds):
        found += sums(one_read, device)
    return list(dict.fromkeys(found))


def sums(read: torch.dtype, device: str = "cpu") -> list[Variant]:
    """The passes that look at models of a dtype, and at outputs, without writing."""
    named = [_sum_variant(name, read, device) for name in ("kept_norm", "equal_counts")]
    return [*named, _sum_variant("seal", torch.int32, device)]


def merge(
    name: str,
    inputs: Sequence[Tensor],
    base: Tensor | None,
    out: Tensor,
    *,
    floats: Sequence[float],
    ints: Sequence[int] = (),
    chunk: int | None = None,
    start: int = 0,
    stop: int | None = None,
) -> None:
    """Run a pass over part of flat tensors.

    Args:
        name: In ``merging.passes.MERGES``.
        inputs: ``(n,)`` each, any float dtype and device.
        base: ``(n,)``, or ``None`` for passes without.
        out: ``(n,)`` to overwrite; computing happens on its device.
        floats: The pass's numbers.
        ints: The pass's whole numbers, as int32 values; for masks, as of index ``start``.
        chunk: Elements at a time; ``None`` suits the device. Changes nothing but speed.
        start: First index.
        stop: Index after the last; ``None`` for the end.
    """
    stop = out.numel() if stop is None else stop
    tensors = [*inputs, inputs[0] if base is None else base]
    read = tensors[0].dtype
    if read not in _READ or any(tensor.dtype != read for tensor in tensors):
        read = torch.float32
    written = out.dtype if out.dtype in _READ else torch.float32
    variant = Variant(
        name=name, inputs=len(inputs), read=read, written=written, device=out.device.type
    )
    run = _chosen(variant, stop - start, [*tensors, out])
    size = _chunk(chunk, out.device, _COMPILED_CHUNK if run is not None else _EAGER_CHUNK)
    spare = 1 + 4 * len(inputs) - len(floats)  # one length for all passes: code is made for it
    numbers = torch.tensor([*floats, *[0.0] * spare], dtype=torch.float32, device=out.device)
    whole = [*ints, *[0] * (3 * len(inputs) - len(ints))]
    for first, last in spans(stop - start, size):
        parts = [_part(tensor, start + first, start + last, out.device, read) for tensor in tensors]
        words = torch.tensor(_advanced(whole, first), dtype=torch.int32, device=out.device)
        target = out[start + first : start + last]
        made = target if out.dtype == written else torch.empty_like(target, dtype=written)
        call = run if run is not None and last - first >= SMALLEST else MERGES[name]
        with torch.no_grad():
            call(parts[:-1], parts[-1], made, numbers, words)
        if made is not target:
            target.copy_(made)


def kept_norm(
    tensor: Tensor, minus: Tensor, ints: Sequence[int], *, device: torch.device
) -> Iterator[Tensor]:
    """Partial sums of |tensor - minus| where a mask keeps it, for whole blocks of the tensors.

    Args:
        tensor: ``(n,)``.
        minus: ``(n,)``.
        ints: Step, offset and limit of the mask, as of index 0.
        device: Where to compute.

    Yields:
        ``(blocks, LANES)`` float64, block by block in order.
    """
    yield from _sums("kept_norm", tensor, minus, ints, (), device)


def equal_counts(
    tensor: Tensor, minus: Tensor, value: float, *, device: torch.device
) -> Iterator[Tensor]:
    """How many |tensor - minus| equal a value, for each whole block: ``(blocks,)`` int32."""
    yield from _sums("equal_counts", tensor, minus, (), (value,), device)


def seal(words: Tensor, masks: tuple[int, int], *, chunk: int | None = None) -> tuple[int, int]:
    """The hash of words as an unsigned 64-bit number, and their largest exponent field.

    Args:
        words: ``(n,)`` int32.
        masks: Of the exponents in the low and high half of a word.
        chunk: Words at a time; the result does not depend on it.
    """
    variant = _sum_variant("seal", torch.int32, words.device.type)
    run = _chosen(variant, words.numel(), [words])
    size = _chunk(chunk, words.device, _COMPILED_CHUNK if run is not None else _EAGER_CHUNK)
    found = []
    for first, last in spans(words.numel(), size):
        ints = torch.tensor([_signed(first), *masks], dtype=torch.int32, device=words.device)
        call = run if run is not None and last - first >= SMALLEST else passes.seal
        with torch.no_grad():
            found.append(torch.stack([x.to(torch.int64) for x in call(words[first:last], ints)]))
    if not found:
        return 0, 0
    rows = torch.stack(found)
    low, high = (int(column.sum()) for column in (rows[:, 0], rows[:, 1]))
    return (low + (high << 32)) % (1 << 64), int(rows[:, 2].amax())


def spans(count: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover ``count`` elements; all but the last have whole blocks."""
    step = max(1, -(-chunk // BLOCK)) * BLOCK
    for start in range(0, count, step):
        yield start, min(count, start + step)


def _sums(
    name: str,
    tensor: Tensor,
    minus: Tensor,
    ints: Sequence[int],
    floats: Sequence[float],
    device: torch.device,
) -> Iterator[Tensor]:
    same = tensor.dtype == minus.dtype and tensor.dtype in _READ
    read = tensor.dtype if same else torch.float32
    run = _chosen(_sum_variant(name, read, device.type), tensor.numel(), [tensor, minus])
    eager: _Compiled = passes.kept_norm if name == "kept_norm" else passes.equal_counts
    large = _NORM_CHUNK if name == "kept_norm" else _COMPILED_CHUNK
    size = _chunk(None, device, large if run is not None else _EAGER_CHUNK)
    for first, last in spans(tensor.numel() // BLOCK * BLOCK, size):
        if floats:
            numbers = torch.tensor(floats, dtype=torch.float32, device=device)
        else:
            numbers = torch.tensor(_advanced(ints, first), dtype=torch.int32, device=device)
        parts = [_part(x, first, last, device, read) for x in (tensor, minus)]
        # a single block has lengths of 1, for which torch would compile anew
        with torch.no_grad():
            sums = (run if run is not None and last - first > BLOCK else eager)(*parts, numbers)
        yield sums


def _compile(variant: Variant) -> _Compiled:
    """Compile one pass and run it on two lengths, so that the second needs nothing new."""
    function: _Compiled = (
        MERGES[variant.name] if variant.name in MERGES else getattr(passes, variant.name)
    )
    compiled = torch.compile(
        _alone(function, variant), dynamic=True, fullgraph=True, options=_OPTIONS
    )
    device = torch.device(variant.device)
    with torch.inference_mode(False), torch.no_grad():
        for blocks in (5, 7, 2):
            tensors = [
                torch.zeros(blocks * BLOCK, dtype=variant.read, device=device)
                for _ in range(variant.inputs + 1)
            ]
            floats = torch.ones(1 + 4 * variant.inputs, device=device)
            ints = torch.ones(3 * variant.inputs, dtype=torch.int32, device=device)
            if variant.name in MERGES:
                target = torch.empty_like(tensors[0], dtype=variant.written)
                compiled(tensors[:-1], tensors[-1], target, floats, ints)
            elif variant.name == "seal":
                compiled(tensors[0], ints)
            else:
                # no views here: code made for one looks for its base
                value = torch.ones(1, device=device)
                compiled(*tensors, value if variant.name == "equal_counts" else ints)
    return compiled


def _alone(function: _Compiled, variant: Variant) -> _Compiled:
    """A copy of a function with code of its own: torch compiles each only so many times."""
    dtypes = f"{variant.read}_{variant.written}".replace("torch.", "")
    name = f"{variant.name}_{variant.inputs}_{dtypes}_{variant.device}"
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, function.__defaults__)


def _sum_variant(name: str, read: torch.dtype, device: str) -> Variant:
    return Variant(name=name, inputs=1, read=read, written=read, device=device)


def _chosen(variant: Variant, count: int, tensors: Sequence[Tensor]) -> _Compiled | None:
    """The compiled pass, if it is there, worth its call, and the tensors are as it knows them."""
    if count < SMALLEST or torch.is_inference_mode_enabled():
        return None
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return _ready.get((variant, torch.get_num_threads()))


def _part(flat: Tensor, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    part = flat[start:stop]
    if part.device != device:
        part = part.to(device, non_blocking=True)
    return part if part.dtype == dtype else part.to(dtype)


def _chunk(asked: int | None, device: torch.device, on_cpu: int) -> int:
    return asked or (on_cpu if device.type == "cpu" else _DEVICE_CHUNK)


def _advanced(ints: Sequence[int], by: int) -> list[int]:
    """Masks (step, offset, limit) as of an index further on: the counter wraps at 2**32."""
    moved = list(ints)
    for at in range(0, len(moved) - 2, 3):
        moved[at + 1] = _signed(moved[at] * by + moved[at + 1])
    return moved


def _signed(value: int) -> int:
    value %= 1 << 32
    return value - (1 << 32) if value >= 1 << 31 else value
