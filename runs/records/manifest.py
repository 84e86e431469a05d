"""What is fixed when a run is created, as values and as rows of study.db."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluators.protocol import Catalogue, Floor, Question, TaskInfo
from runs.records.question_split import Questions
from spaces.recipes.parameter_count import ParameterCount
from spaces.sampling.seed_recipes import Seed

FORMAT = 2
"""Version of the tables and values of study.db; a study of another version is refused."""

MODELS_CHANGED = "models changed"
"""The fact that says when models were found changed during the run, and which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is fixed when a run is created.

    Attributes:
        config: The run's configuration as text.
        space: The bounds of the search, as ``Space.to_dict`` gives them.
        inputs: Input hash of every model by name; of samples alone in earlier studies.
        inputs_dtype: Widest dtype of the models' weights, such as ``bfloat16``.
        catalogue: Tasks and questions.
        questions: The split and order of the questions.
        versions: Versions of the packages that made the run.
        created: When, ISO 8601 with time zone.
        dry_run: Whether scores are made up instead of measured.
        objectives: What is searched for at once: tasks, or ``score`` for their weighted sum, and
            measures to be small; none where the weighted sum is the one objective.
        seeds: Recipes to try first, in order; files that they came from are not needed again.
        sizes: What tells the number of parameters of a recipe's model; ``None`` if not known.
    """

    config: str
    space: dict[str, Any]
    inputs: dict[str, str]
    inputs_dtype: str
    catalogue: Catalogue
    questions: Questions
    versions: dict[str, str]
    created: str
    dry_run: bool = False
    objectives: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()
    sizes: ParameterCount | None = None

    def to_rows(self) -> dict[str, str]:
        """The manifest as texts by key; ``from_rows`` is the inverse."""
        positions = {question.id: at for at, question in enumerate(self.catalogue.questions)}
        return {
            "format": str(FORMAT),
            "config": self.config,
            "space": json.dumps(self.space),
            "inputs": json.dumps(self.inputs),
            "inputs_dtype": self.inputs_dtype,
            "tasks": json.dumps([asdict(task) for task in self.catalogue.tasks]),
            "catalogue": json.dumps(
                [[q.id, q.task, q.position, q.document] for q in self.catalogue.questions]
            ),
            "search": json.dumps([positions[name] for name in self.questions.search]),
            "held_out": json.dumps([positions[name] for name in self.questions.held_out]),
            "versions": json.dumps(self.versions),
            "created": self.created,
            "dry_run": json.dumps(self.dry_run),
            "objectives": json.dumps(self.objectives),
            "seeds": json.dumps([seed.to_dict() for seed in self.seeds]),
            "sizes": json.dumps(self.sizes.to_dict() if self.sizes else None),
        }

    @classmethod
    def from_rows(cls, rows: Mapping[str, str]) -> Manifest:
        """The manifest that ``to_rows`` wrote."""
        questions = tuple(
            Question(id=name, task=task, position=position, document=next(iter(document), ""))
            for name, task, position, *document in json.loads(rows["catalogue"])
        )
        tasks = tuple(_task(**task) for task in json.loads(rows["tasks"]))
        if {question.task for question in questions} - {task.name for task in tasks}:
            raise ValueError("a question of a task that is not there")
        return cls(
            config=rows["config"],
            space=json.loads(rows["space"]),
            inputs=json.loads(rows["inputs"]),
            inputs_dtype=rows["inputs_dtype"],
            catalogue=Catalogue(tasks=tasks, questions=questions),
            questions=Questions(
                search=tuple(questions[at].id for at in json.loads(rows["search"])),
                held_out=tuple(questions[at].id for at in json.loads(rows["held_out"])),
            ),
            versions=json.loads(rows["versions"]),
            created=rows["created"],
            dry_run=json.loads(rows["dry_run"]),
            objectives=tuple(json.loads(rows.get("objectives", "[]"))),
            seeds=tuple(Seed.from_dict(seed) for seed in json.loads(rows["seeds"])),
            sizes=ParameterCount.from_dict(sizes)
            if (sizes := json.loads(rows.get("sizes", "null")))
            else None,
        )


def _task(*, floor: Mapping[str, float | None] | None = None, **known: Any) -> TaskInfo:
    return TaskInfo(**known, floor=None if floor is None else Floor(**floor))
