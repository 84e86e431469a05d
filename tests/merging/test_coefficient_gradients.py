"""Gradients of coefficients: equal to finite differences of a merge written out in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from merging.building.build import build_into
from merging.checkpoints.checkpoint import Checkpoint
from merging.gradients.coefficient_gradients import CoefficientGradients, GradientError
from merging.gradients.method_derivatives import DIFFERENTIABLE
from merging.methods.operands import Operands
from merging.methods.sparsification import THINNERS
from merging.planning.expressions import Combine, Expression, Leaf
from merging.planning.merge_plan import MergePlan, plan
from spaces.catalogue.method import TaskVectors
from spaces.catalogue.method_catalogue import METHODS
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe

TASK_VECTORS = {
    name: one.arithmetic for name, one in METHODS.items() if isinstance(one.arithmetic, TaskVectors)
}


@pytest.fixture(scope="module")
def family(tiny_model: Callable[..., Path]) -> dict[str, Path]:
    """GPT-2, tied: transformers computes all of it in float64, unlike Llama's norms."""
    base = tiny_model(family="gpt2", layers=3, tied=True)
    tuned = {
        name: tiny_model(base=base, seed=seed, noise=0.05)
        for seed, name in enumerate(("math", "code", "text"), start=1)
    }
    return {"base": base, **tuned}


PROMPTS = torch.arange(24).view(2, 12) % 17 + 3


class Votes:
    """Elected signs, in the order they are asked for; every later round gets those of the first."""

    def __init__(self) -> None:
        self._signs: list[Tensor] = []
        self._next: int | None = None

    def again(self) -> None:
        self._next = 0 if self._signs else None

    def sign(self, total: Tensor) -> Tensor:
        if self._next is None:
            self._signs.append(torch.where(total >= 0, 1.0, -1.0))
            return self._signs[-1]
        self._next += 1
        return self._signs[self._next - 1]


def value(node: Expression, checkpoints: Mapping[str, Checkpoint], votes: Votes) -> Tensor:
    """A merge in float64, straight from the formulas of docs/methods.md."""
    if isinstance(node, Leaf):
        return checkpoints[node.model].tensor(node.tensor).double()
    inputs = [value(one, checkpoints, votes) for one in node.inputs]
    w, shared = node.per_input["weight"], node.shared
    strength = float(shared.get("lambda", 1.0))
    if node.method == "linear":
        total = sum(w) if shared["normalize"] else 1.0
        return sum(a * x for a, x in zip(w, inputs, strict=True)) / total  # type: ignore[return-value]
    assert node.base is not None
    base = value(node.base, checkpoints, votes)
    deltas = (
        thinned(node, inputs, base) if node.method in TASK_VECTORS else [x - base for x in inputs]
    )
    parts = [a * u for a, u in zip(w, deltas, strict=True)]
    divisor = torch.tensor(1.0, dtype=torch.float64)
    if node.method in TASK_VECTORS and TASK_VECTORS[node.method].votes:
        sign = votes.sign(sum(parts))  # type: ignore[arg-type]
        agree = [(part * sign > 0).double() for part in parts]
        parts = [part * one for part, one in zip(parts, agree, strict=True)]
        if shared["normalize"]:
            divisor = sum(a * one for a, one in zip(w, agree, strict=True))  # type: ignore[assignment]
            divisor = torch.where(divisor == 0, 1.0, divisor)
    elif shared.get("normalize"):
        divisor = torch.tensor(sum(w), dtype=torch.float64)
    return base + strength * sum(parts) / divisor


def thinned(node: Combine, inputs: list[Tensor], base: Tensor) -> list[Tensor]:
    """Thinned and rescaled deltas; which entries are kept is tested elsewhere."""
    flat = Operands(
        inputs=[x.float().flatten() for x in inputs],
        base=base.float().flatten(),
        per_input=node.per_input,
        shared=node.shared,
        masks=node.masks,
        shape=tuple(base.shape),
    )
    found = []
    thinner = THINNERS[TASK_VECTORS[node.method].keeps]
    for x, one in zip(inputs, thinner(flat, base.float().flatten(), 1 << 20), strict=True):
        delta = (x - base).flatten()
        kept = delta if one is None else delta * one.keep(delta.float(), 0).double()
        if node.shared.get("rescale") and one is not None:
            kept = kept * (delta.abs().sum() / kept.abs().sum())
        found.append(kept.view_as(base))
    return found


