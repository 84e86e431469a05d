"""The Python API in a real notebook's kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

Cells = Callable[..., list[list[Any]]]


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    """A function that runs cells in a new kernel and gives the outputs of each."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def run(*sources: str) -> list[list[Any]]:
        notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
        client = NotebookClient(
            notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        )
        client.execute()
        return [cell["outputs"] for cell in notebook["cells"]]

    return run


def text_of(outputs: list[Any]) -> str:
    return "".join(one["text"] for one in outputs if one["output_type"] == "stream")


@pytest.mark.slow
def test_a_notebook_shows_one_line_of_progress_and_results_as_tables(
    cells: Cells, project: Callable[..., Path]
) -> None:
    asked = f"{str(project())!r}, dry_run=True"
    shown, table, quiet, still = cells(
        f"import search\nfirst = search.run({asked}, out='a', trials=20)",
        "first",
        f"none = search.run({asked}, out='b', trials=8, quiet=True)",
        f"none = search.run({asked}, out='c', trials=8, progress=False)",
    )
    (line,) = (one["data"]["text/plain"] for one in shown if one["output_type"] == "display_data")
    assert line.startswith("held-out ")  # the last phase, as it ended
    assert "Verdict:" in text_of(shown)
    assert "20/20" not in text_of(shown)
    (result,) = table
    assert "<table" in result["data"]["text/html"]
    assert quiet == []
    assert {one["output_type"] for one in still} == {"stream"}
    assert "Verdict:" in text_of(still)
    assert "8/8" not in text_of(still)
