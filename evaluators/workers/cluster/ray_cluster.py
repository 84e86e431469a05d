"""Ray as the pool needs it: nodes, actors, calls whose answers come back as values.

The only module that imports ray.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

# Ray prints what its processes say in the end, in colours and with all of their state, amid the
# output of the program; it stands in Ray's own logs. The setting is read when Ray is imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import (
    ActorUnschedulableError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evaluators.protocol import DETAIL, EvaluatorError
from evaluators.workers.cluster.cluster_access import asks_for_token, knock, no_token, reach
from evaluators.workers.cluster.node_census import NodeCensus
from evaluators.workers.cluster.ray_start import check_folder, patient, told
from evaluators.workers.cluster.shadowed_imports import HOME
from evaluators.workers.worker import THREADS, Worker
from spaces.text.error_text import last_line, plain, said

OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Ray's shared memory on this machine; recipes and scores are small, weights never travel."""

ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # at Ray's 15, evaluations starve on a busy machine
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a share of a GPU sees none
}
"""Settings of a local Ray; what the user has set already is left as it is."""

CLOSE_SECONDS = 15.0
"""Time for Ray to end in; it may wait for ever for a part of it that is gone."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine of the cluster, or what Ray takes for one.

    Attributes:
        id: Ray's.
        name: For people: host name and the beginning of the id.
        cpus: CPU cores in all.
        gpus: GPUs in all.
        memory: Bytes of main memory that Ray gives to workers.
        address: Host and port at which its part of Ray listens.
    """

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float
    address: tuple[str, int] = ("", 0)


class Trouble(Enum):
    """Why a call gave no value."""

    RAISED = "raised"  # the code raised something
    UNFIT = "unfit"  # the worker says that it can do no more work, such as without its GPU
    DIED = "died"  # the process died
    NODE = "node"  # the machine is gone
    MEMORY = "memory"  # Ray ended the process because the machine ran out of memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of a call: a value, or the trouble there was.

    Attributes:
        value: What the call returned.
        trouble: ``None`` if it returned.
        message: The last line of the error.
        detail: More of it.
    """

    value: Any = None
    trouble: Trouble | None = None
    message: str = ""
    detail: str = ""


Listener = Callable[[Answer], None]
"""Hears of an answer, in a thread of Ray's: it may only pass it on."""


class Cluster:
    """A Ray that was joined, or one that was started here and ends with this object.

    Args:
        address: Of a cluster, ``auto`` for the one of this machine; ``None`` starts one here.
        cores: Cores that a Ray started here pretends to have; ``None`` for those there are.
        runtime_env: Ray's runtime environment of the workers.

    Raises:
        EvaluatorError: If Ray cannot be started or joined.

    Attributes:
        elastic: Whether nodes may come and go: it was joined by its address.
    """

    def __init__(
        self,
        address: str | None,
        *,
        cores: int | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        self.elastic = address is not None
        self._owned = not ray.is_initialized()
        self._asked = False
        self._alone = self._owned and not self.elastic
        chosen = {*os.environ, *(runtime_env or {}).get("env_vars", {})}
        self._threads = self._alone and THREADS not in chosen
        if self._owned:
            _connect(address, cores, dict(runtime_env or {}))
        self._where = "of this machine" if address is None else f"at {address}"
        self._home = ray.get_runtime_context().get_node_id()
        self._census = NodeCensus(ray.nodes)
        self._worker = ray.remote(Worker)
        self._caller = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_call)

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive, as far as Ray has noticed.

        Raises:
            EvaluatorError: If Ray does not answer any more, or is gone from this machine.
        """
        try:
            alive = tuple(_node(info) for info in self._census.latest() if info["Alive"])
        except TimeoutError:
            text = (
                f"ray: the Ray {self._where} gives no answer any more: its head (gcs_server) ended"
            )
            raise EvaluatorError([text]) from None
        if all(node.id != self._home for node in alive):
            raise EvaluatorError(
                [
                    f"ray: the Ray {self._where} is gone from this machine: its raylet ended or "
                    "was killed, such as for want of memory"
                ]
            )
        return alive

    def reaches(self, node: Node) -> bool:
        """Whether a node's Ray can be connected to; takes 3 seconds if it cannot."""
        try:
            reach(*node.address)
        except OSError:
            return False
        return True

    def start(self, node: Node, *, cpus: float, gpus: float, there: Listener) -> Any:
        """A handle of a new worker on a node; it comes to life when the node has room for it.

        Args:
            node: Where it is to be.
            cpus: Its CPU cores. In a Ray of our own nobody else takes any, and the pool counts
                them: Ray, which frees those of a dead worker late at times, is not asked for them.
            gpus: Its GPUs.
            there: Hears when its process is there, before it is set up.
        """
        worker = self._worker.options(
            num_cpus=0 if self._alone else cpus,
            num_gpus=gpus,
            max_restarts=0,  # a new one is started by the pool, which knows what it was at
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(
            str(Path.cwd()),
            move=self._alone,
            threads=max(1, int(cpus)) if self._threads else None,  # of cores that Ray knows of
        )
        _listen(worker.__ray_ready__.remote(), there)
        return worker

    def call(self, worker: Any, method: str, argument: Any, listener: Listener) -> None:
        """Call a method of a worker; returns at once."""
        _listen(getattr(worker, method).remote(argument), listener)

    def run_on(self, node: Node, function: Callable[[], Any], listener: Listener) -> None:
        """Call a function on a node, in a process that ends with it; returns at once."""
        task = self._caller.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        )
        _listen(task.remote(function, str(Path.cwd())), listener)

    def kill(self, worker: Any) -> None:
        """End a worker; one that is gone already is fine."""
        try:
            ray.kill(worker, no_restart=True)
        except (RayError, ValueError) as error:  # already gone, or Ray itself is
            _log.debug("a worker was gone before it was ended: %s", error)

    def ask_for(self, needs: Sequence[Mapping[str, float]]) -> None:
        """Tell the cluster's autoscaler, if it has one, what should fit; nothing takes it back."""
        if not self.elastic or not (needs or self._asked):
            return
        self._asked = bool(needs)
        try:
            request_resources(bundles=[dict(need) for need in needs])
        except (RayError, RuntimeError, OSError) as error:
            _log.warning("the autoscaler could not be asked for nodes: %s", last_line(error))

    def close(self) -> None:
        """Leave the cluster, ending it if it was started here."""
        self._census.close()
        end = Thread(target=self._leave, name="ray-end", daemon=True)
        end.start()
        end.join(CLOSE_SECONDS)

    def _leave(self) -> None:
        self.ask_for(())
        if self._owned:
            ray.shutdown()


