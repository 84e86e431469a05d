"""A built model goes to the Hugging Face hub, with its card."""

from __future__ import annotations

from pathlib import Path

from runs.export.card_metadata import CARD
from spaces.errors import RunFailed, UserError
from spaces.text.error_text import plain_line, said


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
        if not any(folder.glob(name))
    ]


def _private_paths(folder: Path) -> list[str]:
    """Files that are published and name the home folder or the folder itself."""
    private = {str(Path.home()), str(folder.resolve().parent)} - {"/"}
    return [
        f"{file}: expected no folder of this machine, got {path}; edit the file"
        for file in sorted((*folder.glob("*.md"), *folder.glob("*.json")))
        for path in sorted(private)
        if f"{path}/" in file.read_text(encoding="utf-8", errors="replace")
    ]
