"""Figures as image files, and the pictures of the report that the docs show."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from runs.report.figure_images import BrowserError, images
from runs.report.html.page import figures
from runs.report.report_files import to_html, write_report
from search.commands.study_commands import report as write

PICTURES = {
    # name: width, height, first section shown, dark
    "verdict": (1200, 860, "verdict", False),
    "progress": (1200, 760, "course", False),
    "matters": (1200, 900, "matters", True),
    "winner": (1200, 640, "winner", False),
    "answers": (1200, 900, "answers", False),
    "phone": (400, 860, "verdict", True),
}


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
def test_png_and_svg_of_every_figure(report, study: Path, tmp_path: Path) -> None:
    write(str(study), out=tmp_path, formats=("svg", "csv"))
    names = {figure.name for figure in figures(report)}
    written = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert written == names
    assert (tmp_path / "leaderboard.csv").exists()
    text = (tmp_path / "figures" / "progress.svg").read_text("utf-8")
    assert text.startswith("<svg")
    assert "Best recipe so far" in text
    assert "<script" not in text
    drawn = images(report, "png")
    assert set(drawn) == {f"{name}.png" for name in names}
    for data in drawn.values():
        assert data.startswith(b"\x89PNG")
        assert struct.unpack(">I", data[16:20]) == (1800,)
        assert len(data) > 5000


def test_without_a_browser_one_line_says_so(
    report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    with pytest.raises(BrowserError, match=r"BROWSER_PATH=/nowhere/chromium\); install Chromium"):
        write_report(report, tmp_path, ("csv", "png"))
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_draws_nothing_is_one_line_too(
    report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "true")
    with pytest.raises(BrowserError, match=r"/true drew nothing \(exit code 0\)"):
        write_report(report, tmp_path, ("png",))


@pytest.mark.slow
def test_pictures_for_the_docs(browser, pages, report, tmp_path: Path) -> None:
    """``make pictures`` sets PICTURES to docs/images, and REPORT to the page to take them of."""
    out = Path(os.environ.get("PICTURES", tmp_path))
    out.mkdir(parents=True, exist_ok=True)
    given = os.environ.get("REPORT")
    page = Path(given).resolve() if given else pages("pictures", to_html(report))
    for name, (width, height, section, dark) in PICTURES.items():
        browser.show(page, width=width, dark=dark)
        top = browser.run(
            "const at = document.getElementById(arguments[0]).getBoundingClientRect().top;"
            "return Math.max(0, at + scrollY - 60)",
            section,
        )
        if section == "verdict":
            top = 0
        picture = browser.picture(int(top), height)
        assert 10_000 < len(picture) < 400_000
        (out / f"report-{name}.png").write_bytes(picture)
