"""Joining a cluster: who is there, and what is missing where it does not let us in."""

from __future__ import annotations

import os
import socket

from evaluators.protocol import EvaluatorError

REACH_SECONDS = 3.0
"""Time for a connection to a machine that is there."""


def reach(host: str, port: int) -> None:
    """Connect to a machine, and leave at once.

    Raises:
        OSError: If it cannot be reached.
    """
    socket.create_connection((host, port), timeout=REACH_SECONDS).close()


def knock(address: str) -> None:
    """Refuse an address where nobody is: Ray tries for two minutes, then ends the process.

    Raises:
        EvaluatorError: If nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:  # ``auto``, or a kind of address that Ray knows
        return
    try:
        reach(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        text = (
            f"ray: cannot join the cluster at {address}: {why}; expected a head that was started "
            "there (ray start --head) and can be reached from this machine"
        )
        raise EvaluatorError([text]) from error


def asks_for_token(error: BaseException | None) -> bool:
    """Whether a connection failed for want of the right token; Ray says it in a cause."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__} {error}":
            return True
        error = error.__cause__ or error.__context__
    return False


def no_token() -> str:
    """What is missing then."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    here = "a wrong or no token" if mode == "token" else f"RAY_AUTH_MODE={mode}" if mode else "none"
    return (
        f"expected the cluster's token, got {here}; set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN_PATH=FILE here as on its machines, where FILE holds the token of its head"
    )
