"""A report's figures as image files, drawn by a browser that is on this machine."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from runs.report.html.page import figures, image_page
from runs.report.report_content import Report
from spaces.errors import UserError

IMAGES = ("png", "svg")
"""Formats of images."""

WIDTH = 900
"""Width of an image in CSS pixels; PNG has twice as many."""

SECONDS = 120
"""Longest time that the browser may take."""

VARIABLE = "BROWSER_PATH"
"""Environment variable that names the browser to use."""

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
)

# No first-run page, nothing in the background, no request: the page holds all it needs.
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class BrowserError(UserError, RuntimeError):
    """There is no browser to draw images with, or it did not."""


def browser() -> str:
    """Path of a Chromium-like browser.

    Raises:
        BrowserError: If there is none.
    """
    named = os.environ.get(VARIABLE)
    for name in (named,) if named else NAMES:
        if found := shutil.which(name):
            return found
    looked = f"{VARIABLE}={named}" if named else ", ".join(NAMES)
    raise BrowserError(
        f"format: expected a browser to draw images with, found none ({looked}); "
        f"install Chromium or Chrome, or set {VARIABLE}"
    )


def images(report: Report, kind: str) -> Mapping[str, bytes]:
    """Every figure of a report as an image, in light colours.

    Returns:
        Contents by file name, in the order of the page.

    Raises:
        BrowserError: If there is no browser, or it does not come to an end.
    """
    program = browser()
    drawn = _drawn(program, image_page(tuple(figures(report)), kind=kind, width=WIDTH))
    return {f"{name}.{kind}": _content(url) for name, url in drawn.items()}


def flags(profile: str) -> tuple[str, ...]:
    """Arguments for a browser that starts afresh in this folder and asks nobody for anything."""
    # The sandbox needs rights that containers and root seldom have; the page is our own.
    own = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
    return (*FLAGS, *own, f"--user-data-dir={profile}")


def _drawn(program: str, page: str) -> Mapping[str, str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "images.html"
        file.write_text(page, encoding="utf-8")
        command = [program, *flags(f"{folder}/profile"), "--virtual-time-budget=60000"]
        command += ["--dump-dom", file.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BrowserError(f"format: {program} could not draw: {error}") from error
    text = done.stdout.decode("utf-8", "replace")
    found = re.search(r'<pre id="images">(.*?)</pre>', text, re.S)
    if found is None:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise BrowserError(f"format: {program} drew nothing (exit code {done.returncode}): {last}")
    drawn: dict[str, str] = json.loads(html.unescape(found[1]))
    return drawn


def _content(url: str) -> bytes:
    """What a ``data:`` URL holds."""
    head, _, body = url.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode("utf-8")
