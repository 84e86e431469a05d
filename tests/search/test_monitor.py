"""The view of a run in progress."""

import io
import math

import pytest
from rich.console import Console

from evaluators.protocol import Candidate, Failure, FailureKind, Score
from evaluators.workers.pool import Result
from runs.ranking.lead import Lead
from search.monitoring.live.live_view import Active, PhasePace, PhaseStanding, view
from search.monitoring.monitor import LiveMonitor, LogMonitor, monitor
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

RECIPE = Recipe(
    root=Merge(method="linear", sources=(Source(of=Model("a"), parameters=parameters(weight=1.0)),))
)


def result(value: float | None) -> Result:
    outcome = (
        Failure(kind=FailureKind.TASK, message="[red]boom[/red]")
        if value is None
        else Score(
            value=value,
            stderr=0.01,
            tasks=(),
            outcomes=(),
            fingerprint="",
            build_seconds=0.5,
            score_seconds=1.0,
        )
    )
    candidate = Candidate(id=3, recipe=RECIPE, questions=("t/1",))
    return Result(candidate=candidate, outcome=outcome, worker="node/1")


def ahead(best: float, *, best_parent: float = math.nan, candidate: int = 3) -> Lead:
    return Lead(
        candidate=candidate,
        what="ties",
        best=best,
        stderr=0.01,
        best_parent=best_parent,
        scored=7,
    )


def lines(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=200), text


def test_a_terminal_gets_a_live_view_and_a_pipe_gets_lines() -> None:
    assert isinstance(monitor(lines(terminal=True)[0]), LiveMonitor)
    assert isinstance(monitor(lines(terminal=False)[0]), LogMonitor)


def test_lines_say_progress_best_and_lead() -> None:
    console, text = lines(terminal=False)
    standing = PhaseStanding(
        phase="search", total=60, done=7, lead=ahead(0.61, best_parent=0.5), seconds=4 * 60 + 38
    )
    LogMonitor(console).update(standing, result(0.61))
    line = text.getvalue()
    said = "best 0.6100 ± 0.0100 (ties), +0.1100 over the best parent, of 7 scored"
    assert f"search 7/60  {said}" in line
    assert "4:38" in line
    assert "last 0.6100 ± 0.0100 in 1.5 s on node/1" in line
    assert "busy 0/1" in line


def test_lines_are_rare_but_news_is_told() -> None:
    console, text = lines(terminal=False)
    view = LogMonitor(console)
    standing = PhaseStanding(phase="search", total=60, lead=ahead(0.5))
    for done in range(1, 6):
        standing.done = done
        view.update(standing, result(0.4))
    assert text.getvalue().count("\n") == 1
    view.update(standing, result(None))
    assert "failed (task): [red]boom[/red]" in text.getvalue()
    standing.lead = ahead(0.49)  # more is known of the same one
    view.update(standing, result(0.4))
    assert text.getvalue().count("\n") == 2
    standing.lead = ahead(0.7, candidate=9)
    view.update(standing, result(0.7))
    assert text.getvalue().count("\n") == 3


def test_learning_is_followed_by_its_losses() -> None:
    console, text = lines(terminal=False)
    log = LogMonitor(console)
    words = "loss on questions kept aside: by layer 0.900 -> 0.400"
    for done in (0, 1, 1, 2):
        log.update(
            PhaseStanding(phase="learning", total=24, done=done, words="loss: not known yet")
        )
    log.update(PhaseStanding(phase="learning", total=24, done=5, words=words))
    assert text.getvalue().count("\n") == 2
    assert f"learning 5/24  {words}" in text.getvalue()
    console, text = lines(terminal=True)
    console.print(view(PhaseStanding(phase="learning", total=24, done=6, words=words), PhasePace()))
    assert words in text.getvalue()
    assert "25 %" in text.getvalue()


def test_the_live_view_shows_the_standing() -> None:
    console, text = lines(terminal=True)
    view = LiveMonitor(console)
    standing = PhaseStanding(phase="search", total=10, title="mix", done=4, running=2, workers=2)
    standing.fail("timeout")
    standing.active = {7: Active(candidate=7, what="dare_ties", questions=840, since=0.0)}
    view.update(standing)
    view.update(standing, result(None))
    view.close()
    shown = text.getvalue()
    assert "mix · search" in shown
    assert "4 of 10" in shown
    assert "40 %" in shown
    assert "no score yet" in shown
    assert "2 of 2 busy" in shown
    assert "1 failed: 1 timeout" in shown
    assert "candidate 7" in shown
    assert "[red]boom[/red]" in shown


def test_it_fits_a_terminal_of_80_columns() -> None:
    standing = PhaseStanding(phase="search", total=None, title="a" * 200, budget="b " * 100)
    standing.active = {
        n: Active(candidate=n, what="linear+" * 20, questions=10**6, since=0.0) for n in range(30)
    }
    console = Console(file=(text := io.StringIO()), width=80)
    console.print(view(standing, PhasePace()))
    assert max(len(line) for line in text.getvalue().splitlines()) == 80
    assert "and 22 more" in text.getvalue()


def test_the_pace_is_that_of_the_last_minutes() -> None:
    pace, standing = PhasePace(), PhaseStanding(phase="search", total=100)
    for minute in range(20):
        # one a minute at first, then ten a minute
        standing.done += 1 if minute < 12 else 10
        standing.questions += 60 if minute < 12 else 600
        pace.see(standing, now=60.0 * minute)
    assert standing.done == 92
    assert pace.questions_per_second() == pytest.approx(10.0)
    assert pace.left(standing) == pytest.approx(8 / 10 * 60)
    assert pace.rate_text() == "10.0 questions/s"
    standing.phase = "held-out"
    pace.see(standing, now=2000.0)
    assert math.isnan(pace.questions_per_second())
    assert math.isnan(pace.left(standing))


@pytest.mark.parametrize("parent", [math.nan, 0.2])
def test_no_lead_without_a_parent(parent: float) -> None:
    said = ahead(0.3, best_parent=parent).text()
    assert ("over the best parent" in said) == (not math.isnan(parent))
    assert said.endswith("of 7 scored")
