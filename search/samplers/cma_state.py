"""The state that Optuna's CMA-ES keeps in a study: a pickle, looked at before Optuna loads it.

A pickle can name any function for its reader to call. This one needs the optimizer's class and what
numpy makes arrays with; one that names anything else was not written by Optuna.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from optuna.trial import FrozenTrial

from search.inputs.input_error import InputError

PREFIX = "cma"
"""What the keys of its values begin with; a long one is cut into ``KEY:0``, ``KEY:1``, ..."""

_KNOWN = {
    ("cmaes._cma", "CMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (module, name)
        for module in ("numpy._core.multiarray", "numpy.core.multiarray")
        for name in ("_reconstruct", "scalar")
    ),
}


def check_state(trials: Iterable[FrozenTrial], *, name: str) -> None:
    """Make sure that nothing but CMA-ES comes out of what a study keeps of it.

    Args:
        trials: Those of the study, before this driver adds any.
        name: The study's, for messages.

    Raises:
        InputError: If a state is damaged, or names something else.
    """
    for trial in trials:
        for text in _states(trial):
            try:
                _Reader(io.BytesIO(bytes.fromhex(text))).load()
            except Exception as error:  # damage raises whatever the bytes lead to
                raise InputError(
                    f"{name}: expected the sampler's state as Optuna keeps it (trial "
                    f"{trial.number}), got {error}; start a new run with this study among its seeds"
                ) from error


class _Reader(pickle.Unpickler):
    """Makes nothing but what is known."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"a pickle that names {module}.{name}")
        return super().find_class(module, name)


def _states(trial: FrozenTrial) -> Iterator[str]:
    """Every state of a trial in one piece."""
    pieces: dict[str, dict[int, str]] = {}
    for key, value in trial.system_attrs.items():
        if key.startswith(PREFIX) and isinstance(value, str):
            whole, _, at = key.rpartition(":")
            cut = at.isdecimal()
            pieces.setdefault(whole if cut else key, {})[int(at) if cut else 0] = value
    for found in pieces.values():
        yield "".join(found[at] for at in sorted(found))
