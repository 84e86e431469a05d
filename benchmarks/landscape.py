"""A made-up family of models whose merges can be scored in a millisecond, question by question.

It is no model of any real family. It has what makes real ones hard: parents that are good at
different tasks and at different depths, gains that saturate, parents that get in each other's way
(less so with methods that resolve conflicts, and depending on who is merged first), collapse when
too much is added, a rough part, and right or wrong answers to a limited number of questions, where
recipes that are alike answer alike. The truth is the expected score on many other questions.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from spaces.recipes.recipe import Merge, Model, Parameters, Recipe, resolve
from spaces.search_space.space import Depth, Space

Array = NDArray[np.float64]

PARENTS = ("math", "code", "chat", "general")
TASKS = 3
LAYERS = 24
METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")

SLOPE = (0.6, 0.35)
"""Mean and standard deviation of the logarithm of the questions' slopes."""

HARDNESS = (0.3, 1.1)
"""Mean and standard deviation of the questions' hardness."""

SPACE = Space(
    parents=PARENTS, base="base", layers=LAYERS, methods=METHODS, depth=Depth(knots=3)
)  # fmt: skip
"""What the samplers draw from: methods, weights at three depths, densities, factors, trees."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a recipe comes to: shares per parent and layer, and how each pair is merged.

    Attributes:
        shares: ``(parents, layers)``.
        density: ``(parents,)``.
        pairs: Method of the merge that joins two parents, and how many parents are in it.
    """

    shares: Array
    density: Array
    pairs: dict[tuple[int, int], tuple[str, int]]


def mixture(node: Model | Merge) -> Mixture:
    """Follow a merge from its leaves to its root, layer by layer."""
    if isinstance(node, Model):
        shares = np.zeros((len(PARENTS), LAYERS))
        shares[PARENTS.index(node.name)] = 1.0
        return Mixture(shares, np.ones(len(PARENTS)), {})
    inputs = [mixture(source.of) for source in node.sources]
    tables = [source.parameters for source in node.sources]
    density = np.ones(len(PARENTS))
    pairs = {pair: how for one in inputs for pair, how in one.pairs.items()}
    for one, table in zip(inputs, tables, strict=True):
        inside = one.shares.any(axis=1)
        density[inside] = one.density[inside] * _at(table, "density", 1.0).mean()
    members = [np.flatnonzero(one.shares.any(axis=1)).tolist() for one in inputs]
    size = sum(map(len, members))
    for left, right in combinations(members, 2):
        pairs |= {(min(i, j), max(i, j)): (node.method, size) for i in left for j in right}
    shares = sum((f * one.shares for f, one in zip(_factors(node, tables), inputs, strict=True)),
                 np.zeros((len(PARENTS), LAYERS)))  # fmt: skip
    return Mixture(shares, density, pairs)


def _factors(node: Merge, tables: list[Parameters]) -> list[Array]:
    if node.method == "slerp":
        t = _at(node.parameters, "t", 0.5)
        return [1.0 - t if source.of == node.base else t for source in node.sources]
    weights = [_at(table, "weight", 1.0) for table in tables]
    factor = _at(node.parameters, "lambda", 1.0)
    if node.method in ("linear", "ties"):
        factor = factor / np.maximum(sum(weights, np.zeros(LAYERS)), 1e-3)
    return [factor * weight for weight in weights]


