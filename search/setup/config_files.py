"""Writing a config and its JSON Schema: never over what somebody else has made."""

from __future__ import annotations

import json
from pathlib import Path

from runs.config.run_config import SCHEMA_ID, json_schema
from runs.output_files import write_text
from search.inputs.input_error import InputError
from search.monitoring.console import console, say_written
from search.setup.commented_yaml import SCHEMA_FILE, CommentedYaml, text_of


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        InputError: If there is a file, unless ``force``; or a folder.
    """
    if out.is_dir():
        raise InputError(f"{out}: expected a file to write, got a folder")
    if out.exists() and not force:
        raise InputError(
            f"{out}: expected no file yet, got one; give another with --out, or --force to "
            "replace it"
        )


def write_config(draft: CommentedYaml, out: Path) -> list[Path]:
    """Write a config, and the schema for editors beside it if there is none of another kind."""
    schema = out.parent / SCHEMA_FILE
    write_text(out, text_of(draft))
    if schema.exists() and not _is_ours(schema):
        return [out]
    write_text(schema, schema_text())
    return [out, schema]


def schema_text() -> str:
    """The JSON Schema of a config."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_schema(out: Path) -> None:
    """Write the JSON Schema of a config to a new file, or over an older one.

    Raises:
        InputError: If there is something else.
    """
    if out.exists() and not _is_ours(out):
        raise InputError(f"{out}: expected no file, or a schema of ours, got something else")
    write_text(out, schema_text())
    say_written(console(), [out])


def _is_ours(schema: Path) -> bool:
    try:
        return bool(json.loads(schema.read_text("utf-8")).get("$id") == SCHEMA_ID)
    except (OSError, ValueError, AttributeError):
        return False
