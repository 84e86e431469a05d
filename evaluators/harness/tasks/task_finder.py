"""Finding an lm-eval task by its name, and saying what is wrong when there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import chdir
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from evaluators.harness.tasks.task_files import task_file
from evaluators.harness.tasks.task_groups import Loaded, folders, loaded, strangers
from evaluators.protocol import EvaluatorError
from spaces.text.error_text import class_and_last_line

MOST_MEMBERS = 20
"""Most names that are listed in a message."""


class TaskFinder:
    """Looks in the user's folders first, then among lm-eval's own tasks.

    Args:
        own: lm-eval's task manager for the user's folders alone.
        everything: Makes the manager of all that lm-eval ships and the user's; takes 10 to 20 s,
            so it is called only for groups and tags that are shipped, and for unknown names.
        folders: The user's folders.
        shipped: Folder of lm-eval's own task files.
    """

    def __init__(
        self,
        own: Any,
        *,
        everything: Callable[[], Any],
        folders: Sequence[str],
        shipped: Path,
    ) -> None:
        self._own = own
        self._everything = everything
        self._folders = folders
        self._shipped = shipped

    def load(self, name: str) -> Loaded:
        """lm-eval's task of that name, or the members of the group or tag.

        Raises:
            EvaluatorError: If there is none, or its data cannot be loaded.
        """
        manager, target, path = self._find(name)
        found = self._read(manager, target, path)
        if target != name or name in manager.all_subtasks:
            return Loaded(tasks=tuple(found["tasks"].values())[:1])
        if not found["tasks"]:
            raise EvaluatorError(["name: expected a task or a group of some, got an empty group"])
        return loaded(name, found)

    def check(self, name: str) -> None:
        """Look for a task, group or tag without loading its data.

        Raises:
            EvaluatorError: If there is none.
        """
        self._find(name)

    def _find(self, name: str) -> tuple[Any, str, Path | None]:
        """Who loads a task, what it is told, and the task's file."""
        # By its file: lm-eval takes any of several files with one name, and none that is broken.
        path = task_file(name, (*map(Path, self._folders),))
        if path is not None:
            return self._own, str(path), path
        if name in self._own.all_tasks and not self._strangers(self._own, name):
            return self._own, name, self._own.task_index[name].yaml_path
        path = task_file(name, (self._shipped,))
        if path is not None:
            return self._own, str(path), path
        everything = self._everything()
        if name not in everything.all_tasks:
            raise EvaluatorError([self._unknown(name, everything)])
        if unknown := self._strangers(everything, name):
            names = ", ".join(unknown[:MOST_MEMBERS])
            raise EvaluatorError(
                [f"name: expected a group of tasks that there are, got one with {names}"]
            )
        return everything, name, everything.task_index[name].yaml_path

    def _strangers(self, manager: Any, name: str) -> list[str]:
        return strangers(manager, name) if name in manager.all_groups else []

    def _unknown(self, name: str, everything: Any) -> str:
        names = dict.fromkeys([*self._own.all_tasks, *everything.all_tasks])
        close = get_close_matches(name, names, n=3, cutoff=0.7)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        if self._folders:
            where = f"in {', '.join(self._folders)} or of lm-eval"
        else:
            where = "of lm-eval (no include_path is set)"
        return f"name: expected a task {where}, got {name!r}{meant}"

    def _read(self, manager: Any, target: str, path: Path | None) -> Any:
        """Load what is named; relative data files count from its file, else from here."""
        own = [path.parent] if path is not None else []
        places = [*(own if target == str(path) else folders(manager, target)), Path.cwd()]
        missing: FileNotFoundError | None = None
        for place in places:
            try:
                with chdir(place):
                    return manager.load([target])
            except FileNotFoundError as error:
                missing = missing or error
            except Exception as error:
                raise EvaluatorError(
                    [f"{path or target}: cannot be loaded: {_reason(error)}"]
                ) from error
        raise EvaluatorError(
            [f"{path or target}: {_missing(missing or FileNotFoundError(target))}"]
        ) from missing


def _missing(error: FileNotFoundError) -> str:
    """What is not there: data, or a metric that the ``evaluate`` library fetches from the Hub."""
    metric = re.search(r"Module '([^']+)' doesn't exist", str(error))
    if metric is None:
        return f"data is missing: {class_and_last_line(error)}"
    return (
        f"its metric {metric[1]!r} is not on this machine; fetch it once where the Hub can be "
        f"reached (python -c \"import evaluate; evaluate.load('{metric[1]}')\"), or take a task "
        "without it"
    )


def _reason(error: Exception) -> str:
    """What a failure to load comes from, where lm-eval gives no more than the key it missed."""
    if isinstance(error, KeyError) and error.args == (None,):
        return "a metric in metric_list is not known to lm-eval and has no aggregation of its own"
    if isinstance(error, KeyError) and error.args:
        return (
            f"its data has no split or column {error.args[0]!r} (a file without a split's name is "
            "split 'train')"
        )
    if isinstance(error, StopIteration):
        return "its data holds no question"
    cause: BaseException = error
    while cause.__cause__ is not None and type(cause).__name__ == "DatasetGenerationError":
        cause = cause.__cause__
    return class_and_last_line(cause)
