"""The report in a real browser: what it draws, asks for, and does when it is used."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from runs.ranking.finalists import Entry, WinnerStanding
from runs.ranking.leaderboard import ranked
from runs.ranking.verdict import verdict
from runs.records.record import Role
from runs.report.html.page import figures
from runs.report.report_files import to_html
from runs.report.task_tables import models_compared, task_difference
from runs.statistics.resampling import Resampling
from runs.storage.store import Store
from search.inputs.stored_study.study_config import config_of
from search.monitoring.study_report import make_report
from tests.browser.conftest import make_study
from tests.command import search

NASTY = "<script>window.hacked=1</script>"
ROW = re.compile(r"^\d+ -?\d\.\d{3} ±", re.MULTILINE)
"""A row of the leaderboard on paper: rank and expected score."""


@pytest.fixture
def page(browser, pages, report):
    browser.show(pages("report", to_html(report)))
    return browser


def rows(page) -> list[list[str]]:
    return page.run(
        "return [...document.querySelectorAll('#board tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )


def column(page, name: str) -> list[str]:
    names = page.run("return [...document.querySelectorAll('#board th')].map(c => c.textContent)")
    at = names.index(name)
    return [row[at] for row in rows(page)]


def wait(page, condition: str) -> None:
    until = time.monotonic() + 200
    while not page.run(condition):
        assert time.monotonic() < until, condition
        time.sleep(0.02)


def press(page, text: str) -> None:
    find = "[...document.querySelectorAll('button')].find(b => b.textContent === arguments[0])"
    page.run(f"{find}.click()", text)


CUT = """
const shown = [...document.querySelectorAll('main *, header *')].filter(e =>
  e.clientWidth && !e.closest('svg, .plot') && getComputedStyle(e).display !== 'inline');
const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
return shown.filter(e => e.scrollWidth > e.clientWidth + 1)
  .filter(e => !(scrolls(e) && e.dataset.more === 'right'))
  .filter(e => !e.matches('.brand'))  // its heading stands below in full
  .map(e => [e.tagName, e.className, e.scrollWidth, e.clientWidth]);
