"""Signals: the first asks to stop, the second stops."""

import os
import signal

import pytest

from search.engine.processes.stop_signals import on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), on_signals(said.append) as stop:  # noqa: PT012
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert said == [
            f"{number.name}: finishing the candidates under way; a second one stops at once"
        ]
        os.kill(os.getpid(), number)


def test_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_signals(lambda text: None):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