class World:
    """A resident float64 model of a family, and a recipe."""

    def __init__(self, models: Mapping[str, Path], merge: Any) -> None:
        self.checkpoints = {
            name: Checkpoint.open(str(at), name=name) for name, at in models.items()
        }
        self.votes = Votes()
        self.recipe = Recipe.from_dict({"merge": merge})
        self.coefficients = Coefficients(self.recipe)
        self.model = AutoModelForCausalLM.from_pretrained(models["base"], dtype=torch.float64)
        self.model.requires_grad_(False)
        self.targets = dict(self.model.named_parameters())
        self.wholes = {name: (one, torch.detach) for name, one in self.targets.items()}
        self.plan = self._retyped(plan(self.recipe, self.checkpoints))

    @staticmethod
    def _retyped(made: MergePlan) -> MergePlan:
        return replace(made, jobs=tuple(replace(j, dtype=torch.float64) for j in made.jobs))

    def loss(self, tensors: Mapping[str, Tensor]) -> Tensor:
        out = functional_call(self.model, dict(tensors), (PROMPTS,), {"use_cache": False})
        logits = out.logits[:, :-1].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, PROMPTS[:, 1:].flatten())

    def at(self, values: list[float]) -> float:
        made = plan(self.coefficients.replaced(values), self.checkpoints)
        self.votes.again()
        with torch.no_grad():
            tensors = {
                job.name: value(job.expression, self.checkpoints, self.votes) for job in made.jobs
            }
            return float(self.loss(tensors))

    def differences(self, step: float = 1e-5) -> Tensor:
        self.at(list(self.coefficients.values))  # elects the signs that are held
        found = []
        for index in range(len(self.coefficients.values)):
            ends = []
            for sign in (1, -1):
                moved = list(self.coefficients.values)
                moved[index] += sign * step
                ends.append(self.at(moved))
            found.append((ends[0] - ends[1]) / (2 * step))
        return torch.tensor(found, dtype=torch.float64)

    def gradients(self) -> Tensor:
        build_into(self.plan, self.checkpoints, self.targets)
        found = CoefficientGradients(self.plan, self.checkpoints, self.wholes, self.coefficients)
        with found.collecting():
            self.loss(self.targets).backward()
        assert all(one.grad is None and not one.requires_grad for one in self.targets.values())
        return found.values


BY_FILTER = [
    {"filter": "attn", "value": [0.3, 0.8]},
    {"filter": "mlp", "value": 0.6},
    {"value": 0.4},
]


def merge(method: str, weights: list[Any], **shared: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "method": method,
        "sources": [
            {"of": name, "parameters": {"weight": weight}}
            for name, weight in zip(("math", "code", "text"), weights, strict=False)
        ],
    }
    if method != "linear":
        result["base"] = "base"
    return result | ({"parameters": shared} if shared else {})


def density(method: str) -> dict[str, Any]:
    return {"density": 0.6} if method in TASK_VECTORS else {}


def check(world: World) -> None:
    expected, got = world.differences(), world.gradients()
    assert expected.abs().min() > 1e-7  # there is something to compare
    assert (got - expected).norm() <= 1e-6 * expected.norm() + 1e-9


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", sorted(DIFFERENTIABLE))
def test_gradients_are_finite_differences(
    family: dict[str, Path], method: str, normalize: bool
) -> None:
    shared = {"normalize": normalize} | density(method)
    if method != "linear":
        shared["lambda"] = 1.3
    check(World(family, merge(method, [0.7, BY_FILTER, 0.5], **shared)))


