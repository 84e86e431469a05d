"""How many workers fit on the nodes of a cluster, and how many GPUs each of them gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from evaluators.protocol import EvaluatorError


class Machine(Protocol):
    """What is needed to know of a node."""

    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def memory(self) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a worker takes.

    Attributes:
        cpus: CPU cores, above 0.
        gpus: GPUs: 0, a share below 1 or a whole number.
        memory: Bytes of main memory of a worker without GPUs; 0 leaves memory out of account.
    """

    cpus: float
    gpus: float
    memory: int = 0

    def bundle(self) -> dict[str, float]:
        """The same as Ray's autoscaler wants it."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def rooms(node: Machine, need: Need, *, filled: bool = True) -> list[float]:
    """The GPUs of every worker that a node has room for.

    Several GPUs for each worker may leave a rest: it becomes a worker with fewer, which is tried.

    Args:
        node: What it has.
        need: What a worker takes.
        filled: Whether memory decides too, as it does where nobody said how many workers to have.
    """
    cores = int(node.cpus / need.cpus + 1e-9)
    if need.gpus > 0:
        return _shares(node, need.gpus)[:cores]
    # Every core could take a worker, but not every machine as many models as it has cores. One
    # worker is always tried: what Ray counts as free is a guess.
    loads = max(1, int(node.memory / need.memory)) if filled and need.memory else cores
    return [0.0] * min(cores, loads)


def _shares(node: Machine, gpus: float) -> list[float]:
    if gpus < 1:
        # A share of 0.3 fits three times into each GPU, not three and a third times into the sum.
        return [gpus] * (int(node.gpus) * int(1.0 / gpus + 1e-9))
    whole, rest = divmod(int(node.gpus), int(gpus))
    return [gpus] * whole + ([float(rest)] if rest else [])


def short(nodes: Iterable[Machine], need: Need, workers: int) -> list[str]:
    """What nodes lack for so many workers, one line per kind of resource."""
    there = list(nodes)
    kinds = [("CPU", need.cpus, sum(n.cpus for n in there))]
    fit = {"CPU": sum(int(node.cpus / need.cpus + 1e-9) for node in there)}
    if need.gpus > 0:
        kinds.append(("GPU", need.gpus, sum(n.gpus for n in there)))
        fit["GPU"] = sum(_shares(node, need.gpus).count(need.gpus) for node in there)
    found = [
        f"workers: expected {each:g} {kind} for each of {workers}, got a machine or cluster with "
        f"{has:g} in all"
        for kind, each, has in kinds
        if fit[kind] < workers
    ]
    both = sum(len(rooms(node, need, filled=False)) for node in there)
    if not found and both < workers:
        found.append(
            f"workers: expected {need.cpus:g} CPU and {need.gpus:g} GPU on one machine for each "
            f"of {workers}, got room for {both}"
        )
    return found


def check_options(
    *, workers: int | None, gpus: float | None, cpus: float, timeout: float | None, retries: int
) -> None:
    """Refuse what no pool can be made of.

    Raises:
        EvaluatorError: With everything that is wrong.
    """
    problems = []
    if workers is not None and workers < 1:
        problems.append(f"workers: expected at least 1, got {workers}")
    if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
        problems.append(f"gpus: expected 0, a share below 1 or a whole number, got {gpus}")
    if cpus <= 0:
        problems.append(f"cpus: expected a number above 0, got {cpus}")
    if timeout is not None and timeout <= 0:
        problems.append(f"timeout: expected seconds above 0, got {timeout}")
    if retries < 0:
        problems.append(f"retries: expected at least 0, got {retries}")
    if problems:
        raise EvaluatorError(problems)
