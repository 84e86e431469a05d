"""Scoring one model or recipe in this process, on a run's questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Literal

from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import Candidate, EvaluatorError, Failure, TaskScore, scored
from evaluators.workers.attempt import attempt
from runs.config.run_config import RunConfig
from search.engine.preparation.run_preparation import prepare
from search.engine.processes.worker_setup import evaluator_factory
from search.inputs.given_config import GivenConfig
from search.inputs.input_error import InputError, RunFailed
from search.inputs.recipe_files import read_recipe
from search.inputs.recipe_models import open_models
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

Part = Literal["search", "held-out", "all"]
"""Which questions of a run."""

_OTHER = "scored-model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a model or recipe scored.

    Attributes:
        name: What was scored.
        value: Weighted mean over the tasks, larger is better.
        stderr: Standard error of ``value``.
        tasks: Of each task, by name.
        questions: How many were asked.
        fingerprint: Hash of the weights.
    """

    name: str
    value: float
    stderr: float
    tasks: Mapping[str, TaskScore]
    questions: int
    fingerprint: str

    def __repr__(self) -> str:
        return (
            f"<Scored {self.name}: {self.value:.4f} ± {self.stderr:.4f} "
            f"({self.questions} questions)>"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{one.value:.4f} ± {one.doubt:.4f}</td>"
            f"<td>{one.n}</td></tr>"
            for name, one in self.tasks.items()
        )
        head = f"<tr><th>{escape(self.name)}</th><th>{self.value:.4f} ± {self.stderr:.4f}</th>"
        return f"<table>{head}<th>{self.questions}</th></tr>{rows}</table>"


def score(
    given: GivenConfig,
    what: str | Path | Recipe,
    *,
    questions: Part = "held-out",
    limit: int | None = None,
) -> Scored:
    """Score something; see ``search.api.score``.

    Raises:
        InputError: If it, the config, its models or its tasks cannot be used.
        RunFailed: If it could not be scored.
    """
    prepared = prepare(given, dry_run=False)
    name, recipe, spec = _target(prepared.config, what)
    split = prepared.manifest.questions
    parts = {"search": split.search, "held-out": split.held_out}
    if questions not in (*parts, "all"):
        raise InputError(f"questions: expected search, held-out or all, got {questions!r}")
    asked = parts.get(questions, (*split.search, *split.held_out))[:limit]
    if not asked:
        raise InputError(f"questions: expected {questions} questions in this config, got none")
    try:
        evaluator = evaluator_factory(prepared.config, spec)()
    except EvaluatorError as error:
        raise InputError(error.problems) from error
    try:
        found = scored(attempt(evaluator, Candidate(id=0, recipe=recipe, questions=tuple(asked))))
    finally:
        evaluator.close()
    if isinstance(found, Failure):
        raise RunFailed(f"{name}: {found.kind}: {found.message}")
    return Scored(
        name=name,
        value=found.value,
        stderr=found.stderr,
        tasks={one.task: one for one in found.tasks},
        questions=len(found.outcomes),
        fingerprint=found.fingerprint,
    )


def _target(config: RunConfig, what: str | Path | Recipe) -> tuple[str, Recipe, HarnessSpec]:
    """What to call it, its recipe, and the models that it needs."""
    spec = config.harness_spec()
    if isinstance(what, Recipe):
        unknown = [name for name in what.needed if name not in config.locations]
        if unknown:
            known = ", ".join(config.locations)
            raise InputError(f"recipe: expected models among {known}, got {', '.join(unknown)}")
        return f"{what.title} {what.key}", what, spec
    if str(what) in config.locations:
        return str(what), _alone(str(what), config), spec
    path = Path(what)
    if path.suffix in (".yaml", ".yml"):
        document = read_recipe(path)
        opened = open_models(document, path)
        models = tuple((name, one.location) for name, one in opened.items())
        return path.name, document.recipe, replace(spec, models=models)
    return path.name, _alone(_OTHER, config), replace(spec, models=((_OTHER, str(what)),))


def _alone(name: str, config: RunConfig) -> Recipe:
    """A model as it is, in the output's dtype."""
    source = Source(of=Model(name), parameters=parameters(weight=1.0))
    return Recipe(root=Merge(method="linear", sources=(source,)), dtype=config.output.dtype)