def _at(table: Parameters, name: str, default: float) -> Array:
    value = dict(table).get(name, default)
    layers = range(LAYERS)
    found = [resolve(value, tensor="", position=layer / (LAYERS - 1)) for layer in layers]
    return np.array(found, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Exam:
    """Questions of the tasks, drawn from the same population as all others.

    Attributes:
        slope: ``(TASKS, n)``: how sharply each tells the able from the others.
        hardness: ``(TASKS, n)``: skill at which half of the answers are right, but for guesses.
        field: ``(2, TASKS, n, 64)``: what makes recipes that are alike answer alike.
        seed: Of the luck that a recipe has to itself.
    """

    slope: Array
    hardness: Array
    field: Array
    seed: int


class Landscape:
    """One family: what its merges can do, and the questions they are asked.

    Args:
        seed: Another seed is another family.
        questions: Questions per task that a search may ask.
        roughness: Size of the part that no smooth model explains by the parents' shares.
    """

    def __init__(self, seed: int, *, questions: int = 300, roughness: float = 0.1) -> None:
        rng = np.random.default_rng([20_000, seed])
        parents, depth = len(PARENTS), np.linspace(0.0, 1.0, LAYERS)
        self._seed, self._questions = seed, questions
        self._start = rng.normal(-0.35, 0.15, TASKS)
        self._gain = rng.normal(0.0, 0.3, (TASKS, parents))
        for task in range(TASKS):
            self._gain[task, task] = rng.uniform(0.9, 1.5)
        self._gain[:, -1] = rng.uniform(0.2, 0.6, TASKS)
        middle = rng.uniform(0.0, 1.0, (TASKS, parents, 1))
        width = rng.uniform(0.2, 0.5, (TASKS, parents, 1))
        where = np.exp(-0.5 * ((depth - middle) / width) ** 2) + 0.25
        self._where = where / where.sum(axis=2, keepdims=True)
        self._saturation = rng.uniform(1.2, 3.0, (TASKS, parents, 1))
        conflict = np.abs(rng.normal(0.38, 0.28, (parents, parents, 3)))
        self._conflict = conflict + conflict.transpose(1, 0, 2)
        self._sensitive = rng.uniform(0.5, 1.5, TASKS)
        self._resolved = {name: rng.uniform(0.25, 0.75) for name in ("ties", "dare_ties", "slerp")}
        self._best_density = {name: rng.uniform(0.25, 0.8) for name in ("ties", "dare_ties")}
        early = rng.uniform(-0.5, 1.0, (parents, parents))
        self._early = (early + early.T) / 2.0
        self._collapse = rng.uniform(1.2, 2.5)
        self._waves = rng.normal(0.0, 1.0, (64, parents * 4 + 1 + len(METHODS))) / 1.1
        self._phase = rng.uniform(0.0, 2.0 * np.pi, 64)
        self._rough = rng.normal(0.0, roughness, (TASKS, 64))
        total = questions + 1500
        self._slope = np.exp(rng.normal(*SLOPE, (TASKS, total)))
        self._hardness = rng.normal(*HARDNESS, (TASKS, total))
        self._guess = np.array([0.0, 0.0, 0.25])[:, None]
        self.search = Exam(
            slope=self._slope[:, :questions],
            hardness=self._hardness[:, :questions],
            field=rng.normal(0.0, 1.0, (2, TASKS, questions, 64)),
            seed=seed,
        )

    def exam(self, questions: int, *, seed: int) -> Exam:
        """Other questions of the same kind, so many per task."""
        rng = np.random.default_rng([20_001, self._seed, seed])
        return Exam(
            slope=np.exp(rng.normal(*SLOPE, (TASKS, questions))),
            hardness=rng.normal(*HARDNESS, (TASKS, questions)),
            field=rng.normal(0.0, 1.0, (2, TASKS, questions, 64)),
            seed=int(rng.integers(2**31)),
        )

    def skill(self, recipe: Recipe) -> tuple[Array, Array]:
        """Skill per task, and the 64 waves that decide which questions are got right."""
        mix = mixture(recipe.root)
        shares, density = np.maximum(mix.shares, 0.0), mix.density
        saturated = (1.0 - np.exp(-self._saturation * shares)) / (1.0 - np.exp(-self._saturation))
        gain = (self._gain[:, :, None] * self._where * saturated).sum(axis=(1, 2))
        methods = [method for method, _ in mix.pairs.values()]
        loss, third = 0.0, np.minimum(np.arange(LAYERS) * 3 // LAYERS, 2)
        for (i, j), (method, size) in mix.pairs.items():
            resolved = self._resolved.get(method, 0.0)
            if method in self._best_density:
                off = (density[i] + density[j]) / 2.0 - self._best_density[method]
                resolved *= np.exp(-((off / 0.3) ** 2))
            if size < len(PARENTS):
                resolved += 0.5 * self._early[i, j]
            loss += (self._conflict[i, j, third] * shares[i] * shares[j]).mean() * (1.0 - resolved)
        total = shares.sum(axis=0)
        over = self._collapse * (np.maximum(total - 1.15, 0.0) ** 2).mean()
        uneven = 0.3 * np.abs(np.diff(shares, axis=1)).sum(axis=0).mean()
        share = sum(method == "dare_ties" for method in methods) / max(len(methods), 1)
        noise = 0.06 * share * float(np.mean(1.0 / np.maximum(density, 0.08) - 1.0))
        waves = self._wave(shares, density, methods)
        skill = self._start + gain - self._sensitive * loss - over - uneven - noise
        return skill + self._rough @ waves, waves

    def _wave(self, shares: Array, density: Array, methods: list[str]) -> Array:
        used = np.array([methods.count(name) for name in METHODS]) / max(len(methods), 1)
        at = 2.2 * shares[:, [0, 8, 16, 23]].ravel()
        place = np.concatenate([at, [1.5 * density.mean()], 0.7 * used])
        waves: Array = np.sqrt(2.0 / 64.0) * np.cos(self._waves @ place + self._phase)
        return waves

    def truth(self, recipe: Recipe) -> float:
        """Expected score on questions that no search sees, 0 to 1."""
        skill, _ = self.skill(recipe)
        n = self._questions
        right = ndtr(self._slope[:, n:] * (skill[:, None] - self._hardness[:, n:]))
        return float((self._guess + (1.0 - self._guess) * right).mean())

    def expected(self, recipe: Recipe) -> float:
        """Expected score on a question drawn anew: the truth that questions are a sample of."""
        return self.worth(self.skill(recipe)[0])

    def worth(self, skill: Array) -> float:
        """Expected score of a skill per task on a question drawn anew."""
        at, chances = np.polynomial.hermite_e.hermegauss(40)
        slope = np.exp(SLOPE[0] + SLOPE[1] * at)
        # The mean over normal hardness has a closed form; slopes are integrated numerically.
        reach = slope * (skill[:, None] - HARDNESS[0]) / np.hypot(1.0, slope * HARDNESS[1])
        right = ndtr(reach) @ (chances / chances.sum())
        return float((self._guess[:, 0] + (1.0 - self._guess[:, 0]) * right).mean())

    def answers(self, recipe: Recipe, exam: Exam) -> NDArray[np.bool_]:
        """Which questions are answered right, ``(TASKS, n)``."""
        return self.solved(recipe, exam)[0]

    def solved(self, recipe: Recipe, exam: Exam) -> tuple[NDArray[np.bool_], Array]:
        """Which questions are answered right, and a chance in (0, 1) for each of the others.

        The chances are uniform where an answer is wrong, and alike for recipes that are alike: they
        say how wrong it is.
        """
        skill, waves = self.skill(recipe)
        own = np.random.default_rng([exam.seed, zlib.crc32(recipe.key.encode())])
        luck = np.sqrt(0.85) * (exam.field @ (waves / np.linalg.norm(waves)))
        luck += np.sqrt(0.15) * own.normal(size=luck.shape)
        able = exam.slope * (skill[:, None] - exam.hardness) + luck[0] > 0
        chance = ndtr(luck[1])
        guessed: NDArray[np.bool_] = chance < self._guess
        return able | guessed, (chance - self._guess) / (1.0 - self._guess)

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Share of right answers to all questions, mean over tasks, and its standard error."""
        tasks = self.answers(recipe, self.search).mean(axis=1)
        variance = np.sum(tasks * (1.0 - tasks) / self._questions)
        return float(tasks.mean()), float(np.sqrt(variance) / TASKS)
