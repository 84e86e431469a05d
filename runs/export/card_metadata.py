"""What a model's card on the disk declares in its front matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from spaces.text.plain_yaml import plain

CARD = "README.md"
"""Name of the card's file in a model folder."""


def card_metadata(folder: Path) -> Mapping[str, Any]:
    """The front matter of a model folder's card; empty where there is none that can be read."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        parts = text.split("---\n", 2)
        front = plain(parts[1]) if text.startswith("---\n") and len(parts) > 2 else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return front if isinstance(front, dict) else {}


def declared_base(folder: Path) -> str | None:
    """The single ``base_model`` that a card declares."""
    found = card_metadata(folder).get("base_model")
    if isinstance(found, list):
        found = found[0] if len(found) == 1 else None
    return found if isinstance(found, str) and found else None


def declared_license(folder: Path) -> str:
    """The license that a card declares, by its name where it is not one of the hub's list.

    Empty where the card declares none.
    """
    card = card_metadata(folder)
    found = card.get("license")
    if found == "other" and card.get("license_name"):
        found = card["license_name"]
    return found if isinstance(found, str) else ""
