"""Everything that commands show as tables, on terminals of four widths."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from evaluators.harness.tasks.task_facts import TaskFacts
from merging.checkpoints.checkpoint import Checkpoint
from merging.tensor_statistics.model_similarity import survey
from runs.ranking.lead import Lead
from runs.report.report_content import Report
from runs.storage.store import Store
from search.commands.comparison.compare_command import show_comparison
from search.commands.comparison.compared_questions import QuestionFilter
from search.commands.study_commands import config_of
from search.inputs.overrides import Overrides
from search.monitoring.fitted_table import FittedTable
from search.monitoring.live.live_view import Active, PhasePace, PhaseStanding, view
from search.monitoring.study_report import make_report
from search.monitoring.study_summary import show_result, show_status
from search.preflight.advice import advise
from search.preflight.model_facts import ModelFacts
from search.preflight.preflight_result import Preflight, Room, SpaceSize, TaskRow
from search.preflight.rendering.preflight_tables import show
from tests.browser.conftest import NASTY, make_study

WIDTHS = (60, 80, 120, 200)
CHANGING = re.compile(r"^(time|last result|workers|Workers:|created) .*\n", re.MULTILINE)
"""Lines with times of this run."""


def terminal(width: int) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=True, no_color=True, highlight=False
    )


def shown(screen: Console) -> str:
    """What a terminal shows, as text: none of its lines is wider than the terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.file.getvalue())
    assert max(map(cell_len, text.splitlines())) <= screen.width
    assert "…" not in text
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    path = make_study(tmp_path_factory.mktemp("terminal", numbered=False), trials=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        store = Store.open(path.name)
        yield store, make_report(store, config_of(store))
        store.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_status(study: tuple[Store, Report], width: int, golden: Callable[..., None]) -> None:
    screen = terminal(width)
    show_status(study[0], config_of(study[0], Overrides()), screen)
    text = shown(screen)
    for column in ("rank", "expected", "search", "held-out", "one", NASTY, "method", "origin"):
        assert re.search(rf"┃ +{re.escape(column)} +┃", text), column
    golden(f"terminal/status-{width}.txt", CHANGING.sub("", text))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_final_table(
    study: tuple[Store, Report], width: int, golden: Callable[..., None]
) -> None:
    screen = terminal(width)
    show_result(*study, screen)
    golden(f"terminal/final-{width}.txt", CHANGING.sub("", shown(screen)))


@pytest.mark.parametrize("width", WIDTHS)
def test_two_candidates_compared(
    study: tuple[Store, Report], width: int, golden: Callable[..., None]
) -> None:
    screen = terminal(width)
    wanted = QuestionFilter(most=3)
    show_comparison(study[0], ("best", "code"), questions=None, wanted=wanted, screen=screen)
    golden(f"terminal/compare-{width}.txt", shown(screen))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_view(
    width: int, golden: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    lead = Lead(
        candidate=3, what="dare_ties", best=0.9738, stderr=0.0121, best_parent=0.52, scored=24
    )
    budget = "24 of 60 recipes, 4,200 of 30,000 questions"
    standing = PhaseStanding(
        phase="search", total=60, title="mix", done=24, lead=lead, budget=budget,
        running=2, workers=2, seconds=60.0, notice="worker node-7 is gone; its candidate is "
        "handed to another one",
    )  # fmt: skip
    standing.fail("timeout")
    standing.active = {
        31: Active(candidate=31, what="dare_ties", questions=840, since=988.0),
        32: Active(candidate=32, what="linear+slerp", questions=84, since=999.0),
    }
    screen = terminal(width)
    screen.print(view(standing, PhasePace()))
    golden(f"terminal/live-{width}.txt", shown(screen))


@pytest.mark.parametrize("width", WIDTHS)
def test_check(width: int, tiny_family: dict[str, Path], golden: Callable[..., None]) -> None:
    opened = {name: Checkpoint.open(str(path), name=name) for name, path in tiny_family.items()}
    found = survey(opened, "base")
    facts = TaskFacts(
        name="demo_reverse", kind="generate_until", dataset="json", split="test",
        metrics=("exact_match,none",), shots=2, known=None, examples="train",
    )  # fmt: skip
    task = TaskRow(
        name="demo_reverse", metric="exact_match,none", weight=1.0, floor="", questions=400,
        higher_is_better=True, documents=400, search=280, held_out=120, facts=facts,
    )  # fmt: skip
    preflight = Preflight(
        title="mix.yaml",
        models=tuple(ModelFacts.of(one) for one in opened.values()),
        tasks=(task,),
        space=SpaceSize(methods=("linear",), numbers=3, choices=1, trees=0, seeds=4),
        room=Room(lines=("a worker takes 1.0 GB",), model=10**9, disk_free=9 * 10**9, cached=10**8),
        affinity=found,
        advice=advise(found),
        made=datetime.fromisoformat("2026-01-01T00:00:00+00:00"),
    )
    screen = terminal(width)
    show(preflight, screen)
    golden(f"terminal/check-{width}.txt", shown(screen))


def test_every_value_is_there_and_whole_at_any_width() -> None:
    table = FittedTable(
        title="t",
        headers=("rank", "a rather long heading of numbers", *(f"task_{at}" for at in range(9))),
        rows=[
            (str(row), "0.5 ± 0.1", *(f"{row}.{at}00000" for at in range(9))) for row in range(3)
        ],
        numeric=(True,) * 11,
    )
    for width in range(24, 200):
        screen = terminal(width)
        screen.print(table)
        words = shown(screen).replace("│", " ").replace("┃", " ").split()
        for text in (*table.headers, *(cell for row in table.rows for cell in row)):
            assert set(text.split()) <= set(words), (width, text)


def test_a_word_wider_than_the_terminal_goes_on_below() -> None:
    screen = terminal(20)
    screen.print(FittedTable(title="", headers=("x",), rows=[("y" * 30,)], numeric=(False,)))
    assert shown(screen).count("y") == 30
