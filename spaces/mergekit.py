"""Recipes to and from mergekit's YAML; see ``docs/recipes.md`` for what maps to what."""

from spaces.yaml_reader import Document, from_yaml
from spaces.yaml_writer import to_yaml

__all__ = ["Document", "from_yaml", "to_yaml"]