"""
"""What is wider than its box without a visible way to scroll."""


@pytest.mark.parametrize("width", [400, 1000, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_drawn_whole_without_an_error_or_a_request(
    browser, pages, report, width: int, dark: bool
) -> None:
    path = pages("report", to_html(report))
    browser.show(path, width=width, dark=dark)
    assert browser.errors() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run(CUT) == []
    drawn = browser.run("return [...document.querySelectorAll('.plot svg.main-svg')].length")
    assert drawn >= len(tuple(figures(report))) >= 9
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(13, 18, 26)") == dark


def test_the_first_column_stays_while_a_table_scrolls(browser, pages, report) -> None:
    browser.show(pages("report", to_html(report)), width=400)
    for label in ("Finalists", "Leaderboard"):
        box = f"document.querySelector('[aria-label=\"{label}\"]')"
        assert browser.run(f"return {box}.dataset.more") == "right"
        browser.run(f"{box}.scrollLeft = 10000")
        wait(browser, f"return {box}.dataset.more === 'left'")
        left = f"{box}.getBoundingClientRect().left + {box}.clientLeft"
        cells = f"[...{box}.querySelectorAll('tr > :first-child')]"
        assert browser.run(f"return {cells}.every(c => c.getBoundingClientRect().left === {left})")
        ends = "c => c.getBoundingClientRect().right"
        edge = f"{box}.getBoundingClientRect().right"
        last = f"[...{box}.querySelectorAll('tr > :last-child')].map({ends})"
        assert browser.run(f"return {last}.every(right => right <= {edge})")


def seen(page, label: str) -> list[str]:
    """Headings of the columns of a table that are seen whole without scrolling."""
    return page.run(
        "const box = document.querySelector(`[aria-label=\"${arguments[0]}\"]`);"
        "const edge = box.getBoundingClientRect().right;"
        "return [...box.querySelectorAll('th')]"
        ".filter(c => c.getBoundingClientRect().right <= edge).map(c => c.textContent)", label,
    )  # fmt: skip


def test_the_point_of_the_finalists_table_is_seen_without_scrolling(page) -> None:
    group = ["p", "p corrected"]
    assert seen(page, "Finalists")[:9] == [
        "recipe", "#", "held-out", "over the best parent", *group,
        "over the best default recipe", *group,
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1000, 1600])
def test_what_each_table_is_read_for_is_seen_without_scrolling(
    browser, pages, report, width: int
) -> None:
    browser.show(pages("report", to_html(report)), width=width)
    assert seen(browser, "Task by task")[:3] == ["task", "winner", "best parent at it"]
    lines = browser.run(
        "return [...document.querySelectorAll('[aria-label=\"Task by task\"] td:nth-child(3)')]"
        ".map(cell => { const range = document.createRange(); range.selectNodeContents(cell);"
        "return new Set([...range.getClientRects()].map(one => one.top)).size; })"
    )
    assert max(lines) == 1  # none wraps; all tasks together have no such parent
    assert seen(browser, "Leaderboard")[:4] == ["#", "expected", "method", "origin"]


def test_the_copy_button_lies_over_code_that_fades(browser, pages, report) -> None:
    browser.show(pages("report", to_html(report)), width=1000)
    browser.run("document.querySelector('#winner .code').style.width = '200px'")
    wait(browser, "return document.querySelector('#winner pre').dataset.more === 'right'")
    assert browser.run(
        "const button = document.querySelector('#winner .copy');"
        "button.scrollIntoView({block: 'center'});"
        "const box = button.getBoundingClientRect();"
        "return document.elementFromPoint(box.left + 3, box.top + box.height / 2) === button"
    )


def test_columns_can_be_left_out(page) -> None:
    before = rows(page)
    choose = (
        "[...document.querySelectorAll('#columns label')].find(l => "
        "l.textContent.trim() === 'score').firstChild.click()"
    )
    page.run(choose)
    names = page.run(
        "return [...document.querySelectorAll('#board th')].filter(c => !c.hidden)"
        ".map(c => c.textContent)"
    )
    assert "score" not in names
    assert all(len(row) == len(names) for row in rows(page))
    page.run(choose)
    assert rows(page) == before


def test_every_figure_holds_its_traces(page, report) -> None:
    counts = page.run(
        "return Object.fromEntries([...document.querySelectorAll('[data-plot]')].map("
        "place => [place.dataset.plot, place._fullData.length]))"
    )
    assert counts == {figure.name: len(figure.traces) for figure in figures(report)}


def test_the_first_figure_is_what_was_kept_and_lost(page, report) -> None:
    assert page.run("return document.querySelector('[data-plot]').dataset.plot") == "kept"
    models = models_compared(report.verdict)
    tasks = [*(task.name for task in report.tasks), ""]
    expected = [task_difference(report.verdict, one, task) for task in tasks for one in models]
    x, low, high = page.run(
        "const trace = document.querySelector('[data-plot=kept]')._fullData[0];"
        "return [trace.x, trace.error_x.arrayminus, trace.error_x.array].map(one => [...one])"
    )
    assert len(models) == 4
    assert sorted(x) == pytest.approx(sorted(one.value for one in expected), abs=1e-4)
    assert sorted(low) == pytest.approx(sorted(one.value - one.low for one in expected), abs=1e-4)
    assert sorted(high) == pytest.approx(sorted(one.high - one.value for one in expected), abs=1e-4)


def test_differences_shows_differences(page, report) -> None:
    place = "document.querySelector('[data-plot=tasks]')"
    shown = f"return [...{place}._fullData[0].x]"
    scores = page.run(shown)
    page.run(f"{place}.closest('figure').querySelectorAll('.views button')[1].click()")
    known = [one for one in report.verdict.finalists if one.role is not Role.SEARCHED]
    differences = page.run(shown)
    assert differences[1:] == pytest.approx(
        [report.verdict.comparisons[one.name].difference.value for one in known], abs=1e-4
    )
    parents = report.verdict.finalists[0].parents
    row = 1 + [one.name for one in known].index(parents.best)  # after the winner
    ends = [
        page.run(f"return {place}._fullData[0].error_x.{side}[{row}]")
        for side in ("arrayminus", "array")
    ]
    gap = parents.difference  # the verdict's interval, which allows for the choice of the best
    assert ends == pytest.approx([gap.value - gap.low, gap.high - gap.value], abs=1e-4)
    assert differences[0] is None  # the winner itself
    assert differences != scores
    assert page.errors() == []


def test_the_headline_names_the_recipe(page, report) -> None:
    winner = ranked(report.details.records)[0]
    said = page.run("return document.querySelector('.headline').textContent")
    assert f" {winner.recipe.words} " in said
    assert winner.recipe.words.startswith(f"{winner.recipe.title} of ")
    assert f"candidate {winner.id}" in page.run(
        "return document.querySelector('.verdict').innerText"
    )


def test_what_was_learned_stands_beside_what_was_searched(page) -> None:
    drawn = page.run(
        "return [...document.querySelectorAll('#learning [data-plot]')].map(p => p.dataset.plot)"
    )
    assert drawn == ["learning", "learned-by-layer", "searched"]
    kept, chosen = page.run(
        "return ['kept aside', 'chosen'].map(kind => document.querySelector"
        "('[data-plot=learning]')._fullData.find(t => t.name === 'learned by layer: ' + kind))"
        ".map(trace => [[...trace.x], [...trace.y]])"
    )
    assert kept == [[0, 5, 10, 12], [1.0, 0.6, 0.2, 0.3]]
    assert chosen == [[10], [0.2]]
    rows = page.run(
        "return document.querySelector('[data-plot=learned-by-layer]')._fullLayout.yaxis.ticktext"
    )
    assert rows[:4] == [f"math · {kind}" for kind in ("self_attn", "mlp", "embed", "other tensors")]
    press(page, "logarithm")
    kind = "return document.querySelector('[data-plot=learning]')._fullLayout.yaxis.type"
    assert page.run(kind) == "log"
    assert page.errors() == []


def test_headings_of_facts_begin_with_one_capital(page) -> None:
    shown = "return [...document.querySelectorAll('.facts h3')].map(one => one.innerText)"
    assert "Busy share by worker" in page.run(shown)


def test_names_are_shown_as_text(page) -> None:
    assert page.run("return window.hacked") is None
    assert NASTY in page.run("return document.querySelector('#reproduce').innerText")
    assert any(NASTY in title for title in page.run(
        "return [...document.querySelectorAll('figcaption h3')].map(h => h.textContent)"
    ))  # fmt: skip
    assert page.run("return document.querySelectorAll('script').length") == 7


def test_sorting(page) -> None:
    assert [int(rank) for rank in column(page, "#")] == list(range(1, 26))
    press(page, "questions")
    press(page, "score")
    down = [float(cell.split()[0]) for cell in column(page, "score")]
    assert down == sorted(down, reverse=True)
    press(page, "score")
    up = [float(cell.split()[0]) for cell in column(page, "score")]
    assert up == sorted(up)
    assert up != down


def test_filtering(page, report) -> None:
    change = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; "
    choose = f"{change} e.dispatchEvent(new Event('change'))"
    type_in = f"{change} e.dispatchEvent(new Event('input'))"
    page.run(choose, "by-kind", "parent")
    assert sorted(column(page, "origin")) == ["parent code", "parent math", "parent text"]
    page.run(choose, "by-kind", "")
    failed = int((report.frame["state"] == "failed").sum())
    assert failed > 1
    page.run(choose, "by-state", "failed")
    assert len(rows(page)) == failed
    page.run(choose, "by-state", "")
    page.run(type_in, "find", "slerp random")
    methods = column(page, "method")
    assert methods
    assert all("slerp" in method for method in methods)
    page.run(type_in, "find", "no such thing")
    assert rows(page) == []
    assert page.run("return document.getElementById('count').textContent").startswith("0 of")


def choose(page, name: str, value: object) -> None:
    """Choose in the section of answers, or type there."""
    page.run(
        "const e = document.getElementById('answers-' + arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input'))", name, str(value),
    )  # fmt: skip


def said(page) -> list[dict[str, str]]:
    """The questions shown, with heading, prompt, right answer and both answers."""
    return page.run(
        "return [...document.querySelectorAll('.answer')].map(box => ({"
        "heading: box.querySelector('h3').textContent, ...Object.fromEntries("
        "[...box.querySelectorAll('dt')].map(dt => "
        "[dt.textContent, dt.nextElementSibling.textContent]))}))"
    )


def test_the_morning_after(page, report, study: Path) -> None:
    """The verdict, what the winner lost, what two candidates answered, and the recipe."""
    book = report.details.answers
    names = [sheet.name for sheet in book.sheets]
    assert page.run("return document.querySelector('.headline').textContent").strip()
    assert (
        page.run("return [...document.getElementById('answers-a').options].map(o => o.textContent)")
        == names
    )
    assert names[0].startswith(report.verdict.winner)
    choose(page, "a", names.index("parent code"))
    choose(page, "b", 0)
    choose(page, "show", "b")
    choose(page, "split", 0)
    first, second = book.sheets[names.index("parent code")], book.sheets[0]
    asked = [one for one in book.questions if one.id not in book.held_out]
    lost = [one for one in asked if (first.values[one.id], second.values[one.id]) == (0.0, 1.0)]
    assert len(lost) > 1
    assert said(page) == [
        {
            "heading": f"{one.task}: only B is right",
            "prompt": book.said[one.id].prompt,
            "expected": book.said[one.id].expected,
            "A": f"✗ {first.texts[one.id]}",
            "B": f"✓ {second.texts[one.id]}",
        }
        for one in lost[:20]
    ]
    choose(page, "find", second.texts[lost[1].id].upper())
    assert [one["prompt"] for one in said(page)] == [book.said[lost[1].id].prompt]
    choose(page, "find", "")
    choose(page, "task", 1)
    assert {one["heading"] for one in said(page)} <= {f"{NASTY}: only B is right"}
    count = "return document.getElementById('answers-count').textContent"
    asked = sum(one.task == NASTY for one in asked)
    assert page.run(count) == f"{len(said(page))} of the {asked} questions that both answered"
    choose(page, "show", "all")
    choose(page, "find", "zzz")
    assert page.run(count) == f"none of {asked} contains 'zzz'"
    choose(page, "find", "")
    command = page.run("return document.getElementById('answers-command').textContent")
    study_path = str(study)
    found = json.loads(
        search(*shlex.split(command.replace("study.db", study_path))[1:], "--json").out
    )
    shown = page.run(
        "return [...document.querySelectorAll('#answers-table tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    keys = ("task", "questions", "both_right", "only_a", "only_b", "both_wrong")
    assert page.run("return window.hacked") is None
    assert [row[:6] for row in shown] == [[str(one[key]) for key in keys] for one in found["tasks"]]
    assert page.errors() == []


def test_more_rows_can_be_shown(page, report) -> None:
    page.run("document.getElementById('more').click()")
    assert len(rows(page)) == int((report.frame["state"] != "failed").sum())
    assert page.run("return document.getElementById('more').hidden")


def test_the_drawer_shows_the_recipe_and_copies_it(page, report) -> None:
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    second = ranked(report.details.records)[1]
    page.driver.find_elements(By.CSS_SELECTOR, "#board tbody tr")[1].click()
    page.driver.implicitly_wait(60)
    boxes = page.driver.find_elements(By.CSS_SELECTOR, "#drawer .code:nth-of-type(2)")
    page.driver.implicitly_wait(0)
    assert len(boxes) == 1
    yaml = report.details.recipe(second)
    assert NASTY in yaml
    assert boxes[0].find_element(By.TAG_NAME, "code").get_attribute("textContent") == yaml
    commands = page.run("return document.querySelector('#drawer code').textContent")
    assert f"search export {report.details.study} --rank 2 --out rank-2.yaml" in commands
    boxes[0].find_element(By.TAG_NAME, "button").click()
    read = page.driver.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, e => done('' + e))"
    )
    assert read == yaml
    assert boxes[0].find_element(By.TAG_NAME, "button").text == "Copied"
    page.driver.find_element(By.CSS_SELECTOR, "#drawer form button").click()
    assert not page.run("return document.getElementById('drawer').open")


def test_views_and_theme(page) -> None:
    title = "return document.querySelector('[data-plot=progress] .xtitle').textContent"
    assert page.run(title) == "recipes scored"
    press(page, "hours at work")
    assert page.run(title) == "hours at work"
    for expected in ("dark", "light"):
        page.driver.find_element(By.ID, "theme").click()
        assert page.run("return document.documentElement.dataset.theme") == expected
    assert page.errors() == []


def test_a_run_in_which_nothing_beats_the_best_parent_says_so(browser, pages, report) -> None:
    standing = replace(report.verdict, standing=WinnerStanding.BASELINE)
    parent = next(one for one in standing.finalists if one.name == "parent code")
    verdict = replace(
        standing,
        sentence="nothing beats the best parent: no other recipe did better in the search",
        finalists=(replace(parent, parents=None), *standing.finalists),
    )
    browser.show(pages("baseline", to_html(replace(report, verdict=verdict))))
    said = browser.run("return document.querySelector('.headline').innerText")
    assert said == "✗ Nothing beats the best parent: parent 'code' stays the best"
    assert browser.run("return document.querySelector('.verdict.baseline') !== null")


def on_paper(browser, path: Path):
    """Pages of a report, printed from a dark window that is wider than the paper."""
    from pypdf import PdfReader

    browser.show(path, width=1600, dark=True)
    browser.run("document.getElementById('more').click()")
    found = browser.driver.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27,
        "paperHeight": 11.69, "printBackground": False})  # fmt: skip
    return PdfReader(io.BytesIO(base64.b64decode(found["data"]))).pages


@pytest.fixture
def printed(browser, pages, report):
    return on_paper(browser, pages("printed", to_html(report)))


def check_nothing_is_cut_off(printed) -> None:
    """Figures of the screen's width, or a table wider than the sheet, would reach beyond it."""
    for page in printed:
        placed: list[tuple[str, float, float]] = []

        def note(text, matrix, position, *_, placed=placed) -> None:
            if text.strip() and matrix[0]:  # not what stands upright beside an axis
                placed.append((text, position[4] * matrix[0] + matrix[4], matrix[0]))

        page.extract_text(visitor_text=note)
        width = float(page.mediabox.width)
        assert placed
        for text, left, scale in placed:
            assert 20 < left < width - 20, text
            assert scale == pytest.approx(0.75, abs=0.01), "the page was shrunk to fit"


