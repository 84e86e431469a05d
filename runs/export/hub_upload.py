"""A built model goes to the Hugging Face hub, with its card."""

from __future__ import annotations

import re
from pathlib import Path

from runs.export.card_metadata import CARD
from spaces.errors import RunFailed, UserError
from spaces.paths import exists
from spaces.text.error_text import plain_line, said

_ABSOLUTE = re.compile(r"(?<![\w:/.~-])/[\w.-]+(?:/[\w.-]+)+")
"""An absolute path of two parts or more; no part of an address or of a relative path."""


def upload(folder: Path, repository: str, *, public: bool) -> str:
    """Upload a model folder.

    Args:
        folder: What ``search build`` wrote.
        repository: ``owner/name``; made where it does not exist.
        public: Whether a repository that is made can be read by all.

    Returns:
        The address of the model.

    Raises:
        UserError: If the folder is no built model, or names folders of this machine.
        RunFailed: If the hub does not take it.
    """
    problems = _missing(folder) or _private_paths(folder)
    if repository.count("/") != 1:
        problems.append(f"repository: expected OWNER/NAME, got {repository}")
    if problems:
        raise UserError(problems)
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    hub = HfApi()
    try:
        place = hub.create_repo(repository, private=not public, exist_ok=True)
        message = f"Upload {folder.resolve().name}, built by merge-search"
        hub.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message=message)
    except HFValidationError as error:
        raise UserError(f"repository: {plain_line(said(error), 300)}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        reason = plain_line(said(error), 300)
        raise RunFailed(
            f"{repository}: the hub did not take it ({reason}); `hf auth login` or HF_TOKEN gives "
            "access"
        ) from error
    return str(place.url)


def _missing(folder: Path) -> list[str]:
    """What a built model has and the folder has not."""
    wanted = ("config.json", CARD, "*.safetensors")
    return [
        f"{folder}: expected a model folder that `search build` wrote, got none with {name}"
        for name in wanted
        if not any(file.is_file() for file in folder.glob(name))
    ]


def _private_paths(folder: Path) -> list[str]:
    """Files that are published and name a folder of this machine: home, its own, or any other."""
    private = {str(Path.home()), str(folder.resolve().parent)} - {"/"}
    texts = (file for kind in ("md", "json", "yaml", "yml") for file in folder.rglob(f"*.{kind}"))
    problems = []
    for file in sorted(texts):
        text = file.read_text(encoding="utf-8", errors="replace")
        named = {path for path in private if re.search(rf"{re.escape(path)}(?![\w.-])", text)}
        named |= {path for path in _ABSOLUTE.findall(text) if exists(path)}
        problems += [
            f"{file}: expected no folder of this machine, got {path}; edit the file"
            for path in sorted(named)
        ]
    return problems
