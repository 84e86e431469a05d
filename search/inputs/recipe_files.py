"""Recipe files as they were given: read, and the places in them found; no model is opened."""

from __future__ import annotations

from pathlib import Path

from search.inputs.input_error import InputError
from spaces.mergekit import Document, from_yaml
from spaces.paths import exists


def read_recipe(recipe: Path) -> Document:
    """A recipe file, ours or mergekit's.

    Raises:
        InputError: If there is none.
        RecipeError: With everything that is wrong with it.
    """
    return from_yaml(read_text(recipe, "a recipe file"), name=str(recipe))


def read_text(path: Path, wanted: str) -> str:
    """The text of a file that is to be what is wanted, in words.

    Raises:
        InputError: If it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: expected {wanted}: {reason}") from error


def unchanged(document: Document) -> bool:
    """Whether the file is still the recipe that its facts were noted for."""
    return document.key == document.recipe.key


def find_location(location: str, folder: Path, *, ours: bool = False) -> str:
    """A location of a recipe file, each part given from where it exists.

    Args:
        location: As the file has it.
        folder: The file's.
        ours: Whether we wrote the file: its relative paths then count from its folder first, those
            of other files from here, as mergekit has it.
    """

    def found(part: str) -> str | None:
        places = (str(folder / part), part) if ours else (part, str(folder / part))
        return next((place for place in places if exists(place)), None)

    return found(location) or "+".join(found(part) or part for part in location.split("+"))
