"""Merging by the outputs of layers, without gradients, on the families of ``benchmarks.tiny``.

    python -m benchmarks.layer_outputs                # ten families
    python -m benchmarks.layer_outputs --show

Every parent reads a few search questions of each task with their answers, in forward passes whose
inputs to each layer are watched. Of the parent best at a task (the least loss) two things follow:

Least squares: of the deltas ``D_j`` and the inputs ``X`` of the best parent ``i``, coefficients
``c`` with the least ``|(sum_j c_j D_j - D_i) X|^2 / |D_i X|^2`` over tasks and layers, and a
ridge towards equal weights. They are those that ``search run`` learns, and make a recipe.

RegMean (Jin et al. 2023): the weights with the least ``sum_i |(W - W_i) X_i|^2`` of every linear
layer, ``(sum_i G_i)^-1 sum_i G_i W_i`` with ``G = X X'``, off-diagonals shrunk. It makes no recipe.

Beside them: coefficients learned by gradients for the price of 2, 5 and 10 full evaluations, and
for 2 from the least squares on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.tiny import BUILD, SEARCHED, World  # first: it sets one thread

# isort: split
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.learning import CHECKS, learned, start_of, steps_paid_for
from benchmarks.profiles import show
from evaluators.harness.answers.answer_gradients import backward
from runs.config.run_config import load_config
from search.engine.learning.learning_plan import parents_of
from search.setup.demo_models.model_family import make_family
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Merge, Recipe, Source, parameters

QUESTIONS = 10
"""Of each task, that every parent reads."""

RIDGE, SHRUNK = 0.3, 0.9
"""Pull towards equal weights, and factor of the off-diagonals."""

Weights = dict[str, Tensor]


@dataclass(kw_only=True)
class Reading:
    """What a parent's forward passes over the questions of a task say of its layers, by tensor.

    Attributes:
        loss: Mean loss of right answers.
        products: ``(parents, parents)`` inner products of the outputs of all deltas.
        grams: ``(inputs, inputs)`` of a linear layer.
    """

    loss: float = 0.0
    products: dict[str, Tensor] = field(default_factory=dict)
    grams: dict[str, Tensor] = field(default_factory=dict)


def read(world: World, parent: Recipe, asked: Sequence[str], deltas: Sequence[Weights]) -> Reading:
    """Watch a parent read questions with their answers."""
    built = world.evaluator._built(parent)  # a benchmark may look inside
    model, found = built.skeleton.model, Reading()

    def look(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs = given[0].detach().flatten(0, 1)
        if isinstance(module, nn.Embedding):
            outputs = torch.stack([delta[name][inputs] for delta in deltas])
        else:
            outputs = torch.stack([inputs @ delta[name].T for delta in deltas])
            gram = inputs.T.double() @ inputs.double()
            found.grams[name] = found.grams.get(name, 0.0) + gram
        outputs = outputs.flatten(1).double()
        found.products[name] = found.products.get(name, 0.0) + outputs @ outputs.T

    handles = [
        module.register_forward_pre_hook(
            lambda module, given, name=f"{name}.weight": look(name, module, given)
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
        and f"{name}.weight" in deltas[0]  # a tied head has no weights of its own
    ]
    answers = world.evaluator._answers(built, world.evaluator._asked(asked))
    losses = backward(model, answers, {}, batch=1, device=model.device)  # one at a time: no padding
    for handle in handles:
        handle.remove()
    found.loss = fmean(losses.values())
    return found


def least_squares(start: Recipe, best: Sequence[tuple[int, Reading]]) -> Recipe:
    """The recipe with the coefficients whose layers' outputs are nearest to the best parents'."""
    coefficients, merge = Coefficients(start), start.root
    assert isinstance(merge, Merge)
    first = np.array(coefficients.values)
    matrix, right = np.zeros((len(first), len(first))), np.zeros(len(first))
    layers = 1 + max(_layer(name) for _, reading in best for name in reading.products)
    for parent, reading in best:
        for name, products in reading.products.items():
            shares = np.zeros((len(merge.sources), len(first)))
            for at, source in enumerate(merge.sources):
                depth = max(0, _layer(name)) / (layers - 1)
                for index, share in coefficients.shares(merge, source, tensor=name, position=depth):
                    shares[at, index] = share
            scaled = products.numpy() / float(products[parent, parent])
            matrix += shares.T @ scaled @ shares
            right += shares.T @ scaled[:, parent]
    pull = RIDGE * float(np.diag(matrix).mean())
    values = np.linalg.solve(matrix + pull * np.eye(len(first)), right + pull * first)
    return coefficients.replaced(values.tolist())


def regmean(model: Any, best: Sequence[tuple[int, Reading]], parents: Sequence[Weights]) -> None:
    """Fill a model with the weights; what is no linear layer is averaged."""
    with torch.no_grad():
        for name, target in model.named_parameters():
            target.copy_(torch.stack([parents[at][name] for at, _ in best]).mean(0))
            if name not in best[0][1].grams:
                continue
            grams = [_shrunk(reading.grams[name]) for _, reading in best]
            mixed = sum(
                gram @ parents[at][name].T.double()
                for gram, (at, _) in zip(grams, best, strict=True)
            )
            target.copy_(torch.linalg.solve(torch.stack(grams).sum(0), mixed).T)


def _shrunk(gram: Tensor) -> Tensor:
    diagonal = gram.diagonal().diag()
    return (
        SHRUNK * gram
        + (1 - SHRUNK) * diagonal
        + 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    )


def _layer(name: str) -> int:
    """Number of the layer that a tensor is in; -1 outside."""
    _, found, rest = name.partition(".layers.")
    return int(rest.split(".")[0]) if found else -1


def weights_of(world: World, recipe: Recipe) -> Weights:
    """A copy of all weights of a recipe."""
    model = world.evaluator._built(recipe).skeleton.model
    return {name: one.detach().clone() for name, one in model.named_parameters()}


def first_of_each(world: World) -> dict[str, list[str]]:
    """The first search questions of each task."""
    found: dict[str, list[str]] = {}
    task_of = {one.id: one.task for one in world.evaluator.catalogue().questions}
    for name in world.questions.search:
        found.setdefault(task_of[name], []).append(name)
    return {task: names[:QUESTIONS] for task, names in found.items()}


def base_of(like: Recipe) -> Recipe:
    """The base alone, with the output of another recipe."""
    merge = like.root
    assert isinstance(merge, Merge)
    assert merge.base is not None
    alone = Source(of=merge.base, parameters=parameters(weight=1.0))
    return Recipe(root=Merge(method="linear", sources=(alone,)), dtype=like.dtype, seed=like.seed)


def measure(folder: Path, seed: int, checks: Sequence[int]) -> dict[str, float]:
    """Held-out scores by the way of merging, and the price of reading in full evaluations."""
    world = World.of(folder, seed=seed, hard=True)
    config = load_config(make_family(folder, seed=seed, hard=True).config)
    start, asked = start_of(world, config), first_of_each(world)
    recipes = list(parents_of(world.space).values())
    base = weights_of(world, base_of(start))
    parents = [weights_of(world, recipe) for recipe in recipes]
    deltas = [{name: one[name] - base[name] for name in base} for one in parents]
    best = []
    for names in asked.values():
        readings = [read(world, recipe, names, deltas) for recipe in recipes]
        at = min(range(len(recipes)), key=lambda one: readings[one].loss)
        best.append((at, readings[at]))
    price = len(recipes) * (BUILD + QUESTIONS * len(asked)) / (SEARCHED + BUILD)
    nearest = least_squares(start, best)
    found = {
        "price": price,
        "equal weights": world.held_out(start),
        "least squares": world.held_out(nearest),
    }
    for check in checks:
        recipe, _ = learned(world, config, steps=steps_paid_for(check))
        found[f"learned after {check}"] = world.held_out(recipe)
    recipe, _ = learned(world, config, steps=steps_paid_for(checks[0] - price), start=nearest)
    found[f"from least squares after {checks[0]}"] = world.held_out(recipe)
    built = world.evaluator._built(start)
    regmean(built.skeleton.model, best, parents)
    scores, _ = world.evaluator._answer(built, world.evaluator._asked(world.questions.held_out))
    found["RegMean"] = fmean(one.value for one in scores)
    world.evaluator.close()
    return found


def scored(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """What every family has a score of."""
    rows = list(results.values())
    names = [name for name in rows[0] if name != "price" and all(name in row for row in rows)]
    return {seed: {name: row[name] for name in names} for seed, row in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families"))
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results/layer_outputs.json")
    )
    parser.add_argument("--checks", type=int, nargs="+", default=CHECKS, help="full evaluations")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for seed in () if args.show else args.families:
        if str(seed) not in results:
            results[str(seed)] = measure(args.folder / f"hard{seed}", seed, args.checks)
            args.results.write_text(json.dumps(results, indent=1) + "\n")
            print(seed, results[str(seed)], flush=True)
    show(scored(results))


if __name__ == "__main__":
    main()