def test_nothing_is_cut_off_on_paper(printed) -> None:
    check_nothing_is_cut_off(printed)


@pytest.mark.parametrize("parents", [3, 16])
def test_parents_with_long_names_fit_on_paper(browser, pages, report, parents: int) -> None:
    def asked(name: str, role: Role, right: int) -> Entry:
        found = {
            t.name: {f"{t.name}/{q}": float(q < right) for q in range(60)} for t in report.tasks
        }
        return Entry(name=name, role=role, outcomes=found)

    entries = [
        asked("candidate 7", Role.SEARCHED, 50),
        *(
            asked(f"parent a_fine-tune_with_a_name_as_long_as_some_have_{at}", Role.PARENT, 20 + at)
            for at in range(parents)
        ),
        asked("base", Role.BASE, 10),
    ]
    found = verdict(entries, tasks=report.tasks, how=Resampling(resamples=200))
    crowd = replace(report, verdict=found, details=None)
    printed = on_paper(browser, pages(f"crowd-{parents}", to_html(crowd)))
    assert "Task by task" in "".join(page.extract_text() for page in printed)
    check_nothing_is_cut_off(printed)


def test_paper_holds_what_is_behind_buttons_on_the_screen(printed, report) -> None:
    whole = "\n".join(page.extract_text() for page in printed)
    for axis in ("recipes scored", "search questions answered", "hours at work"):
        assert axis in whole
    for name in ("code", "text"):
        assert f"weight of {name}" in whole
    assert whole.count("Best recipe so far") == 1
    boards = [text for page in printed if ROW.search(text := page.extract_text())]
    assert len(boards) > 1
    for text in boards:  # the headings stand on every sheet
        assert re.search(r"expected\s+method\s+origin\s+score", text)
    assert "Click a heading" not in whole
    assert report.reproduce[0] in whole


