"""How often a run's held-out answers have been judged: each look is another chance of luck."""

from __future__ import annotations

import json

from runs.ranking.leaderboard import best
from runs.records.record import Split, State
from runs.storage.store import Store
from search.samplers.estimation.posterior import judged

_LOOKS = "looks"


def note_look(store: Store) -> None:
    """Write down that there is a verdict now, unless it is the one that was judged last."""
    records = judged(store)
    winner = best(records)
    asked = [
        record.id
        for record in records
        if (done := record.evaluations.get(Split.HELD_OUT)) and done.state is State.COMPLETE
    ]
    if winner is None or winner.id not in asked:
        return
    known, this = _looks(store), [winner.id, len(asked)]
    if not known or known[-1] != this:
        store.set_fact(_LOOKS, json.dumps({"verdicts": [*known, this]}))


def looks(store: Store) -> int:
    """How many verdicts the held-out answers have given, at least 1."""
    return max(1, len(_looks(store)))


def is_judged(store: Store) -> bool:
    """Whether the held-out answers have given a verdict."""
    return bool(_looks(store))


def _looks(store: Store) -> list[list[int]]:
    """Winner and number of candidates that were asked, by verdict."""
    found: list[list[int]] = store.mapping(_LOOKS, verdicts=list).get("verdicts", [])
    return found
