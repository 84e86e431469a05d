"""Where a study is: its file, or the run's folder that holds it."""

from __future__ import annotations

from pathlib import Path

from search.inputs.input_error import InputError
from spaces.paths import is_folder

STUDY = "study.db"
"""Name of the study's file in a run's folder."""


def study_in(place: str | Path) -> str:
    """A study's file, also if the run's folder is given; URLs of databases as they are.

    Raises:
        InputError: If the folder has none.
    """
    path = Path(place)
    if "://" in str(place) or not is_folder(path):
        return str(place)
    if not (path / STUDY).is_file():
        raise InputError(f"{path}: expected a run's folder with {STUDY}, got one without")
    return str(path / STUDY)
