"""Studies of made-up scores, and a browser that opens their reports."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.cluster.node_check import versions
from evaluators.workers.pool import SerialPool
from runs.config.run_config import RunConfig
from runs.records.manifest import Manifest
from runs.records.question_split import divide
from runs.report.figure_images import flags
from runs.storage.store import Store
from search.engine.learning.adam_descent import Descent
from search.engine.learning.learning_plan import (
    starts,
)
from search.engine.learning.learning_progress import FACT, LearningProgress
from search.engine.session import Session
from search.engine.trials.seed_book import read_book, resolve_book
from search.inputs.stored_study.study_config import config_of
from search.monitoring.study_report import make_report
from search.samplers.estimation.objectives import objectives
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe
from tests.monitors import NotingMonitor

NASTY = "<script>window.hacked=1</script>"
CONFIG = """
base: ./base
models: {math: "./NASTY", code: ./code, text: ./text}
tasks: ["one", "NASTY"]
held_out: 0.3
space:
  methods: [linear, ties, slerp]
  depth: {knots: 3}
  filters: [mlp]
  order: any
search: {trials: TRIALS, sampler: random, seed: 1}
workers: {ray: false}
"""


def make_study(folder: Path, *, trials: int = 50, **changes: Any) -> Path:
    """A finished run over three parents and two tasks, one of them named to do harm."""
    config = RunConfig.from_text(CONFIG.replace("NASTY", NASTY).replace("TRIALS", str(trials)))
    settings = {"questions": 60, "fail_rate": 0.15, **changes}
    spec = SyntheticSpec(
        parents=("math", "code", "text"), tasks=(("one", 1.0), (NASTY, 1.0)), **settings
    )
    catalogue = SyntheticEvaluator(spec).catalogue()
    space, split = config.space(6), divide(catalogue, config.held_out, seed=1)
    manifest = Manifest(
        config=config.to_yaml(),
        space=space.to_dict(),
        inputs={},  # there are no models: nothing to compare them with
        inputs_dtype="float32",
        catalogue=catalogue,
        questions=split,
        versions=versions(),
        created="2026-01-01T00:00:00+00:00",
        objectives=objectives(config, catalogue, split),
        seeds=resolve_book(read_book(config), config, space, {})[0],
    )
    path = folder / "study.db"
    store = Store.create(str(path), manifest)
    store.lock.acquire()
    store.keep_questions(SyntheticEvaluator(spec).question_texts())
    pool = SerialPool(partial(SyntheticEvaluator, spec))
    Session(store, config, pool=pool, monitor=NotingMonitor()).run()
    for name, recipe in starts(space, layers=6, filters=("self_attn", "mlp")).items():
        store.set_fact(f"{FACT}{name}", learned(recipe).to_json())
    store.close()
    return path


def learned(recipe: Recipe) -> LearningProgress:
    """A recipe as if it had been learned in 12 steps, best after the tenth."""
    descent = Descent(values=Coefficients(recipe).values)
    for step in range(12):
        if step % 5 == 0:
            descent = descent.look(1.0 - 0.08 * step)
        descent = descent.step([-1.0] * len(descent.values), loss=1.1 - 0.07 * step, rate=0.05)
    return LearningProgress(
        recipe=recipe, descent=replace(descent.look(0.3), questions=700), planned=12
    )


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("mix"))


@pytest.fixture(scope="session")
def report(study: Path):
    store = Store.open(str(study))
    yield make_report(store, config_of(store))
    store.close()


def missing() -> str:
    """What there is no browser test without; empty where all is there."""
    for name in ("chromium", "chromedriver"):
        if shutil.which(name) is None:
            return name
    return ""


class Browser:
    """Chromium without a screen, and what it logged."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*flags(str(folder)), "--disable-dev-shm-usage"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = Service(str(shutil.which("chromedriver")))
        self.driver = webdriver.Chrome(options=options, service=service)

    def show(self, page: Path, *, width: int = 1600, dark: bool = False) -> None:
        """Open a file and wait until everything is drawn."""
        self.open(page.as_uri(), width=width, dark=dark)

    def open(self, address: str, *, width: int = 1600, dark: bool = False) -> None:
        """Open a page and wait until everything is drawn."""
        self.size(width)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(address)
        until = time.monotonic() + 200
        while self.run("return document.documentElement.dataset.ready") != "yes":
            assert time.monotonic() < until, self.driver.get_log("browser")
            time.sleep(0.05)

    def size(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Everything that the page asked for, but for images it holds itself."""
        sent = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        urls = [
            e["params"]["request"]["url"]
            for e in sent
            if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "blob:", "chrome:"))]

    def picture(self, top: int, height: int) -> bytes:
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        taken = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        return base64.b64decode(taken["data"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if name := missing():
        if os.environ.get("MERGE_SEARCH_CI"):
            pytest.fail(f"expected {name} here, found none")
        pytest.skip(f"needs {name}")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Writes a page into a file of its own."""
    folder = tmp_path_factory.mktemp("pages")

    def write(name: str, text: str) -> Path:
        path = folder / f"{name}.html"
        path.write_text(text, encoding="utf-8")
        return path

    return write
