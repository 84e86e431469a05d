from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluators.protocol import FailureKind, Floor, TaskInfo
from runs.config.config_checks import key_paths
from runs.config.config_sections import SAMPLERS
from runs.config.run_config import RunConfig, json_schema
from runs.ranking.finalists import WinnerStanding
from runs.ranking.leaderboard import FAILURE_COLUMNS, columns
from runs.records.record import MEASURES
from runs.report.report_files import FORMATS
from spaces.catalogue.method_catalogue import METHODS

DOCS = Path(__file__).parent.parent.parent / "docs"
CONFIG = (DOCS / "config.md").read_text(encoding="utf-8")
REPORT = (DOCS / "report.md").read_text(encoding="utf-8")
SKIP = {"harness", "space", "search", "workers", "output"}  # sections: they have headings


def rows(text: str) -> dict[str, list[str]]:
    """Cells of every table row by its first cell without backticks."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found[cells[0].strip("`")] = cells
    return found


def documented(path: tuple[str, ...]) -> str:
    return ".".join(path).replace(".*", "[]")


KEYS = sorted({documented(path) for path in key_paths(json_schema())} - SKIP)


def default_of(key: str) -> Any:
    """Default in the schema; ``...`` where the key is required."""
    schema = json_schema()
    node: dict[str, Any] = schema
    value: Any = ...
    for part in key.replace("[]", ".*").split("."):
        node = _resolved(node, schema)
        if part == "*":
            node = node["items"]
            continue
        node = node["properties"][part]
        value = node.get("default", ...)
    return value


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    for branch in node.get("anyOf", ()):
        if "$ref" in branch:
            return _resolved(branch, schema)
    return node


def test_the_schema_has_the_keys_of_the_design() -> None:
    assert {"base", "models", "tasks[].metric", "space.depth.knots", "search.validate"} <= set(KEYS)
    assert len(KEYS) > 50


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_documented_with_its_default(key: str) -> None:
    table = rows(CONFIG)
    assert key in table, f"docs/config.md: no row for {key}"
    _, meaning, values, default = table[key]
    assert meaning
    assert values
    expected = default_of(key)
    if expected is ...:
        assert default == "required" or key in (
            "harness.chat_template_args",
            "harness.gen_kwargs",
            "workers.runtime_env",
        )
    elif expected is None:
        assert default.startswith("none")
    else:
        assert yaml.safe_load(default.strip("`")) == expected


def test_no_key_is_documented_that_does_not_exist() -> None:
    assert set(rows(CONFIG)) == set(KEYS)


@pytest.mark.parametrize("section", sorted(SKIP))
def test_every_section_has_a_heading(section: str) -> None:
    assert f"\n## `{section}`: " in CONFIG


@pytest.mark.parametrize("name", [*METHODS, *SAMPLERS])
def test_every_choice_is_documented(name: str) -> None:
    assert f"`{name}`" in CONFIG


def test_the_example_is_a_config() -> None:
    text = CONFIG.split("```yaml\n")[1].split("```")[0]
    config = RunConfig.from_text(text)
    assert config.space(24).depth.knots == 3
    assert config.output.tokenizer == "base"


def test_every_schema_key_describes_itself() -> None:
    def walk(node: dict[str, Any], name: str) -> None:
        for key, inner in node.get("properties", {}).items():
            if f"{name}{key}" not in SKIP:
                assert inner.get("description"), f"{name}{key}"

    schema = json_schema()
    walk(schema, "")
    for name, part in schema["$defs"].items():
        walk(part, f"{name}.")


def test_report_page_has_every_column_with_its_dtype() -> None:
    floor = Floor(value=0.5)
    task = TaskInfo(
        name="NAME", metric="m", higher_is_better=True, weight=1.0, floor=floor, written=True
    )
    board, failed = REPORT.split("## Columns of the failures")
    board = board.split("## Columns of the leaderboard")[1]
    failed = failed.split("## The JSON file")[0]
    shown = {name: dtype for name, dtype in columns((task,)).items()  # measures are NAME too
             if name.partition(":")[2] not in MEASURES}  # fmt: skip
    for text, expected in ((board, shown), (failed, FAILURE_COLUMNS)):
        found = {name: cells[1].strip("`") for name, cells in rows(text).items()}
        assert found == expected
        assert list(found) == list(expected)


@pytest.mark.parametrize("name", [*FORMATS, *WinnerStanding, *FailureKind])
def test_report_page_names_everything(name: str) -> None:
    assert f"`{name}`" in REPORT


def test_report_page_names_every_file_and_json_key() -> None:
    for kind in FORMATS.values():
        assert f"`{kind.file}`" in REPORT
    golden = Path(__file__).parent.parent / "golden" / "runs" / "leaderboard.json"
    for key in yaml.safe_load(golden.read_text(encoding="utf-8")):
        assert key in rows(REPORT.split("## The JSON file")[1])
