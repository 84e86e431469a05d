"""An evaluator that asks no recipe the same question twice, also after the process has ended.

Different strategies ask the same first recipes and the same parents, and a run that was broken off
is begun again: what was answered before is read from a file. What a strategy has to pay is counted
elsewhere and is the same as without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.harness.answers.task_scores import task_score
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, Catalogue, Failure, LossGradient, Outcome, Score


class Remembered:
    """Answers from a file, and from an evaluator what is not in it.

    Args:
        evaluator: Its tasks have metrics that are means over questions.
        path: Where answers are kept, a line of JSON for each request.
    """

    def __init__(self, evaluator: HarnessEvaluator, path: Path) -> None:
        self._evaluator, self._path = evaluator, path
        self._answers: dict[str, dict[str, tuple[float, float | None]]] = {}
        self._prints: dict[str, str] = {}
        self._gradients: dict[str, Mapping[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            self._take(json.loads(line))

    @property
    def notes(self) -> tuple[str, ...]:
        return self._evaluator.notes

    def catalogue(self) -> Catalogue:
        return self._evaluator.catalogue()

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        if candidate.texts:  # which are not kept
            return self._evaluator.evaluate(candidate)
        key = candidate.recipe.key
        known = self._answers.get(key, {})
        missing = tuple(name for name in candidate.questions if name not in known)
        seconds = (0.0, 0.0)
        if missing:
            asked = Candidate(id=candidate.id, recipe=candidate.recipe, questions=missing)
            found = self._evaluator.evaluate(asked)
            if isinstance(found, Failure):
                return found
            seconds = (found.build_seconds, found.score_seconds)
            answers = {one.question: (one.value, one.length) for one in found.outcomes}
            self._keep({"answers": key, "print": found.fingerprint, "found": answers})
        return self._score(candidate, seconds)

    def gradient(self, candidate: Candidate) -> LossGradient | Failure:
        key = _request(candidate)
        if key not in self._gradients:
            found = self._evaluator.gradient(candidate)
            if isinstance(found, Failure):
                return found
            fields = ("losses", "gradient", "tokens", "build_seconds", "seconds")
            self._keep({"gradient": key, "found": {one: getattr(found, one) for one in fields}})
        kept = self._gradients[key]
        return LossGradient(**{**kept, "gradient": tuple(kept["gradient"])})

    def close(self) -> None:
        self._evaluator.close()

    def _keep(self, line: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "gradient" in line:
            self._gradients[line["gradient"]] = line["found"]
        else:
            self._answers.setdefault(line["answers"], {}).update(line["found"])
            self._prints[line["answers"]] = line["print"]

    def _score(self, candidate: Candidate, seconds: tuple[float, float]) -> Score:
        known = self._answers[candidate.recipe.key]
        tasks: dict[str, dict[str, float]] = {}
        for name in candidate.questions:
            tasks.setdefault(name.rpartition("/")[0], {})[name] = known[name][0]
        return Score.of(
            self.catalogue().tasks,
            [task_score(one, items, aggregate=np.mean, mean=True) for one, items in tasks.items()],
            outcomes=tuple(
                Outcome(question=name, value=known[name][0], length=known[name][1])
                for name in candidate.questions
            ),
            fingerprint=self._prints[candidate.recipe.key],
            build_seconds=seconds[0],
            score_seconds=seconds[1],
        )


def _request(candidate: Candidate) -> str:
    """What the gradient depends on, as text."""
    weights = sorted((candidate.weights or {}).items())
    targets = [dict(candidate.targets)] if candidate.targets else []
    return json.dumps([candidate.recipe.key, list(candidate.questions), weights, *targets])
