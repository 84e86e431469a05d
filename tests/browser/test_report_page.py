"""The report in a real browser: what it draws, asks for, and does when it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from runs.finalists import Standing
from runs.leaderboard import ranked
from runs.page.page import figures
from runs.report import to_html

NASTY = "<script>window.hacked=1</script>"


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


def press(page, text: str) -> None:
    find = "[...document.querySelectorAll('button')].find(b => b.textContent === arguments[0])"
    page.run(f"{find}.click()", text)


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_drawn_whole_without_an_error_or_a_request(
    browser, pages, report, width: int, dark: bool
) -> None:
    path = pages("report", to_html(report))
    browser.show(path, width=width, dark=dark)
    assert browser.errors() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") == width
    drawn = browser.run("return [...document.querySelectorAll('.plot svg.main-svg')].length")
    assert drawn >= len(tuple(figures(report))) >= 9
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(13, 18, 26)") == dark


def test_every_figure_holds_its_traces(page, report) -> None:
    counts = page.run(
        "return Object.fromEntries([...document.querySelectorAll('[data-plot]')].map("
        "place => [place.dataset.plot, place._fullData.length]))"
    )
    assert counts == {figure.name: len(figure.traces) for figure in figures(report)}


def test_names_are_shown_as_text(page) -> None:
    assert page.run("return window.hacked") is None
    assert NASTY in page.run("return document.querySelector('#reproduce').innerText")
    assert any(NASTY in title for title in page.run(
        "return [...document.querySelectorAll('figcaption h3')].map(h => h.textContent)"
    ))  # fmt: skip
    assert page.run("return document.querySelectorAll('script').length") == 5


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
    page.driver.implicitly_wait(5)
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
    standing = replace(report.verdict, standing=Standing.BASELINE)
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


def test_it_prints_in_light_colours_with_every_figure(page, tmp_path: Path) -> None:
    page.run("document.documentElement.dataset.theme = 'dark'")
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 50_000
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("return document.documentElement.dataset.theme") == "light"
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    assert page.errors() == []