def test_it_prints_in_light_colours_and_comes_back(page) -> None:
    page.run("document.documentElement.dataset.theme = 'dark'")
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.run("return document.documentElement.dataset.theme") == "light"
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert page.run(ground) == "rgb(255, 255, 255)"
    exact = "return getComputedStyle(document.querySelector('.mark')).printColorAdjust"
    assert page.run(exact) == "exact"
    hidden = "return [...document.querySelectorAll('.modebar, .copy, .bar, .filters')]"
    assert page.run(f"{hidden}.every(e => getComputedStyle(e).display === 'none')")
    assert page.run("return document.querySelectorAll('.paper svg.main-svg').length") > 4
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    assert page.run("return document.querySelectorAll('.paper').length") == 0
    widths = (
        "return [...document.querySelectorAll('[data-plot]')].map(p => "
        "Math.abs(p.querySelector('svg.main-svg').clientWidth - p.clientWidth))"
    )
    assert max(page.run(widths)) <= 1
    assert page.errors() == []


def test_recipes_side_by_side(page, report) -> None:
    """A line for each, gaps between them, the best tenth apart, and both ends of each axis."""
    (figure,) = (one for one in figures(report) if one.name == "lines")
    others, best = figure.traces
    axes = figure.layout["xaxis"]["tickvals"]
    for trace, share in ((others, 0.9), (best, 0.1)):
        ends = [at for at, x in enumerate(trace["x"]) if x is None]
        assert len(trace["x"]) == len(trace["y"]) == len(ends) * (len(axes) + 1)
        known = [y for y in trace["y"] if y is not None]
        assert 0.0 <= min(known) <= max(known) <= 1.0
        lines = len(report.details.insights.dials)
        assert len(ends) == pytest.approx(lines * share, abs=1)
    shown = page.run(
        "return [...document.querySelectorAll('.x2tick text')].map(t => t.textContent)"
    )
    assert shown == figure.layout["xaxis2"]["ticktext"]
    assert page.errors() == []


