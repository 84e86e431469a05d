"""The page of a pre-flight in a real browser: on the screen, and on paper from a dark window."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merging.checkpoints.checkpoint import Checkpoint
from merging.tensor_statistics.model_similarity import survey
from search.preflight.advice import advise
from search.preflight.model_facts import ModelFacts
from search.preflight.preflight_result import Preflight, Room, SpaceSize
from search.preflight.rendering.preflight_html import page


@pytest.fixture
def written(tiny_family: dict[str, Path], pages: Callable[[str, str], Path]) -> Path:
    opened = {name: Checkpoint.open(str(path), name=name) for name, path in tiny_family.items()}
    found = survey(opened, "base")
    preflight = Preflight(
        title="<b>mix</b>.yaml",
        models=tuple(ModelFacts.of(one) for one in opened.values()),
        tasks=(),
        space=SpaceSize(methods=("linear",), numbers=3, choices=0, trees=0, seeds=4),
        room=Room(lines=("a worker takes 1 GB",), model=1, disk_free=1, cached=0),
        affinity=found,
        advice=advise(found),
    )
    return pages("check", page(preflight))


def open_page(browser: Any, path: Path, width: int) -> None:
    browser.size(width)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.driver.get_log("browser")
    browser.driver.get(path.as_uri())


@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_the_window(browser: Any, written: Path, width: int) -> None:
    open_page(browser, written, width)
    assert browser.errors() == []
    assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run("return document.querySelectorAll('svg').length") == 3
    assert "<b>mix</b>.yaml" in browser.run("return document.querySelector('h1').innerText")


def test_it_prints_whole_and_light_from_a_dark_window(browser: Any, written: Path) -> None:
    from pypdf import PdfReader

    open_page(browser, written, 1600)
    dark = browser.run("return getComputedStyle(document.body).color")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": "print", "features": features}
    )
    ink = browser.run("return getComputedStyle(document.body).color")
    assert (dark, ink) == ("rgb(230, 237, 243)", "rgb(27, 31, 36)")
    overflow = "getComputedStyle(box).overflowX === 'visible'"
    assert browser.run(f"return [...document.querySelectorAll('.scroll')].every(box => {overflow})")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    sheets = PdfReader(io.BytesIO(base64.b64decode(printed["data"]))).pages
    for sheet in sheets:

        def note(text, matrix, position, *_, width=float(sheet.mediabox.width)) -> None:
            if text.strip() and matrix[0]:
                assert 20 < position[4] * matrix[0] + matrix[4] < width - 20, text

        sheet.extract_text(visitor_text=note)
    whole = "".join(sheet.extract_text() for sheet in sheets)
    assert "Cosine between deltas" in whole
    assert "code, text · head" in whole  # the labels beside the last map
