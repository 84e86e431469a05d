"""A search of 200 candidates compiles nothing after the warm-up, and runs no pass eagerly."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
import torch

from merging import compiled, fused
from merging.build import build_into
from merging.cache import Statistics
from merging.checkpoint import Checkpoint
from merging.plan import plan
from merging.warming import variants_for
from spaces.draw import draw
from spaces.methods import METHODS
from spaces.recipe import Merge, Recipe, merges
from spaces.space import Order, Space

PARENTS = ("math", "code", "chat")


def trees_in(recipe: Recipe) -> bool:
    return sum(isinstance(node, Merge) for node in merges(recipe.root)) > 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_is_compiled_after_the_warm_up(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_model(layers=1, dtype="float32", tied=True)
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed, dtype="float32", noise=0.002)
        for seed, name in enumerate(PARENTS, start=1)
    }
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in models.items()}
    methods = tuple(name for name in METHODS if name not in ("passthrough", "arcee_fusion"))
    space = Space(parents=PARENTS, base="base", layers=1, methods=methods, order=Order.ANY)
    compiled.warm_up(
        variants_for(
            methods, parents=len(PARENTS), read=torch.float32, written=torch.float32, trees=True
        )
    )
    counted: list[str] = []
    monkeypatch.setattr(compiled, "_compile", lambda variant, _: counted.append(variant.name))
    monkeypatch.setattr(fused, "_eager", lambda name: pytest.fail(f"{name} ran eagerly"))
    torch._dynamo.utils.counters.clear()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    statistics, drawn = Statistics(), []
    for _ in range(200):
        drawn.append(draw(space, study.ask()))
        made = plan(drawn[-1], checkpoints)
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
        build_into(made, checkpoints, targets, statistics=statistics)
    assert counted == []
    assert not torch._dynamo.utils.counters["stats"]
    used = {node.method for one in drawn for node in merges(one.root) if isinstance(node, Merge)}
    assert used == set(methods)
    assert any(trees_in(one) for one in drawn)
