"""Passes over several sets of small tensors in the calls of one: there, calls take all the time.

The results are those of the passes one by one (``merging.kernels.dispatch``), bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from merging.kernels import dispatch
from merging.kernels.native.native_library import library_on
from merging.kernels.torch_kernels.reduction_kernels import BLOCK, LOOKS, sealed_words


def suits(sets: Sequence[Sequence[Tensor]], device: torch.device) -> bool:
    """Whether a pass without output is better run several times here than in ``dispatch``.

    Args:
        sets: For each run the tensors that ``dispatch.total`` would take.
        device: Where to compute.
    """
    return dispatch.are_few([one[0] for one in sets]) and library_on(device) is None


def look(
    name: str,
    sets: Sequence[Sequence[Tensor]],
    *,
    device: torch.device,
    floats: Sequence[Sequence[float]],
    ints: Sequence[Sequence[int]],
) -> Sequence[Tensor]:
    """Run a pass without output several times, in the calls of one.

    Args:
        name: In ``reduction_kernels.LOOKS``, of those that give sums of floats per block.
        sets: For each run the tensors as for ``dispatch.total``, all of one length.
        device: Where to compute.
        floats: The pass's numbers, a row for each run.
        ints: Its whole numbers, likewise.

    Returns:
        ``(runs, blocks)`` for each thing that the pass returns.
    """
    count = sets[0][0].numel()
    rest = -count % min(BLOCK, count)
    stacks = []
    for column in zip(*sets, strict=True):
        same = all(one is column[0] for one in column)
        parts = [one.to(device).to(torch.float32) for one in column[: 1 if same else None]]
        stacks.append(torch.nn.functional.pad(torch.stack(parts), (0, rest)))
    at = torch.arange(count + rest, dtype=torch.int32, device=device)
    numbers = torch.tensor(floats, dtype=torch.float32, device=device).t()[:, :, None]
    words = torch.tensor(ints, dtype=torch.int32, device=device).t()[:, :, None]
    found = LOOKS[name](stacks, at, numbers, words)
    return [one.view(len(sets), -1) for one in found]


def seals(words: Sequence[Tensor], masks: tuple[int, int]) -> list[tuple[int, int]]:
    """``dispatch.seal`` of several tensors of few words on one device, in the calls of one."""
    device, ends = words[0].device, np.cumsum([one.numel() for one in words])
    at = torch.cat([torch.arange(one.numel(), dtype=torch.int32, device=device) for one in words])
    given = torch.tensor(masks, dtype=torch.int32, device=device)
    first, second, exponent = sealed_words(torch.cat(list(words)), at, given)
    sums = torch.stack([first, second]).cumsum(dim=1, dtype=torch.int64)[:, ends - 1].cpu()
    low, high = np.diff(sums.numpy(), axis=1, prepend=0).tolist()
    largest = np.maximum.reduceat(exponent.cpu().numpy(), np.r_[0, ends[:-1]]).tolist()
    return [(dispatch.hash_of(a, b), most) for a, b, most in zip(low, high, largest, strict=True)]