@told()
def _connect(address: str | None, cores: int | None, runtime_env: dict[str, Any]) -> None:
    if address is None:
        check_folder()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime_env:
        options["runtime_env"] = runtime_env
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = address
        knock(address)
    try:
        with _own_folder(runtime_env):
            patient(partial(ray.init, **options))
    except (RayError, OSError, ConnectionError, RuntimeError, ValueError, TypeError) as error:
        where = "start on this machine" if address is None else f"join the cluster at {address}"
        why = no_token() if asks_for_token(error) else last_line(error)
        raise EvaluatorError([f"ray: cannot {where}: {why}"]) from error


@contextmanager
def _own_folder(runtime_env: Mapping[str, Any]) -> Iterator[None]:
    """Be where this program lies: workers look into the driver's folder before all libraries.

    A file of the user's would be imported there in place of a library that has its name. Workers
    look into the folder of work last instead. Not where Ray is to copy files, by paths from here.
    """
    with nullcontext() if {"working_dir", "py_modules"} & runtime_env.keys() else chdir(HOME):
        yield


def _call(function: Callable[[], Any], folder: str) -> Any:
    sys.path.append(folder)
    return function()


def _node(info: Mapping[str, Any]) -> Node:
    resources, name = info["Resources"], info["NodeManagerHostname"] or info["NodeManagerAddress"]
    return Node(
        id=info["NodeID"],
        name=f"{name} ({info['NodeID'][:8]})",
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory=resources.get("memory", 0.0),
        address=(info["NodeManagerAddress"], info["NodeManagerPort"]),
    )


def _listen(reference: Any, listener: Listener) -> None:
    reference.future().add_done_callback(partial(_pass_on, listener))


def _pass_on(listener: Listener, done: Future[Any]) -> None:
    error = done.exception()
    if error is None:
        listener(Answer(value=done.result()))
        return
    detail = plain(said(error), DETAIL)
    listener(Answer(trouble=_trouble(error), message=last_line(error), detail=detail))


def _trouble(error: BaseException) -> Trouble:
    if isinstance(error, EvaluatorError):  # it is a RayTaskError as well
        return Trouble.UNFIT
    if isinstance(error, RayTaskError) or not isinstance(error, RayError):
        return Trouble.RAISED
    words = said(error)
    if isinstance(error, OutOfMemoryError) or "running low on memory" in words:
        return Trouble.MEMORY
    # An actor that ran on a node that was lost says so in words only.
    lost = isinstance(error, ActorUnschedulableError | TaskUnschedulableError)
    if lost or "its node has died" in words or "node is dead" in words:
        return Trouble.NODE
    return Trouble.DIED
