"""A run as an object: what its study holds, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from runs.export.recipe_export import recipe_text
from runs.ranking.lead import lead
from runs.ranking.leaderboard import leaderboard
from runs.ranking.verdict import Verdict
from runs.records.record import Record
from runs.report.report_files import FORMATS, write_report
from runs.report.task_tables import by_task_frame
from runs.storage.store import Store
from search.commands import study_commands
from search.inputs.stored_study.study_config import config_of
from search.inputs.stored_study.study_path import study_in
from search.monitoring.run_verdict import judge_run
from search.monitoring.study_report import make_report, places_for
from search.samplers.estimation.posterior import judged
from spaces.recipes.recipe import Recipe
from spaces.text.error_text import counted

HEAD = 10
"""Rows of the leaderboard in a notebook."""

SHOWN = (
    "rank",
    "expected",
    "expected_stderr",
    "score",
    "stderr",
    "held_out",
    "method",
    "origin",
    "key",
)
"""Columns of the leaderboard in a notebook, besides the tasks."""


class Run:
    """A finished, stopped or running search; reads its study anew whenever it is asked.

    Args:
        study: Path of ``study.db``, of its folder, or the URL of a database.

    Raises:
        UserError: If there is no such study.
    """

    def __init__(self, study: str | Path) -> None:
        self._study = study_in(study)
        Store.open(self._study).close()

    @property
    def study(self) -> str:
        """Where the study is."""
        return self._study

    @property
    def folder(self) -> Path:
        """Where reports go by default."""
        with Store.open(self._study) as store:
            return store.folder

    def leaderboard(self) -> pd.DataFrame:
        """Every candidate, best first; ``docs/report.md`` has the columns and their dtypes."""
        with Store.open(self._study) as store:
            return leaderboard(judged(store), store.manifest.catalogue.tasks)

    @property
    def verdict(self) -> Verdict | None:
        """The winner against its baselines on held-out questions; ``None`` before there is one."""
        with Store.open(self._study) as store:
            return judge_run(store, judged(store))

    def by_task(self) -> pd.DataFrame:
        """The winner, every parent and the base on each task's held-out questions.

        A row per task and model, with the winner minus the model where it is another;
        ``docs/report.md`` has the columns and their dtypes. No rows before there is a verdict.
        """
        with Store.open(self._study) as store:
            verdict = judge_run(store, judged(store))
            return by_task_frame(verdict, store.manifest.catalogue.tasks)

    def recipe(self, rank: int = 1) -> Recipe:
        """A found recipe.

        Args:
            rank: Its place in the leaderboard, from 1.

        Raises:
            UserError: If there is none at that place.
        """
        with Store.open(self._study) as store:
            return study_commands.at_rank(judged(store), rank).recipe

    def recipe_yaml(self, rank: int = 1) -> str:
        """A found recipe as YAML that mergekit and ``search.build`` run."""
        with Store.open(self._study) as store:
            record, verdict = study_commands.judged_at(store, rank)
            places = places_for(config_of(store), store.folder)
            return recipe_text(record, store.manifest, places, verdict)

    def export(
        self, rank: int = 1, *, out: str | Path | None = None, absolute: bool = False
    ) -> Path:
        """Write a found recipe to a file.

        Args:
            rank: Its place in the leaderboard, from 1.
            out: The file; by default beside the study.
            absolute: Whether locations are absolute, instead of from the file's folder.
        """
        path = None if out is None else Path(out)
        return study_commands.write_ranked(self._study, rank=rank, out=path, absolute=absolute)

    def report(
        self, *, out: str | Path | None = None, formats: Sequence[str] = tuple(FORMATS)
    ) -> list[Path]:
        """Write the report; the files come back."""
        with Store.open(self._study) as store:
            content = make_report(store, config_of(store))
        return write_report(content, self.folder if out is None else Path(out), formats)

    def __repr__(self) -> str:
        with Store.open(self._study) as store:
            records = judged(store)
        return f"<Run {self._study}: {_summary(records)}>"

    def _repr_html_(self) -> str:
        frame = self.leaderboard().head(HEAD)
        columns = [name for name in frame.columns if name in SHOWN or name.startswith("task:")]
        verdict = self.verdict
        said = "" if verdict is None else f"<p><strong>{escape(verdict.sentence)}.</strong></p>"
        table = frame[columns].to_html(
            index=False, escape=True, na_rep="", float_format="{:.4f}".format
        )
        with Store.open(self._study) as store:
            summary = _summary(judged(store))
        return f"<p>{escape(self._study)}: {escape(summary)}</p>{said}{table}"


def _summary(records: tuple[Record, ...]) -> str:
    return f"{counted(len(records), 'candidate')}, {lead(records)}"
