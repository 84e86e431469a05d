"""Packages of other people: what they add by entry points is there once they are installed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")

Install = Callable[[dict[str, str]], dict[str, str]]


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Installs files as a package; gives the environment in which it is installed."""

    def installed(files: dict[str, str]) -> dict[str, str]:
        folder, site = (tmp_path_factory.mktemp(name) for name in ("package", "site"))
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        pip += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
        subprocess.run([*pip, str(folder)], check=True, capture_output=True, timeout=300)
        paths = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    return installed


def block(language: str) -> str:
    found = re.search(f"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def median(install: Install) -> dict[str, str]:
    """Where the package of docs/own-method.md is installed, as the page has it."""
    return install({"delta_median.py": block("python"), "pyproject.toml": block("toml")})


def python(program: str, environment: dict[str, str], *arguments: str) -> Any:
    """What a program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(command: list[str], environment: dict[str, str]) -> str:
    """What a command says that is refused for its input."""
    done = subprocess.run(
        [sys.executable, "-m", "search", *command],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def pyproject(group: str, entry: str) -> str:
    return (
        '[project]\nname = "another"\nversion = "1.0"\n'
        f'entry-points."{group}" = {{{entry}}}\n[tool.setuptools]\npy-modules = ["another"]\n'
    )


def test_the_page_is_short() -> None:
    assert len((block("python") + block("toml")).splitlines()) < 30


DRAWN = """
import json, sys
import optuna
from runs.config.run_config import RunConfig
from spaces.mergekit import from_yaml, to_yaml
from spaces.sampling.draw import Fixed, draw, parameters, params
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)
space = RunConfig.from_text(sys.argv[1]).space(4)
assert Space.from_dict(json.loads(json.dumps(space.to_dict()))) == space
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
recipes = [draw(space, study.ask()) for _ in range(20)]
for recipe in recipes:
    assert draw(space, Fixed(params(recipe, space))) == recipe
text = to_yaml(recipes[0], {name: f"org/{name}" for name in recipes[0].models})
assert from_yaml(text).recipe.root == recipes[0].root
print(json.dumps({
    "domains": {name: [domain.low, domain.high] for name, domain in parameters(space).items()
                if "strength" in name},
    "text": text,
    "seeds": [seed.name for seed in seeds(space)],
    "torch": "torch" in sys.modules,
}))
"""

CONFIG = """
base: org/base
models: {math: org/math, code: org/code, chat: org/chat}
tasks: [gsm8k]
space:
  methods: [delta_median]
  order: all-at-once
  ranges: {delta_median_strength: [0.8, 1.2]}
  depth: {knots: 2, parameters: [delta_median_strength]}
  filters: [mlp]
  filter_parameters: [delta_median_strength]
"""


def test_a_method_is_drawn_exported_and_read_again(median: dict[str, str]) -> None:
    found = python(DRAWN, median, CONFIG)
    names = [f"delta_median_strength[{part}].k{knot}" for part in ("mlp", "*") for knot in (1, 2)]
    assert found["domains"] == {key: [0.8, 1.2] for key in names}
    assert "merge_search_method: delta_median" in found["text"]
    assert "mergekit lacks delta_median" in found["text"]
    assert "\nmerge_method" not in found["text"]
    assert "delta_median" in found["seeds"]


def test_nothing_of_it_is_there_where_it_is_not_installed() -> None:
    program = "from spaces.catalogue.method_catalogue import METHODS, SEARCHED; import json; "
    program += "print(json.dumps([*METHODS, *SEARCHED]))"
    assert not any("median" in name for name in python(program, dict(os.environ)))


EVERYWHERE = (
    "tests/merging/test_devices.py",
    "tests/merging/test_method_registry.py",
    "tests/spaces/test_mergekit_methods.py",
    "tests/evaluators/test_synthetic_evaluator.py",
)


@pytest.mark.timeout(1200)
def test_a_method_does_all_that_the_others_do(median: dict[str, str], tmp_path: Path) -> None:
    """Every feature, way, chunk, thread and dtype: the tests of all methods, for this one."""
    report = tmp_path / "report.xml"
    chosen = ["-k", "delta_median", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *EVERYWHERE, *chosen],
        env=median, capture_output=True, text=True, timeout=1100, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    text = report.read_text()
    assert "skipped" not in done.stdout.splitlines()[-1]
    for name in ("delta_median-slices", "every_way_and_every_chunk",
                 "same_bits_for_any_chunk", "every_parameter_there_and_back"):  # fmt: skip
        assert name in text


MADE = """
import json
import torch
from merging.methods.method_registry import Operands, combine
base = torch.tensor([1.0, 2.0, 3.0])
deltas = torch.tensor([[0.1, -1.0, 5.0], [0.3, 2.0, 4.0], [0.2, 0.5, float("inf")]])
made = combine("delta_median", Operands(
    inputs=list(base + deltas), base=base, shared={"strength": 2.0}))
