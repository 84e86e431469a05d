"""Broken input of every kind, through the command line.

Whatever is in a file: no traceback, one line per problem, exit code 2 where it cannot be used, and
nothing half-written. MERGE_SEARCH_FUZZ=10 runs ten times as many cases.
"""

import json
import os
import random
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from runs.config.run_config import RunConfig
from tests.command import Done, search
from tests.faults.driver import drive_here
from tests.fuzz.mutations import broken_bytes, broken_text

ROOT = Path(__file__).parents[2]
TIMES = float(os.environ.get("MERGE_SEARCH_FUZZ", "1"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 * max(1.0, TIMES))]


def cases(count: int, name: str) -> Iterator[tuple[int, random.Random]]:
    """Numbered cases, each with randomness of its own, so that one can be run alone."""
    for number in range(int(count * TIMES)):
        yield number, random.Random(f"{name} {number}")


def clean(done: Done, what: object) -> None:
    """Lines for people and an exit code; no trace of the inside."""
    assert "Traceback" not in done.err + done.out, (what, done.err)
    assert "shows where" not in done.err, (what, done.err)
    assert all(line.startswith("search: error: ") for line in done.lines), (what, done.err)


def refused(done: Done, what: object) -> None:
    clean(done, what)
    assert done.code == 2, (what, done.code, done.out, done.err)
    assert done.lines, what


# Configs. None of their models exists, so that each one must be refused, whatever else it is.

EXAMPLES = [path.read_text() for path in sorted((ROOT / "examples").glob("*.yaml"))]


def test_mutated_configs(tmp_path: Path) -> None:
    config, out = tmp_path / "search.yaml", tmp_path / "out"
    for number, rng in cases(700, "config"):
        config.write_bytes(broken_text(rng.choice(EXAMPLES), rng))
        refused(search("run", config, "--dry-run", "--out", out), number)
        assert [path.name for path in tmp_path.iterdir()] == ["search.yaml"], number


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_FULL = RunConfig.from_text(
    "base: ./nowhere/base\nmodels: {a: ./nowhere/a, b: ./nowhere/b}\ntasks: [t]\n"
    "space: {slices: {max_slices: 2}, depth: {knots: 3}}\n"
).to_dict()
PLACES = [(key,) for key in _FULL] + [
    (key, inner) for key, value in _FULL.items() if isinstance(value, dict) for inner in value
]


