"""The kernels of GPUs: their source gives the bits of the CPU, and compiles without a GPU."""

from __future__ import annotations

import ctypes
import logging
import re
import shutil
import subprocess
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.kernels import dispatch
from merging.kernels.native import gpu_compilation, gpu_passes
from merging.kernels.native.abi import at
from merging.kernels.native.compilation import SOURCES
from merging.kernels.native.gpu_compilation import (
    MOST_INPUTS,
    GpuCompilationError,
    compiled,
    headers,
)
from merging.kernels.native.gpu_passes import GpuPasses, differing, passes_on, try_warm_up_on
from merging.kernels.torch_kernels.merge_kernels import MERGES
from merging.kernels.torch_kernels.reduction_kernels import LOOKS
from tests.merging.test_dispatch import CPU, SIZES, merged, noise
from tests.merging.test_native_library import DTYPES, looked

GPU = torch.device("cuda", 0)
BLOCKS, THREADS = 3, 32  # fewer than entries, so that threads go on to further ones


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> GpuPasses:
    """The kernels compiled for this CPU, and a loop in place of the grid."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "table_rows.h").write_text(headers()["table_rows.h"])
    compiler = shutil.which("c++") or shutil.which("g++") or pytest.skip("no C++ compiler")
    file = folder / "grid.so"
    command = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared"]
    command += [f"-DMOST_INPUTS={MOST_INPUTS}", f"-I{folder}", f"-I{SOURCES}"]
    source = Path(__file__).with_name("emulated_grid.cpp")
    subprocess.run([*command, str(source), "-o", str(file)], check=True)
    grid = ctypes.CDLL(str(file))
    grid.launch.restype = ctypes.c_bool

    def launch(name: str, entries: int, parameters: Sequence[array[Any]]) -> None:
        assert entries > 0
        addresses = (ctypes.c_void_p * len(parameters))(*map(at, parameters))
        assert grid.launch(name.encode(), BLOCKS, THREADS, addresses), name

    return GpuPasses(launch)


@pytest.fixture
def on_gpu(emulated: GpuPasses, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to have passes run as a GPU's from then on."""
    return lambda: monkeypatch.setattr(dispatch, "passes_on", lambda _: emulated)


@pytest.fixture(autouse=True)
def cold() -> Iterator[None]:
    """No test sees what another one loaded."""
    gpu_passes.cool_down_gpus()
    yield
    gpu_passes.cool_down_gpus()


@pytest.mark.parametrize("name", list(MERGES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_merges_have_the_same_bits(
    on_gpu: Callable[[], None], name: str, dtype: torch.dtype
) -> None:
    expected = [merged(name, count, dtype) for count in SIZES]
    on_gpu()
    for count, whole in zip(SIZES, expected, strict=True):
        for chunk in (None, 4096):
            found = merged(name, count, dtype, chunk)
            assert torch.equal(found.view(torch.uint8), whole.view(torch.uint8)), count


@pytest.mark.parametrize("name", list(LOOKS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_looks_find_the_same(on_gpu: Callable[[], None], name: str, dtype: torch.dtype) -> None:
    expected = [looked(name, count, dtype) for count in SIZES]
    assert any(any(one) for one in expected)
    on_gpu()
    assert [looked(name, count, dtype) for count in SIZES] == expected


@pytest.mark.parametrize("inputs", [1, MOST_INPUTS, MOST_INPUTS + 1])
@pytest.mark.parametrize("name", ["weighted_sum", "trimmed_vote"])
def test_any_number_of_inputs(on_gpu: Callable[[], None], name: str, inputs: int) -> None:
    base, *given = (noise(500, seed, torch.bfloat16) for seed in range(inputs + 1))

    def run() -> torch.Tensor:
        out = torch.empty_like(base)
        floats = [[0.1 * row + 0.01 * i for i in range(inputs)] for row in range(1, 6)]
        ints = [[200] * inputs, [100] * inputs]
        dispatch.merge(name, given, base, out, floats=floats, ints=lambda _: ints)
        return out.view(torch.int16)

    expected = run()
    on_gpu()
    assert torch.equal(run(), expected)


def test_kernels_are_tried_before_they_are_used(
    emulated: GpuPasses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert differing(emulated, CPU) == []
    launch, wrong = emulated._launch, {"trimmed_vote": "whole_sum", "kept_norm": "ranked_norm"}
    bad = GpuPasses(lambda name, *given: launch(wrong.get(name, name), *given))
    assert differing(bad, CPU) == list(wrong)
    monkeypatch.setattr(gpu_passes, "_made", lambda _: bad)
    monkeypatch.setattr(gpu_passes, "differing", lambda passes, _: differing(passes, CPU))
    with caplog.at_level(logging.WARNING):
        assert not try_warm_up_on(GPU)
    assert "other bits than torch's calls have: trimmed_vote, kept_norm; on cuda:0" in caplog.text
    assert passes_on(GPU) is None
    monkeypatch.setattr(gpu_passes, "_made", lambda _: emulated)
    assert try_warm_up_on(GPU)
    assert passes_on(GPU) is emulated
    assert passes_on(torch.device("cuda", 1)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_has_the_bits_of_the_cpu(dtype: torch.dtype) -> None:
    assert try_warm_up_on(GPU)
    for name in MERGES:
        for count in SIZES:
            found, expected = (merged(name, count, dtype, device=one) for one in (GPU, CPU))
            assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8)), (name, count)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not try_warm_up_on(GPU)
    assert "on cuda:0 passes run as torch's calls, several times slower" in caplog.text


def test_without_nvrtc_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_compilation, "_places", lambda: iter(["libnvrtc-not-there.so"]))
    with pytest.raises(GpuCompilationError, match=r"NVRTC: expected libnvrtc.so of torch or of"):
        compiled("compute_90")


def test_the_source_compiles_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        code = compiled("compute_80").decode()
    except GpuCompilationError as error:
        if "expected libnvrtc.so" not in str(error):
            raise
        pytest.skip(str(error))
    kernels = re.findall(r"\.entry (\w+)_kernel", code)
    assert sorted(kernels) == sorted([*MERGES, "kept_norm", "ranked_norm", "seal"])
    assert not re.findall(r"\b(?:fma|mad|div\.approx|div\.full)\.\S*f(?:32|64)|\.ftz", code)
    assert compiled("sm_90")[:4] == b"\x7fELF"
    monkeypatch.setattr(gpu_compilation, "SOURCE", '#include "pass_list.h"\nint missing = other;')
    with pytest.raises(GpuCompilationError, match=r'cannot compile for sm_90 \(.*"other"'):
        compiled("sm_90")
