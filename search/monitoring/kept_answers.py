"""Which answers of a study may be read, and when."""

from __future__ import annotations

from runs.records.record import Split
from runs.storage.store import Store
from search.engine.trials.held_out_looks import is_judged


def open_splits(store: Store) -> tuple[Split, ...]:
    """The splits whose answers may be read.

    Held-out ones are read only after the final check: who reads them before would be led by them
    in what is searched next.
    """
    over = is_judged(store) and not store.under_way()
    return (Split.SEARCH, *([Split.HELD_OUT] if over else []))