@pytest.mark.parametrize("method", ["dare_ties", "breadcrumbs", "ties", "della_linear"])
def test_with_rescaling_and_negative_weights(family: dict[str, Path], method: str) -> None:
    shared: dict[str, Any] = {"normalize": False}
    if METHODS[method].parameter("rescale") is not None:
        shared["rescale"] = True
    check(World(family, merge(method, [0.7, -0.4, BY_FILTER], **density(method), **shared)))


def test_through_a_tree(family: dict[str, Path]) -> None:
    inner = merge("dare_ties", [0.8, BY_FILTER], density=0.6)
    outer = {
        "method": "linear",
        "sources": [
            {"of": inner, "parameters": {"weight": [0.5, 0.9, 0.7]}},
            {"of": "text", "parameters": {"weight": 0.4}},
        ],
    }
    check(World(family, outer))


def test_through_the_base_and_shared_parts_of_a_tree(family: dict[str, Path]) -> None:
    inner = merge("linear", [0.6, 0.5])
    outer = {
        "method": "task_arithmetic",
        "base": inner,
        "sources": [
            {"of": merge("task_arithmetic", [0.7, 0.2]), "parameters": {"weight": 0.8}},
            {"of": "text", "parameters": {"weight": 0.3}},
        ],
        "parameters": {"lambda": 0.9},
    }
    check(World(family, outer))


def test_untied_heads_and_slices(tiny_model: Callable[..., Path]) -> None:
    base = tiny_model(family="gpt2", layers=3)
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed, noise=0.05)
        for seed, name in enumerate(("math", "code"), start=1)
    }
    parts = [((0, 1), 0.4, 0.6), ((1, 3), [0.2, 0.7], BY_FILTER)]
    sliced = {
        "method": "task_arithmetic",
        "base": "base",
        "slices": [
            {
                "sources": [
                    {"of": "base", "layers": list(layers)},
                    {"of": "math", "layers": list(layers), "parameters": {"weight": first}},
                    {"of": "code", "layers": list(layers), "parameters": {"weight": second}},
                ]
            }
            for layers, first, second in parts
        ],
    }
    check(World(models, sliced))


def test_backward_passes_add_up_until_zeroed(family: dict[str, Path]) -> None:
    world = World(family, merge("ties", [0.7, 0.5], density=0.5))
    build_into(world.plan, world.checkpoints, world.targets)
    found = CoefficientGradients(world.plan, world.checkpoints, world.wholes, world.coefficients)
    with found.collecting():
        world.loss(world.targets).backward()
        once = found.values.clone()
        world.loss(world.targets).backward()
        assert torch.allclose(found.values, 2 * once, rtol=1e-12)
        found.zero()
        assert not found.values.any()


@pytest.mark.parametrize("method", ["slerp", "nuslerp", "sce"])
def test_methods_without_a_derivative_are_refused(family: dict[str, Path], method: str) -> None:
    outer: dict[str, Any] = {
        "method": method,
        "sources": [{"of": merge("linear", [0.5, 0.5])}, {"of": "text"}],
    }
    outer |= {
        "slerp": {"base": "text", "parameters": {"t": 0.5}},
        "nuslerp": {"parameters": {"weight": 0.5}},
        "sce": {"base": "base"},
    }[method]
    world = World(family, outer)
    with pytest.raises(GradientError, match=rf"method: expected one of .*, got {method}"):
        CoefficientGradients(world.plan, world.checkpoints, world.wholes, world.coefficients)


def test_merges_below_the_coefficients_may_have_any_method(family: dict[str, Path]) -> None:
    arc = {
        "method": "slerp",
        "base": "math",
        "sources": [{"of": "math"}, {"of": "code"}],
        "parameters": {"t": 0.3},
    }
    outer = {
        "method": "linear",
        "sources": [
            {"of": arc, "parameters": {"weight": 0.7}},
            {"of": "text", "parameters": {"weight": 0.6}},
        ],
    }
    world = World(family, outer)
    gradient = world.gradients()
    assert gradient.isfinite().all()
    assert gradient.abs().min() > 1e-7