def test_captions_say_who_is_left_out_and_which_line_is_drawn(report) -> None:
    details = report.details
    dials = details.insights.dials
    inside = [record for record in ranked(details.records) if record.id in dials]

    def notes(records) -> dict[str, str]:
        kept = {r.id: dials[r.id] for r in records if r.trial is not None}
        found = replace(
            details, records=tuple(records), insights=replace(details.insights, dials=kept)
        )
        return {one.name: one.note for one in figures(replace(report, details=found)).effects}

    many, few = notes(inside), notes(inside[:30])
    assert len(inside) > 30
    assert "line joins the medians" in many["weight"]
    assert "line joins" not in few["weight"]
    assert "Left out" not in "".join(many.values())
    learned = [replace(record, trial=None) for record in inside[:6]]
    apart = notes([*learned, *inside[6:]])
    for name in ("weight", "lines"):
        assert f"outside the space: the winner candidate {inside[0].id} (" in apart[name]
        assert apart[name].endswith(") and 2 more.")


def test_what_the_numbers_of_the_run_leave_out_is_said(report) -> None:
    notes = [
        next(
            one.note for one in figures(replace(report, learning=lessons)) if one.name == "workers"
        )
        for lessons in ((), report.learning)
    ]
    assert [" Learning before the search is not drawn" in note for note in notes] == [False, True]
    assert "clearly, beyond the error" in figures(report).front.note


@pytest.mark.slow
def test_two_thousand_candidates_stay_below_8_megabytes(browser, pages, tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=2000)
    with Store.open(str(study)) as store:
        text = to_html(make_report(store, config_of(store)))
    assert len(text.encode()) < 8_000_000
    browser.show(pages("large", text))
    assert browser.errors() == []
    said = browser.run("return document.getElementById('count').textContent")
    assert re.fullmatch(r"1\d\d\d of 2000 candidates", said)
    press(browser, "score")
    down = [float(cell.split()[0]) for cell in column(browser, "score")]
    assert down == sorted(down, reverse=True)
