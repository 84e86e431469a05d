"""What workers are told, and what is computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from merging.building.build import tensors
from merging.kernels.native import native_library
from merging.planning.merge_plan import plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from runs.config.run_config import load_config, open_inputs
from search.engine.processes import worker_setup
from search.engine.processes.worker_setup import (
    WORKER_BYTES,
    Setting,
    fake_factory,
    prepare_statistics,
    worker_memory,
)
from spaces.recipes.recipe import Recipe

TIES = {
    "method": "ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.4},
}


@pytest.fixture
def make(project: Callable[..., Path], tmp_path: Path) -> Callable[..., Setting]:
    def setting(**changes: object) -> Setting:
        config = load_config(project(**changes))
        return Setting(
            config=config,
            space=config.space(4),
            checkpoints=open_inputs(config),
            catalogue=fake_factory(config)().catalogue(),
            folder=tmp_path / "run",
            dry_run=False,
        )

    return setting


def prepared(setting: Setting) -> bool:
    """Whether anything was computed."""
    prepare_statistics(setting, Console(file=StringIO()))
    return setting.statistics.exists()


def test_workers_know_what_the_space_draws(make: Callable[..., Setting]) -> None:
    plain = make(space={"methods": ["ties", "linear"], "order": "all-at-once"})
    spec = plain.harness_spec()
    assert (spec.methods, spec.trees, spec.most_layers) == (("ties", "linear"), False, None)
    assert spec.statistics == str(plain.folder / "statistics")
    assert (spec.gpus, spec.parents_on_device) == (1.0, 0.5)
    rich = make(
        space={"methods": ["slerp"], "slices": {"max_layers": 7}},
        workers={"gpus": 2, "parents_on_device": 0.25},
    ).harness_spec()
    assert (rich.trees, rich.most_layers) == (True, 7)
    assert (rich.gpus, rich.parents_on_device) == (2.0, 0.25)


def test_statistics_of_large_models_are_there_before_the_first_candidate(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = make(space={"methods": ["ties"]})
    assert not prepared(setting)  # small models: in passing
    monkeypatch.setattr(worker_setup, "LARGE", 1)
    assert not prepared(replace(setting, dry_run=True))
    assert not prepared(make(space={"methods": ["linear"]}))  # nothing to know
    native_library.cool_down()
    assert prepared(setting)
    assert native_library.library() is not None
    known = StatisticsCache(setting.statistics)
    planned = plan(Recipe.from_dict({"merge": TIES}), setting.checkpoints)
    list(tensors(planned, setting.checkpoints, statistics=known))
    assert known.computed == 0


def test_memory_of_a_worker_is_that_of_the_largest_model(make: Callable[..., Setting]) -> None:
    half, full = make(output={"dtype": "bfloat16"}), make(output={"dtype": "float32"})
    sizes = [worker_memory(one.config, one.checkpoints) - WORKER_BYTES for one in (half, full)]
    assert sizes[1] == 2 * sizes[0] > 0
