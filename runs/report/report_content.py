"""What a report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from evaluators.protocol import TaskInfo
from runs.activity.timeline import Timeline
from runs.ranking.lead import why_first
from runs.ranking.verdict import Verdict
from runs.records.answer_book import AnswerBook
from runs.records.record import Record
from runs.report.insights import Insights
from runs.report.learning_summary import LearningSummary

Facts = Mapping[str, Mapping[str, str | int | float | None]]
"""Sections of facts about a run, such as ``versions``, each with names and values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What only the page for people shows.

    Attributes:
        records: All candidates, with posteriors where they are known.
        timeline: Who was busy when.
        insights: What the scores say about the parts of the recipes.
        layers: Layers of the parents.
        recipe: Gives a candidate's recipe as YAML.
        study: The study as commands name it.
        answers: What the best candidates and those beside them answered; ``None`` without texts.
    """

    records: tuple[Record, ...]
    timeline: Timeline
    insights: Insights
    layers: int
    recipe: Callable[[Record], str]
    study: str
    answers: AnswerBook | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything a report shows.

    Attributes:
        title: Name of the run.
        frame: The leaderboard, as ``runs.ranking.leaderboard.leaderboard`` gives it.
        failures: The failures, as ``runs.ranking.leaderboard.failures`` gives them.
        tasks: The run's tasks.
        verdict: The winner against its baselines; ``None`` before there is one.
        notice: A warning that goes on top, such as that the scores are made up; may be empty.
        facts: What the run was made with: versions, input hashes, budget.
        best_yaml: The best recipe as YAML; ``None`` before there is one.
        reproduce: Commands that make the result again, one per line.
        config: The run's config with every key, as YAML; may be empty.
        learning: How coefficients were learned before the search; empty where none were.
        details: What the figures of the page are made from; ``None`` leaves them out.
    """

    title: str
    frame: pd.DataFrame
    failures: pd.DataFrame
    tasks: tuple[TaskInfo, ...]
    verdict: Verdict | None = None
    notice: str = ""
    facts: Facts = field(default_factory=dict)
    best_yaml: str | None = None
    reproduce: tuple[str, ...] = ()
    config: str = ""
    learning: tuple[LearningSummary, ...] = ()
    details: Details | None = None

    @property
    def why_first(self) -> str:
        """Why a candidate with the highest score does not rank first; empty where it does."""
        return "" if self.details is None else why_first(self.details.records)