@settings(
    max_examples=int(500 * TIMES), derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_configs_with_any_value_anywhere(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[str, ...], Any]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-value"
    folder.mkdir(exist_ok=True)
    data: dict[str, Any] = json.loads(json.dumps(_FULL))
    for place, value in changes:
        target: Any = data
        for key in place[:-1]:
            target = target.get(key) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[place[-1]] = value
    config = folder / "search.yaml"
    text = yaml.safe_dump(data, allow_unicode=True)
    config.write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(search("run", config, "--dry-run", "--out", folder / "out"), changes)
    assert [path.name for path in folder.iterdir()] == ["search.yaml"]


# Recipes, ours and mergekit's. Their models do not exist either.

RECIPES = [
    *(path.read_text() for path in sorted((ROOT / "tests" / "golden").glob("recipe_*.yaml"))),
    """\
models:
  - model: ./nowhere/a
    parameters: {weight: 0.5, density: [0.2, 0.8]}
  - model: ./nowhere/b+./nowhere/lora
    parameters:
      weight:
        - {filter: mlp, value: 0.3}
        - 0.7
merge_method: ties
base_model: ./nowhere/base
parameters: {normalize: true, int8_mask: true}
dtype: bfloat16
tokenizer: {source: union, tokens: {"<x>": {source: ./nowhere/a, force: true}}}
chat_template: auto
""",
    """\
slices:
  - sources: [{model: ./nowhere/a, layer_range: [0, 4]}, {model: ./nowhere/b, layer_range: [0, 4]}]
  - sources: [{model: ./nowhere/a, layer_range: [2, 6], parameters: {scale: 0.5}}]
merge_method: slerp
base_model: ./nowhere/a
parameters: {t: [0, 0.5, 1]}
out_dtype: float16
""",
]


def test_mutated_recipes(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    for number, rng in cases(500, "recipe"):
        recipe.write_bytes(broken_text(rng.choice(RECIPES), rng))
        refused(search("build", recipe, out), number)
        assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"], number


# Checkpoints: safetensors' own reader says which of them can be used.


@pytest.fixture(scope="module")
def pair(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models to average: a recipe beside them."""
    folder = tmp_path_factory.mktemp("pair")
    base = tiny_model(folder / "a", layers=1, hidden=8)
    tiny_model(folder / "b", base=base)
    models = [{"model": str(folder / name), "parameters": {"weight": 1.0}} for name in "ab"]
    recipe = {"merge_method": "linear", "models": models, "dtype": "float32"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def broken_header(header: dict[str, Any], rng: random.Random) -> bytes:
    """A safetensors header with wrong facts about a tensor, or with tensors too many or few."""
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    kind = rng.randrange(8)
    odd = rng.choice((-1, 0, 1, 2**31, 2**63, 2**64, 1.5, "1", None, True, [], {}, 10**30))
    if kind == 0:
        entry["dtype"] = rng.choice(("F16", "F64", "I4", "", "f32", None, 7, ["F32"], "BF16"))
    elif kind == 1:
        entry["shape"] = rng.choice(([odd], [odd, odd], odd, [*entry["shape"], 1], []))
    elif kind == 2:
        entry["data_offsets"][rng.randrange(2)] = odd
    elif kind == 3:
        entry["data_offsets"] = rng.choice((odd, [odd], [0, 0], entry["data_offsets"][::-1]))
    elif kind == 4:
        entry.pop(rng.choice(list(entry)))
    elif kind == 5:
        header[rng.choice(("x", "", "../x", "\0", *names))] = header.pop(name)
    elif kind == 6:
        header["__metadata__"] = rng.choice((odd, {"a": odd}, {"a": "b"}))
    else:
        header[name] = rng.choice((odd, entry | {"more": odd}))
    return json.dumps(header).encode()


def test_mutated_checkpoints(pair: Path, tmp_path: Path) -> None:
    """A header cut, flipped or wrong is refused; or it can be read, then by safetensors too."""
    file = pair / "b" / "model.safetensors"
    good = file.read_bytes()
    size = struct.unpack("<Q", good[:8])[0]
    built = 0
    try:
        for number, rng in cases(350, "checkpoint"):
            if rng.random() < 0.5:
                data = broken_bytes(good, rng, within=(0, 8 + size))
            else:
                text = broken_header(json.loads(good[8 : 8 + size]), rng)
                length = len(text) + rng.choice((0, 0, 0, 0, 1, -1, 2**40, 2**62))
                data = struct.pack("<Q", max(0, length)) + text + good[8 + size :]
            file.write_bytes(data)
            done = search("build", pair / "recipe.yaml", tmp_path / "out")
            clean(done, number)
            if done.code == 0:
                built += 1
                assert readable(file), number
                (tmp_path / "out").rename(tmp_path / f"built{number}")
            else:
                assert done.code == 2, (number, done.code, done.err)
            assert not (tmp_path / "out").exists(), number
            assert not [path for path in tmp_path.iterdir() if not path.name.startswith("built")]
    finally:
        file.write_bytes(good)
    assert built < 0.3 * 350 * TIMES


def readable(file: Path) -> bool:
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                opened.get_tensor(name)
    except (SafetensorError, ValueError, OSError):
        return False
    return True


# Studies.


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A finished study of a dozen recipes."""
    place = tmp_path_factory.mktemp("study") / "study.db"
    drive_here(str(place))
    return place.read_bytes()


def test_studies_cut_off_anywhere(study: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    for number, rng in cases(150, "cut"):
        path.write_bytes(study[: rng.randrange(len(study))])
        for command in (("status", path), ("export", path, "--out", tmp_path / "best.yaml")):
            refused(search(*command), number)
        assert [one.name for one in tmp_path.iterdir()] == ["study.db"]


def test_studies_with_other_bytes(study: bytes, tmp_path: Path) -> None:
    """Refused, or so little is wrong that SQLite itself takes the file for sound."""
    path, best = tmp_path / "study.db", tmp_path / "best.yaml"
    unseen = 0
    for number, rng in cases(120, "flip"):
        data = study
        for _ in range(rng.choice((1, 1, 4, 40))):
            data = broken_bytes(data, rng)[: len(study)] or study
        path.write_bytes(data.ljust(len(study), b"\0") if rng.random() < 0.5 else data)
        before = path.read_bytes()
        for command in (("status", path), ("export", path, "--out", best), ("resume", path)):
            done = search(*command)
            clean(done, number)
            assert done.code in (0, 2), (number, command, done.code, done.err)
            if done.code == 0:
                unseen += 1
                assert sound(path) or command[0] != "resume", number
        if best.exists():
            assert yaml.safe_load(best.read_text())["merge_method"], number
            best.unlink()
        assert path.read_bytes() == before
        assert [one.name for one in tmp_path.iterdir()] == ["study.db"], number
    assert unseen < 120 * TIMES * 2


def test_a_spent_study_with_any_damaged_tree_is_not_told_to_be_well(
    study: bytes, tmp_path: Path
) -> None:
    """Also where nothing is left to do, and nobody would have read the page."""
    path = tmp_path / "study.db"
    path.write_bytes(study)
    with closing(sqlite3.connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        roots = connection.execute(
            "SELECT rootpage, name FROM sqlite_master WHERE rootpage > 0"
        ).fetchall()
    assert search("resume", path).code == 0
    for root, name in roots:
        start = (root - 1) * size
        path.write_bytes(study[:start] + b"\xff" * 8 + study[start + 8 :])
        done = search("resume", path)
        refused(done, name)
        assert "study.db" in done.err, name


def sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.DatabaseError):
        return connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    return False
