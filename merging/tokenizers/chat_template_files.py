"""Chat templates of model folders: which one a merged model gets, and putting it there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spaces.recipes.chat_template import AUTO, NAMED

_CONFIG, _FILE, _MORE = "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates"


def chosen(asked: str, folders: Iterable[Path]) -> str | None:
    """The template that a recipe asks for.

    Args:
        asked: ``auto``, one of ``NAMED``, or a template.
        folders: Tokenizers of the inputs, in order; of equally frequent templates the first wins.

    Returns:
        The template; ``None`` for ``auto`` where no input has one.
    """
    if asked != AUTO:
        return NAMED.get(asked, asked)
    found = Counter(text.strip() for folder in folders if (text := stored(folder)))
    return found.most_common(1)[0][0] if found else None


def stored(folder: Path) -> str | None:
    """The (default) template of a model folder, if it has one."""
    file = folder / _FILE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = _config(folder).get("chat_template")
    if isinstance(found, list):  # several, each with a name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def put(folder: Path, template: str) -> None:
    """Make it the only template of a model folder, where every version of a loader finds it."""
    for file in folder.glob("chat_template.*"):
        file.unlink()
    shutil.rmtree(folder / _MORE, ignore_errors=True)
    text = json.dumps(_config(folder) | {"chat_template": template}, indent=2, ensure_ascii=False)
    (folder / _CONFIG).write_text(text + "\n", encoding="utf-8")


def _config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}
