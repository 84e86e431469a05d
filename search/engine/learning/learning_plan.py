"""What a run learns, from which questions, and how much of it the budget pays for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runs.config.budget import Budget
from runs.config.config_sections import LearnSection
from runs.config.run_config import RunConfig
from runs.records.manifest import Manifest
from runs.records.record import LEARNED
from search.engine.learning.adam_descent import per_task
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe
from spaces.sampling.distributions import NotInSpace
from spaces.sampling.draw import params
from spaces.sampling.layered_weights import METHOD, layered
from spaces.sampling.seed_recipes import Seed, seeds
from spaces.search_space.space import Space

BACKWARD = 3
"""What a question costs that is differentiated, in questions: a backward pass is two forward."""

FEWEST_QUESTIONS = 20
"""Search questions below which nothing is learned."""

FEWEST_STEPS = 20
"""Steps of a recipe that a budget has to pay for."""

ENOUGH_STEPS = 60
"""Steps that bring most of what there is to learn."""

SIDE = 0.25
"""The share of a budget that pays for enough steps of both recipes, where both are learned."""

MOST_ASIDE = 60
"""Questions kept aside to choose the coefficients by."""

ASIDE = 0.2
"""The share of the search questions that is kept aside, up to ``MOST_ASIDE``."""

LOOK = 10
"""Steps between two looks at the questions kept aside."""

KINDS = (("self_attn", "attention", "attn"), ("mlp", "feed_forward", "ffn", "block_sparse_moe"))
"""Names of the kinds of tensors that have coefficients of their own, the first that occurs."""


def filters_of(layers: Sequence[Iterable[str]]) -> tuple[str, ...]:
    """Which names of ``KINDS`` the tensors of a model's layers have."""
    names = {suffix for layer in layers for suffix in layer}
    found = (next((one for one in kind if any(one in n for n in names)), None) for kind in KINDS)
    return tuple(one for one in found if one is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningPlan:
    """What a run means to learn.

    Attributes:
        recipes: How many.
        steps: Gradients of each.
        off: Why it learns nothing; empty where it does.
    """

    recipes: int
    steps: int
    off: str = ""


def plan_of(config: RunConfig, manifest: Manifest, space: Space, *, reserved: int) -> LearningPlan:
    """What a run learns, as far as its config, models and budget say.

    Args:
        config: Of the run.
        manifest: Of its study.
        space: What it searches.
        reserved: Questions of the budget that are for the final check.
    """
    searched = set(manifest.questions.search)
    recipes, steps = plan_for(
        section_of(config.search.learn),
        Budget.of(config.search),
        questions=len(searched),
        tasks=len({one.task for one in manifest.catalogue.questions if one.id in searched}),
        reserved=reserved,
    )
    off, fewest = _why_not(config, manifest, space), fewest_steps(section_of(config.search.learn))
    if not off and steps < fewest:
        off = f"the budget pays for {steps} steps of at least {fewest}"
    return LearningPlan(recipes=recipes, steps=steps, off=off)


def fewest_steps(section: LearnSection) -> int:
    """Steps below which learning is not begun, unless a config asks for fewer."""
    return min(FEWEST_STEPS, section.steps)


def _why_not(config: RunConfig, manifest: Manifest, space: Space) -> str:
    if config.search.learn is None:
        return "search.learn is off"
    if manifest.dry_run or config.evaluator is not None:
        return "it needs answers of lm-eval's tasks"
    if space.base is None:
        return "it needs a base model"
    if METHOD not in space.methods or space.order == "pairwise":
        return f"it needs {METHOD} of all parents at once, which the space leaves out"
    if config.search.seeds == "none":
        return "search.seeds is none"
    if len(manifest.questions.search) < FEWEST_QUESTIONS:
        return f"it needs {FEWEST_QUESTIONS} search questions, got {len(manifest.questions.search)}"
    return ""


def plan_for(
    section: LearnSection, budget: Budget, *, questions: int, tasks: int, reserved: int
) -> tuple[int, int]:
    """How many recipes the budget pays for learning, and how many steps of each.

    Both where that leaves most of the budget to search around the second one; else only the one
    with a weight for every layer, which brings more than a search of the same price.

    Args:
        section: The most steps, and the share of the budget that learning may take.
        budget: Of the run.
        questions: Search questions: what a recipe of a budget in recipes costs.
        tasks: Tasks that they are of, at least 1.
        reserved: Questions of the budget that are for the final check.
    """
    most = math.inf
    if budget.questions is not None:
        most = max(0, budget.questions - reserved)
    if budget.trials is not None:
        most = min(most, budget.trials * questions)
    each = (
        BACKWARD * tasks * per_task(section.batch, tasks)
        + min(MOST_ASIDE, ASIDE * questions) / LOOK
    )
    both = min(section.steps, min(section.share, SIDE) * most / (2 * each))
    if both >= min(section.steps, ENOUGH_STEPS):
        return 2, int(both)
    return 1, int(min(section.steps, section.share * most / each))


def kept_aside(questions: Sequence[str], documents: Mapping[str, str]) -> tuple[str, ...]:
    """Questions to choose coefficients by, whole documents only; none of them is learned from.

    Args:
        questions: Search questions in the run's order.
        documents: The document of every question.
    """
    wanted = min(MOST_ASIDE, math.ceil(ASIDE * len(questions)))
    by_document: dict[str, list[str]] = {}
    for name in reversed(questions):  # from the end: the first ones are asked most often
        by_document.setdefault(documents[name], []).append(name)
    found: list[str] = []
    for names in by_document.values():
        if len(found) + len(names) <= wanted:
            found += names
    return tuple(found)


def starts(
    space: Space, *, layers: int, filters: Sequence[str], most: int = 2
) -> dict[str, Recipe]:
    """The recipes to learn, at most so many, by the name of what comes of them."""
    found = {f"{LEARNED}by layer": layered(space, layers=layers, filters=filters)}
    for seed in seeds(space):
        if seed.params is not None and seed.name.startswith(f"{METHOD} weight 1/"):
            found[f"{LEARNED}in the space"] = seed.recipe
    return dict(list(found.items())[:most])


def parents_of(space: Space) -> dict[str, Recipe]:
    """Every parent as it stands, by name."""
    found = {one.recipe.alone: one.recipe for one in seeds(space)}
    return {name: found[name] for name in space.parents if name in found}


def seed_of(name: str, recipe: Recipe, space: Space) -> Seed:
    """What was learned as a recipe to try; as one of the space where it can draw it."""
    low, high = space.weight.low, space.weight.high
    found = Coefficients(recipe)
    within = found.replaced([min(max(one, low), high) for one in found.values])
    try:
        return Seed(name=name, recipe=within, params=params(within, space))
    except NotInSpace:
        return Seed(name=name, recipe=recipe, params=None)


def section_of(value: Any) -> LearnSection:
    """How to learn: what a config says, or the defaults for ``auto``."""
    return value if isinstance(value, LearnSection) else LearnSection()
