"""Where a model lies: a folder, or a hub id looked up in the local cache and fetched if need be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from spaces.paths import exists, expanded, is_folder

_HUB_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.\-]*(?:/[A-Za-z0-9][\w.\-]*)?)(?:@(?P<revision>[\w.\-/]+))?\Z"
)
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py")


class LocationError(ValueError):
    """A location at which there is no usable model; one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLocation:
    """Where a model lies.

    Attributes:
        folder: The model's files.
        adapter: Those of the adapter that changes it, if there is one.
    """

    folder: Path
    adapter: Path | None = None


def resolve(location: str) -> ModelLocation:
    """The folders of a model.

    Args:
        location: ``model`` or ``model+adapter``; either is a folder, or ``owner/name`` with an
            optional ``@revision``. A plus in the name of a folder that exists joins nothing.

    Raises:
        LocationError: As ``locate`` does, for either part.
    """
    if "+" not in location or exists(expanded(location)):
        return ModelLocation(folder=locate(location))
    splits = [at for at, character in enumerate(location) if character == "+"]
    at = next((at for at in splits if _is_folder(location[:at])), splits[0])
    model, adapter = location[:at], location[at + 1 :]
    if not model or not adapter:
        raise LocationError(f"{location}: expected a model and an adapter around the +, got one")
    if "+" in adapter and not _is_folder(adapter):
        raise LocationError(
            f"{location}: expected one adapter, got {adapter.count('+') + 1}; merge the first with "
            "peft (merge_and_unload) and give that folder"
        )
    return ModelLocation(folder=locate(model), adapter=locate(adapter))


def locate(location: str) -> Path:
    """The folder of a model, or of an adapter.

    Args:
        location: A folder, or ``owner/name`` with an optional ``@revision``.

    Raises:
        LocationError: If there is no such folder, nor such a model in the hub's cache or, where
            the hub may be asked, on the hub.
    """
    folder = expanded(location)
    if is_folder(folder):
        return folder
    if exists(folder):
        raise LocationError(f"{location}: expected a model folder, got a file")
    match = _HUB_ID.match(location)
    if match is None or location.startswith((".", "/", "~")):
        raise LocationError(f"{location}: no such model folder")
    return _from_hub(location, match["id"], match["revision"])


def _is_folder(location: str) -> bool:
    return bool(location) and is_folder(expanded(location))


def _from_hub(location: str, repository: str, revision: str | None) -> Path:
    """The snapshot in the local cache; fetched when it lacks weights and the hub may be asked."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def snapshot(local: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=local,
                allow_patterns=None if local else list(_FILES),
            )
        )

    offline = constants.is_offline_mode()
    try:
        cached = snapshot(local=True)
        if offline or any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        if offline:
            raise LocationError(
                f"{location}: no such model folder, and not in the hub's cache (the hub is offline)"
            ) from error
    try:
        return snapshot(local=False)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LocationError(
            f"{location}: no such model folder, and not found on the hub ({reason})"
        ) from error
