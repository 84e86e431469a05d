"""Finding an lm-eval task by its name, and saying what is wrong when there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import chdir
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from evaluators.base import MESSAGE, EvaluatorError
from evaluators.task_files import task_file
from spaces.texts import plain_line, said

MOST_MEMBERS = 20
"""Most members of a group that are listed in a message."""


class TaskFinder:
    """Looks in the user's folders first, then among lm-eval's own tasks.

    Args:
        own: lm-eval's task manager for the user's folders alone.
        everything: Makes the manager of all that lm-eval ships; takes 10 to 20 s, so it is called
            only where a name needs explaining.
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

    def load(self, name: str) -> Any:
        """lm-eval's task of that name.

        Raises:
            EvaluatorError: If there is none, it is a group, or its data cannot be loaded.
        """
        return self._read(*self._find(name))

    def check(self, name: str) -> None:
        """Look for a task without loading its data.

        Raises:
            EvaluatorError: If there is none, or it is a group.
        """
        self._find(name)

    def _find(self, name: str) -> tuple[Any, str, Path | None]:
        """Who loads a task, what it is told, and the task's file."""
        # By its file: lm-eval takes any of several files with one name, and none that is broken.
        path = task_file(name, (*map(Path, self._folders),))
        if path is not None:
            return self._own, str(path), path
        if name in self._own.all_tasks:
            return self._known(self._own, name)
        path = task_file(name, (self._shipped,))
        if path is not None:
            return self._own, str(path), path
        everything = self._everything()
        if name in everything.all_tasks:
            return self._known(everything, name)
        raise EvaluatorError([self._unknown(name, everything)])

    def _known(self, manager: Any, name: str) -> tuple[Any, str, Path | None]:
        entry = manager.task_index[name]
        if name in manager.all_subtasks:
            return manager, name, entry.yaml_path
        if name in manager.all_groups:
            listed = (entry.cfg or {}).get("task") or []
            listed = [listed] if isinstance(listed, str) else listed
            names = [str(item.get("task") if isinstance(item, dict) else item) for item in listed]
        else:
            names = sorted(entry.tags)
        more = len(names) - MOST_MEMBERS
        members = ", ".join(names[:MOST_MEMBERS]) + (f" and {more} more" if more > 0 else "")
        raise EvaluatorError(
            [f"name: expected a single task, got a group; name its members instead: {members}"]
        )

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
        """Load a task; relative data files count from its file, else from here, as in lm-eval."""
        places = [*([path.parent] if path is not None else []), Path.cwd()]
        missing: FileNotFoundError | None = None
        for place in places:
            try:
                with chdir(place):
                    return next(iter(manager.load([target])["tasks"].values()))
            except FileNotFoundError as error:
                missing = missing or error
            except Exception as error:
                raise EvaluatorError([f"{path}: cannot be loaded: {_reason(error)}"]) from error
        raise EvaluatorError([f"{path}: data is missing: {last_line(missing)}"]) from missing


def _reason(error: Exception) -> str:
    """What a failure to load comes from, where lm-eval gives no more than the key it missed."""
    if isinstance(error, KeyError) and error.args == (None,):
        return "a metric in metric_list is not known to lm-eval and has no aggregation of its own"
    if isinstance(error, KeyError) and error.args:
        return f"its data has no split or column {error.args[0]!r}"
    if isinstance(error, StopIteration):
        return "its data holds no question"
    cause: BaseException = error
    while cause.__cause__ is not None and type(cause).__name__ == "DatasetGenerationError":
        cause = cause.__cause__
    return last_line(cause)


def last_line(error: BaseException | None) -> str:
    """Class and last line of an error, which is where libraries put what matters."""
    text = "" if error is None else said(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    name = type(error).__name__
    return f"{name}: {plain_line(lines[-1], MESSAGE)}" if lines else name