print(json.dumps(made.tolist()[:2] + [bool(made[2].isnan())]))
"""


def test_it_is_the_median(median: dict[str, str]) -> None:
    assert python(MADE, median) == [pytest.approx(1.4), pytest.approx(3.0), True]


@pytest.mark.parametrize(
    ("code", "entry", "said"),
    [
        ("raise RuntimeError('half done')", "wrong = 'another:wrong'", "RuntimeError: half done"),
        ("wrong = 3", "wrong = 'another:wrong'", "@merge_method, got 3 at another:wrong"),
        (block("python").replace("delta_median", "ties"), "ties = 'another:ties'",
         "expected another name than ties, which is taken"),
    ],
)  # fmt: skip
def test_what_is_no_method_is_one_line(
    code: str, entry: str, said: str, install: Install, tmp_path: Path
) -> None:
    files = {"another.py": code, "pyproject.toml": pyproject("merge_search.methods", entry)}
    config = tmp_path / "search.yaml"
    config.write_text(CONFIG.replace("delta_median", "ties"), encoding="utf-8")
    error = refused(["run", str(config)], install(files))
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_an_unknown_range_is_named(median: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "search.yaml"
    config.write_text(CONFIG.replace("ranges: {delta_median_strength", "ranges: {delta_median_x"))
    error = refused(["run", str(config)], median)
    assert "space.ranges.delta_median_x" in error
    assert "did you mean 'delta_median_strength'" in error


EVALUATOR_PAGE = (ROOT / "docs" / "own-evaluator.md").read_text(encoding="utf-8")

SAMPLED = """
import json, sys
import search
run = search.open_run(sys.argv[1])
print(json.dumps(list(run.leaderboard()["origin"])))
"""

RUN = """
models: {math: MATH, code: CODE}
tasks: [gsm8k]
space: {methods: [linear], weight: [0.1, 0.9]}
search: {trials: 8, sampler: halton, seeds: none}
workers: {ray: false, count: 1}
"""


@pytest.fixture(scope="module")
def others(install: Install) -> dict[str, str]:
    """Where the sampler and the evaluator of docs/own-evaluator.md are installed."""
    first, second = re.findall(r"```python\n(.*?)```", EVALUATOR_PAGE, re.DOTALL)
    groups = re.findall(r"```toml\n(.*?)```", EVALUATOR_PAGE, re.DOTALL)[0]
    project = '[project]\nname = "others"\nversion = "1.0"\n'
    modules = '[tool.setuptools]\npy-modules = ["judge", "mine"]\n'
    files = {"judge.py": first, "mine.py": second, "pyproject.toml": project + groups + modules}
    return install(files)


def test_a_sampler_of_a_package_searches(
    others: dict[str, str], tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    config, out = tmp_path / "search.yaml", tmp_path / "out"
    text = RUN.replace("MATH", str(tiny_family["math"])).replace("CODE", str(tiny_family["code"]))
    config.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "search", "run", str(config), "--out", str(out), "--dry-run"],
        env=others, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    origins = python(SAMPLED, others, str(out))
    assert origins.count("sampler halton") >= 2
    assert "search.sampler" in refused(["run", str(config)], dict(os.environ))


def test_an_evaluator_of_a_package_is_found_by_its_name(others: dict[str, str]) -> None:
    program = (
        "from evaluators.custom_evaluator import found; import json; "
        "print(json.dumps([found('copying').__name__, found('judge:Copying').__name__]))"
    )
    assert python(program, others) == ["Copying", "Copying"]
