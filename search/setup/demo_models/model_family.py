"""The demo's models and tasks, made on this machine: nothing is downloaded.

A base has learnt several skills on strings of digits (``search/setup/demo_models/exercises.py``),
but mostly shows the wrong one when asked. Three specialists, fine-tuned from it, each answer one
question right and the others no better than the base, or worse. Their plain average dilutes what
each has learnt; a good recipe brings the three skills together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.building.staged_folder import StagedFolder
from runs.output_files import write_text
from search.inputs.input_error import InputError
from search.setup.demo_models.demo_tasks import config_text, write_task
from search.setup.demo_models.exercises import FOUR, THREE, examination

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VERSION = 1
"""Of all that decides what a family is; one of another version is not used again."""

MARKER = "family.json"
"""Written last: a folder with it holds a finished family."""

QUESTIONS = 400
"""Questions per task: 120 held out, a standard error of the mean of the tasks of about 0.02."""
QUICK_QUESTIONS = 70

_BASE = "base"
_TASKS = "tasks"
_CONFIG = "search.yaml"
_SAVING = 0.98  # share of the work that is training

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of all work that is done, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFamily:
    """Where a family's parts are.

    Attributes:
        base: Folder of the base model.
        models: Folders of the specialists, by the skill each is good at.
        tasks: Folder with lm-eval task files and their questions.
        config: A search over all of it, ready to run.
    """

    base: Path
    models: dict[str, Path]
    tasks: Path
    config: Path


def make_family(
    folder: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    hard: bool = False,
    progress: Progress | None = None,
) -> ModelFamily:
    """Make a family, or find the one that an earlier call has made there.

    Everything is made beside ``folder`` and moved there at the end, so that ``folder`` holds a
    whole family or nothing of it. The full family takes about half a minute on one core.

    Args:
        folder: Must not exist, be empty, or hold a finished family of the same kind.
        seed: At least 0; decides weights and questions.
        quick: Smaller models that are hardly trained and short tasks, in seconds: they can be
            merged and scored, but no merge of them is good.
        hard: Four specialists, of skills that get in each other's way; not together with ``quick``.
        progress: Told about every step; not called for a family that is there already.

    Raises:
        InputError: If the folder holds something else; nothing is changed then.
    """
    if seed < 0:
        raise InputError(f"seed: expected a whole number of at least 0, got {seed}")
    if quick and hard:
        raise InputError("hard: expected a family that is not quick as well, got both")
    folder = folder.absolute()
    kind = {"version": VERSION, "seed": seed, "quick": quick} | ({"hard": True} if hard else {})
    if not _found(folder, kind):
        with _draft(folder, kind) as draft:
            _make(draft, kind, progress=progress or (lambda _label, _share: None))
            write_text(draft / MARKER, json.dumps(kind, indent=2) + "\n")
    return ModelFamily(
        base=folder / _BASE,
        models={name: folder / name for name in (FOUR if hard else THREE).targets},
        tasks=folder / _TASKS,
        config=folder / _CONFIG,
    )


def _found(folder: Path, kind: dict[str, Any]) -> bool:
    """Whether the folder holds this family; an error if it holds something else."""
    marker = folder / MARKER
    if marker.is_file():
        try:
            present = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{marker}: expected JSON, got: {error}") from error
        if present != kind:
            raise InputError(
                f"{folder}: expected a demo family with {_words(kind)}, got one with "
                f"{_words(present)}; give another folder"
            )
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"{folder}: expected a new or empty folder for the demo family, got "
            f"{'a folder with other files' if folder.is_dir() else 'a file'}; give another folder"
        )
    return False


def _words(kind: Any) -> str:
    if not isinstance(kind, dict):
        return f"the description {kind!r}"
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in kind.items())


@contextmanager
def _draft(folder: Path, kind: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill that becomes ``folder`` when the block ends well, else goes away."""
    draft = StagedFolder(folder)
    draft.begin()
    try:
        yield draft.folder
        if folder.is_dir():
            folder.rmdir()  # empty, or it fails: files may have come meanwhile
        draft.put()
    except OSError:
        # Someone else may have made the same family in the same place meanwhile.
        if not (folder / MARKER).is_file() or not _found(folder, kind):
            raise
    finally:
        draft.discard()


def _make(draft: Path, kind: dict[str, Any], *, progress: Progress) -> None:
    """Fill the draft of a family."""
    progress("preparing", 0.0)
    from search.setup.demo_models.family_training import (
        FULL,
        HARD,
        QUICK,
        make_tokenizer,
        train_family,
    )

    seed, course = kind["seed"], QUICK if kind["quick"] else HARD if "hard" in kind else FULL
    learnt, count = course.curriculum, QUICK_QUESTIONS if kind["quick"] else QUESTIONS
    digits = {skill: examination(skill, count, seed=seed) for skill in learnt.targets}
    for skill, given in digits.items():
        chosen = skill in learnt.chosen
        write_task(draft / _TASKS, skill, given, chosen=chosen, seed=seed)
    write_text(draft / _CONFIG, config_text(learnt, seed))
    models = train_family(
        course,
        seed=seed,
        avoid=frozenset().union(*digits.values()),
        progress=lambda label, share: progress(label, _SAVING * share),
    )
    tokenizer = make_tokenizer()
    for name, model in models.items():
        progress(f"saving {name}", _SAVING)
        save_model(model, tokenizer, draft / name)
    progress("family ready", 1.0)


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model and its tokenizer; it answers with the likeliest token unless told else."""
    from transformers import GenerationConfig
    from transformers.utils import logging

    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
