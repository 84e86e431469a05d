"""Recipes to and from mergekit's YAML; see ``docs/recipes.md`` for what maps to what."""

from spaces.mergekit.reader import Document, from_yaml
from spaces.mergekit.writer import not_in_mergekit, to_yaml

__all__ = ["Document", "from_yaml", "not_in_mergekit", "to_yaml"]
