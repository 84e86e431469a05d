"""Whether the code that a study names may run: only where it was made here, or its user says so.

Going on with a study runs what its config names: an evaluator, functions of task files, code that
comes with models. Whoever made the study has chosen it, so a study made here carries a mark that
nobody else can make: a keyed hash (HMAC-SHA256) over the code that is named, with a key in the
user's own state folder. Another key, another machine or another list of code make another mark.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from runs.config.run_config import RunConfig
from runs.config.yaml_document import shown
from runs.storage.store import Store
from search.inputs.input_error import InputError
from spaces.paths import expanded

FLAG = "--trust-study"
"""What the command line takes for a yes."""

MOST_FILES = 5
"""Python files of a folder that are listed."""

_KEY_BYTES = 64

Consent = Callable[[Sequence[str]], bool]
"""Is told what would run, a line each, and says whether it may."""


def check(store: Store, config: RunConfig, consent: Consent) -> None:
    """Make sure that the code a study names may run.

    Args:
        store: The study.
        config: Its config as it would be used, without what the command line replaces.
        consent: Asked where the study was not made here, nor allowed here before.

    Raises:
        InputError: If it may not; one line that says what would run.
    """
    named = _named(config, dry_run=store.manifest.dry_run)
    if not named or _is_marked(store, named):
        return
    lines = [line for key, value in named.items() for line in _LINES[key](value)]
    if not consent(lines):
        raise InputError(
            f"{store.name}: made by another user, on another machine or by an earlier version, "
            f"and it names code that would run: {'; '.join(lines)}. "
            f"Where you trust all of it, repeat with {FLAG} (once: it is remembered)"
        )


def remember(store: Store, config: RunConfig) -> tuple[str, ...]:
    """Mark a study that is held as made, or allowed, here; a line for the user if it cannot be."""
    named = _named(config, dry_run=store.manifest.dry_run)
    if not named or _is_marked(store, named):
        return ()
    try:
        key = _key(make=True)
    except OSError as error:
        return (
            f"{_file()}: cannot be used ({error.strerror or error}): going on with this study will "
            f"need {FLAG}",
        )
    store.set_fact(_place(key), _mark(key, named))
    return ()


def _named(config: RunConfig, *, dry_run: bool) -> dict[str, Any]:
    """Everything in a config that brings code, by what it is."""
    workers = config.workers
    elsewhere = workers.ray_address if workers.ray and workers.ray_address != "auto" else None
    values: dict[str, Any] = {
        "sampler": config.search.sampler if config.search.sampler == "cmaes" else None,
        "runtime_env": dict(workers.runtime_env) if workers.ray else None,
        "ray_address": elsewhere,
    }
    if not dry_run:  # which reads no model and no task
        values |= {
            "evaluator": config.evaluator,
            "include_path": list(config.include_path),
            "trust_remote_code": list(config.locations.values())
            if config.harness.trust_remote_code
            else None,
        }
    return {key: value for key, value in values.items() if value}


def _with_files(folder: str) -> str:
    """A folder with the Python files in it, some of them if there are many."""
    try:
        files = sorted(path.name for path in Path(folder).rglob("*.py"))
    except OSError:
        files = []
    more = [f"{len(files) - MOST_FILES} more"] if len(files) > MOST_FILES else []
    return folder + (f" ({', '.join(files[:MOST_FILES] + more)})" if files else "")


_LINES: Mapping[str, Callable[[Any], list[str]]] = {
    "evaluator": lambda name: [f"the evaluator {name}"],
    "include_path": lambda folders: [
        f"functions that task files name below {_with_files(folder)}" for folder in folders
    ],
    "trust_remote_code": lambda places: [
        f"code that comes with the tasks' data and with {', '.join(places)} (trust_remote_code)"
    ],
    "sampler": lambda name: [f"the sampler's state, which is a pickle in the study ({name})"],
    "runtime_env": lambda value: [f"what Ray's workers are started with: {shown(value)}"],
    "ray_address": lambda address: [f"the Ray cluster at {address}"],
}
"""What would run, in words."""


def _is_marked(store: Store, named: Mapping[str, Any]) -> bool:
    try:
        key = _key(make=False)
    except OSError:
        return False
    found = store.fact(_place(key)) or ""
    return hmac.compare_digest(found.encode(), _mark(key, named).encode())


def _place(key: bytes) -> str:
    """Where marks of a key stand in a study: each machine has its own."""
    return f"made here:{hashlib.sha256(b'place' + key).hexdigest()[:16]}"


def _mark(key: bytes, named: Mapping[str, Any]) -> str:
    return hmac.new(key, json.dumps(named, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _file() -> Path:
    """The key's file: https://specifications.freedesktop.org/basedir/latest/."""
    stated = Path(os.environ.get("XDG_STATE_HOME", ""))
    state = stated if stated.is_absolute() else expanded("~/.local/state")
    return state / "merge-search" / "key"


def _key(*, make: bool) -> bytes:
    """The user's key, which nobody else can read.

    Raises:
        OSError: If there is none and it is not to be made or cannot be, or it is open to others.
    """
    file = _file()
    if make and not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent) as draft:  # mode 0600
            draft.write(secrets.token_hex(_KEY_BYTES // 2).encode())
            draft.flush()
            os.fsync(draft.fileno())
            with suppress(FileExistsError):  # another run was first
                os.link(draft.name, file)
    with file.open("rb") as opened:
        state = os.fstat(opened.fileno())
        if state.st_uid != os.getuid() or state.st_mode & 0o077:
            raise PermissionError(0, "expected a file that only its user can read")
        key = opened.read()
    if len(key) < _KEY_BYTES:
        raise OSError(0, "expected a key, got less")
    return key
