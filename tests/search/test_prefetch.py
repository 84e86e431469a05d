"""Recipes are thought out ahead only where workers would wait for them."""

import time

import pytest

from search.engine.trials.prefetch import Prefetch


@pytest.mark.parametrize(
    ("thinking", "working", "workers", "expected"),
    [
        (0.02, 2.0, 64, 0),  # one per cent and less is not worth stale proposals
        (0.03, 2.0, 64, 16),
        (0.03, 2.0, 2, 1),
        (0.03, 2.0, 1, 0),  # one worker's search does not depend on timing
        (0.5, 600.0, 64, 0),
    ],
)
def test_ahead(
    monkeypatch: pytest.MonkeyPatch,
    thinking: float, working: float, workers: int, expected: int,
) -> None:  # fmt: skip
    ahead, clock = Prefetch(), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert ahead.wanted(workers) == 0
    for _ in range(5):
        with ahead.thinking():
            clock[0] += thinking
        ahead.note(working)
    ahead.note(float("nan"))
    assert ahead.wanted(workers) == expected
