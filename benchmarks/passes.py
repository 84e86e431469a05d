"""Every pass compiled for a device: against torch's calls and a copy there, and the CPU's bits.

    python -m benchmarks.passes --device cuda
    python -m benchmarks.passes --device cpu --entries 4000000

The exit code is 1 where the passes cannot be compiled, or have other bits than torch's calls on a
CPU.
"""

from __future__ import annotations

import argparse
import statistics as stats
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.building import synchronised
from merging.building.fingerprint import tensor_hash
from merging.kernels import dispatch
from merging.kernels.native.gpu_passes import try_warm_up_on
from merging.kernels.native.native_library import cool_down, try_warm_up
from merging.kernels.random_masks import MaskKey, numbers
from merging.kernels.torch_kernels.merge_kernels import MERGES

INPUTS = 3
CPU = torch.device("cpu")
FLOATS = [[0.8], [0.5, -1.25, 0.7], [0.5, 1.25, 0.7], [0.3], [0.3], [1.5], [1.5]]
RANKED = [*FLOATS[:3], [2e6], [1e5]]
KEY = MaskKey(seed=0, model="a", tensor="x")


def main() -> int:
    """Print a row for each pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--entries", type=int, default=1 << 26, help="of each tensor")
    parser.add_argument("--checked", type=int, default=1 << 20, help="entries held against the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    cool_down()
    device, clock = asked.device, synchronised(time.perf_counter, asked.device)
    given = [noise(asked.entries, seed).to(device) for seed in range(INPUTS + 2)]
    target = torch.empty_like(given[0])
    runs = {name: pass_of(name, given, target) for name in (*MERGES, "seal")}
    part = [one[: asked.checked] for one in given]
    expected = {name: hash_of(name, [one.to(CPU) for one in part]) for name in runs}

    def seconds(run: Callable[[], object]) -> float:
        taken = []
        for _ in range(asked.repeats + 1):
            began = clock()
            run()
            taken.append(clock() - began)
        return stats.median(taken[1:])

    copied = seconds(lambda: [target.copy_(one) for one in given[: INPUTS + 1]])
    eager = {name: seconds(run) for name, run in runs.items()}
    ready = try_warm_up() if device.type == "cpu" else try_warm_up_on(device)
    print(f"{asked.entries:,} entries of {INPUTS} inputs and a base in bfloat16, {device}")
    print("| pass | compiled s | times copying | torch's calls s | times | bits |")
    print("|---|---|---|---|---|---|")
    same = True
    for name, run in runs.items():
        taken = seconds(run)
        bits = hash_of(name, part) == expected[name]
        same = same and bits
        print(
            f"| {name} | {taken:.4f} | {taken / copied:.1f} | {eager[name]:.4f} "
            f"| {eager[name] / taken:.1f} | {'same' if bits else 'OTHER'} |",
            flush=True,
        )
    return 0 if ready and same else 1


def noise(count: int, seed: int) -> Tensor:
    """Numbers with zeros among them."""
    made = torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    made[::7] = 0.0
    return made


def hash_of(name: str, given: list[Tensor]) -> int:
    """Of what a pass writes; of the last tensor for the one that finds hashes."""
    out = given[-1].clone()
    pass_of(name, given, out)()
    return tensor_hash(out)


def pass_of(name: str, given: list[Tensor], out: Tensor) -> Callable[[], object]:
    """A pass over the given tensors, to be run again and again."""
    *inputs, base, other = given
    if name == "seal":
        return lambda: tensor_hash(other)
    places = torch.arange(out.numel(), device=out.device) % 8191
    ranks = [places.to(torch.int16)] * INPUTS if name.startswith("ranked") else []

    def run() -> None:
        dispatch.merge(
            name,
            inputs,
            base,
            out,
            floats=RANKED if ranks else FLOATS,
            ints=lambda start: [[word] for word in numbers(KEY, density=0.5, start=start)],
            ranks=ranks,
        )

    return run


if __name__ == "__main__":
    raise SystemExit(main())
