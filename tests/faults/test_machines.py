"""The page's commands and the pods of the manifests, run on machines of a network.

Each machine has its own address, host name, home and folder of Ray; the files lie under the same
paths on all. The commands are read from the files that are shown to users.
"""

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from runs.activity.worker_register import attended
from runs.records.record import Split, State
from runs.storage.store import Store
from tests.conftest import missing
from tests.faults.machines import PATIENCE, Machines, absent, refused
from tests.faults.test_driver_kills import say
from tests.test_docs_commands import ROOT, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = ROOT / "examples" / "cluster"
PAGE = blocks(ROOT / "docs" / "cluster.md")
(TOKEN,), SETTINGS, (HEAD, OTHER, SEARCH) = PAGE[:3]

EVALUATOR = """
import socket, time
from pathlib import Path
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec

class Slow(SyntheticEvaluator):
    def evaluate(self, candidate):
        here, host = Path(__file__).parent, socket.gethostname()
        with open(here / f"begun-{host}", "a") as file:
            print(candidate.id, time.time(), file=file)
        others = [here / f"begun-{one}" for one in (here / "together").read_text().split()]
        while (here / f"stuck-{host}").exists() or not all(one.exists() for one in others):
            time.sleep(0.1)
        time.sleep(0.3)
        return super().evaluate(candidate)

def make(spec):
    return Slow(SyntheticSpec(parents=("math", "code"), tasks=(("one", 1.0),), questions=100))
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Machines, and a folder that they all see.

    Attributes:
        machines: The machines.
        folder: With a config and all that it names.
        settings: Lines that come before each command.
    """

    machines: Machines
    folder: Path
    settings: str = ""

    def ours(self, text: str) -> str:
        """A line of a page or file, with our folder and our first machine."""
        for place in ("/shared/", "/runs/"):
            text = text.replace(place, f"{self.folder}/")
        return text.replace("FIRST_MACHINE", "first")

    def start(self, name: str, command: str) -> subprocess.Popen[bytes]:
        """Start a command on a machine; what it says goes to ``log-NAME``."""
        script, log = f"{self.settings}\n{command}", self.folder / f"log-{name}"
        return self.machines.start(name, script, cwd=self.folder, log=log)

    def run(self, name: str, command: str, *, code: int = 0) -> str:
        """Run a command on a machine to its end, which has to have that exit code."""
        got, said = self.machines.run(name, f"{self.settings}\n{command}", cwd=self.folder)
        assert got == code, said
        return said

    def configure(self, **workers: object) -> None:
        """Change the config's workers."""
        path = self.folder / "search.yaml"
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**config, "workers": workers}))

    def gather(self, *names: str) -> None:
        """Have nobody answer before all of these began: workers take their time to come up."""
        for path in self.folder.glob("begun-*"):
            path.unlink()
        (self.folder / "together").write_text(" ".join(names))

    def begun(self, name: str) -> list[tuple[int, float]]:
        """Which candidates a machine began with, and when."""
        path = self.folder / f"begun-{name}"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


Make = Callable[..., Site]


@contextmanager
def sites(family: dict[str, Path], folders: pytest.TempPathFactory) -> Iterator[Make]:
    """What makes machines of such names; they end behind it."""
    if lacks := absent():
        missing(lacks)
    if why := refused():
        pytest.skip(f"no network namespaces here: {why}")
    opened = list[Machines]()

    def make(*names: str) -> Site:
        folder = folders.mktemp("place")
        (folder / "slow.py").write_text(EVALUATOR)
        config = {
            "base": str(family["base"]),
            "models": {name: str(family[name]) for name in ("math", "code")},
            "evaluator": "./slow.py:make",
            "tasks": ["one"],
            "held_out": 0.3,
            "space": {"methods": ["linear"]},
            "search": {"trials": 12, "sampler": "random", "seed": 1, "validate": 1},
            "workers": {"count": len(names)},
        }
        (folder / "search.yaml").write_text(yaml.safe_dump(config))
        opened.append(Machines(folders.mktemp("machines"), names))
        made = Site(machines=opened[-1], folder=folder)
        made.gather(*(name for name in names if name != "head"))
        return made

    try:
        yield make
    finally:
        for one in opened:
            one.close()


@pytest.fixture
def site(tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    with sites(tiny_family, tmp_path_factory) as make:
        yield make


def in_time(command: str) -> str:
    """The same, again and again: Ray gives itself 30 s to start in, which a busy machine lacks.

    What a start that came to nothing left on the machine is ended before.
    """
    rest = 'ip netns pids "$(hostname)" | grep -vx $$ | xargs -r kill -9 || true'
    return f"until {command}; do {rest}; done"


@pytest.fixture(scope="module")
def cluster(
    tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A cluster of three, started as the page says."""
    with sites(tiny_family, tmp_path_factory) as make:
        made = make("first", "second", "third")
        made.run("first", made.ours(TOKEN))
        made = replace(made, settings="\n".join(map(made.ours, SETTINGS)))
        for name, command in [("first", HEAD), ("second", OTHER), ("third", OTHER)]:
            made.run(name, in_time(made.ours(command)))
        yield made


def whole(study: Path) -> dict[str, int]:
    """How many candidates each machine's workers answered; every recipe has to have its score."""
    store, found = Store.open(str(study)), dict[str, int]()
    try:
        states = [one.evaluations[Split.SEARCH].state for one in store.records()]
        for worker in attended(store):
            name = worker.node.split()[0]
            found[name] = found.get(name, 0) + worker.candidates
    finally:
        store.close()
    assert states == [State.COMPLETE] * 12
    return found


def test_a_search_on_all_machines_of_the_page(cluster: Site) -> None:
    cluster.run("second", SEARCH)
    answered = whole(cluster.folder / "search" / "study.db")
    assert set(answered) == {"first", "second", "third"}
    assert all(answered.values()), answered


def test_the_head_looks_as_often_as_the_page_says(cluster: Site) -> None:
    """Ray notices a lost machine after some 20 s so, and after more than 60 s of its own."""
    said = cluster.run(
        "first",
        "for p in $(ip netns pids first); do "
        "grep -q gcs_server /proc/$p/comm && tr '\\0' '\\n' < /proc/$p/environ; done; true",
    )
    (line,) = (line for line in SETTINGS if "health_check" in line)
    assert set(line.split()[1:]) <= set(said.splitlines())


def test_a_machine_without_the_token_is_told(cluster: Site) -> None:
    stranger = replace(cluster, settings="")
    said = stranger.run("second", f"{SEARCH} --out stranger", code=2)
    # Ray's own lines begin with a bracket, steps before the first candidate with the time
    ours = [line for line in said.splitlines() if not re.match(r"\[|\d\d:\d\d:\d\d ", line)]
    assert ours == [
        "search: error: ray: cannot join the cluster at auto: expected the cluster's token, got "
        "none; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE here as on its machines, "
        "where FILE holds the token of its head"
    ]


@pytest.mark.parametrize(("name", "timeout"), [("second", 1800), ("third", 12)])
def test_a_machine_is_cut_off(
    cluster: Site, name: str, timeout: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it was at is tried elsewhere, whether its time is over before Ray notices or not."""
    cluster.gather("first", name)
    (cluster.folder / f"stuck-{name}").touch()
    cluster.configure(count=3, timeout=timeout)
    driver = cluster.start("first", f"{SEARCH} --out without-{name}")
    end = time.monotonic() + PATIENCE
    while not cluster.begun(name):
        assert driver.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    cluster.machines.cut(name)
    cut = time.time()
    log = cluster.folder / "log-first"
    assert driver.wait(PATIENCE) == 0, log.read_text()
    whole(cluster.folder / f"without-{name}" / "study.db")
    lost = {candidate for candidate, _ in cluster.begun(name)}
    others = [
        one for other in {"first", "second", "third"} - {name} for one in cluster.begun(other)
    ]
    again = (
        max(min(t for one, t in others if one == lost_one and t > cut) for lost_one in lost) - cut
    )
    assert f"node {name} (" in log.read_text()
    say(capsys, f"tried elsewhere {again:.1f} s after the cut")


def pod(cluster: dict[str, Any], group: dict[str, Any], **flags: str) -> tuple[str, str]:
    """A pod's environment and its command as KubeRay makes them, for a machine with one core.

    A container that ends is started again.
    """
    (container,) = group["template"]["spec"]["containers"]
    chosen = {one["name"]: one["value"] for one in container["env"]}
    if cluster["authOptions"]["mode"] == "token":
        chosen |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5ec2e7" * 8}
    gpus = container["resources"]["limits"].get("nvidia.com/gpu", "0")
    flags |= {"num-cpus": "1", "num-gpus": gpus, "memory": str(2**30)} | group["rayStartParams"]
    words = [f"--{k}" if value == "true" else f"--{k}={value}" for k, value in flags.items()]
    exports = [f"export {key}={shlex.quote(value)}" for key, value in chosen.items()]
    return "\n".join(exports), in_time(" ".join(["ray start --block", *words]))


def head_of(cluster: dict[str, Any], site: Site) -> Site:
    """The site as its head's pod sees it, which is started."""
    settings, command = pod(cluster, cluster["headGroupSpec"], head="true")
    head = replace(site, settings=settings)
    head.start("head", command)
    head.run("head", "until ray status --address=head:6379; do sleep 1; done")
    return head


def join(cluster: dict[str, Any], site: Site) -> None:
    """Start the pods of two workers."""
    (group,) = cluster["workerGroupSpecs"]
    settings, command = pod(cluster, group, address="head:6379")
    for name in ("worker1", "worker2"):
        replace(site, settings=settings).start(name, command)


def test_the_job_for_kubernetes(site: Make) -> None:
    manifest = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    cluster = manifest["spec"]["rayClusterSpec"]
    head = head_of(cluster, site("head", "worker1", "worker2"))
    head.configure(count=2)
    join(cluster, head)
    head.run("head", head.ours(manifest["spec"]["entrypoint"]))
    answered = whole(head.folder / "night" / "study.db")
    assert set(answered) == {"worker1", "worker2"}
    assert all(answered.values()), answered


def test_the_cluster_for_kubernetes(site: Make) -> None:
    """There is no worker before the search asks for them; then they come."""
    cluster = yaml.safe_load((EXAMPLES / "raycluster.yaml").read_text())["spec"]
    head = head_of(cluster, site("head", "worker1", "worker2"))
    head.configure(count=2, gpus=1)
    (command,) = (line for block in PAGE for line in block if "--out /runs/night" in line)
    driver = head.start("head", head.ours(command.partition(" -- ")[2]))
    while "'GPU': 1.0" not in head.run("head", "ray status --address=head:6379"):
        assert driver.poll() is None, (head.folder / "log-head").read_text()
    join(cluster, head)
    assert driver.wait(PATIENCE) == 0, (head.folder / "log-head").read_text()
    answered = whole(head.folder / "night" / "study.db")
    assert set(answered) == {"worker1", "worker2"}
    assert all(answered.values()), answered


SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do
  [[ $1 != --nodelist=* ]] || node=${{1#*=}}
  shift
done
until {on} "$node" unshare --pid --fork --kill-child --mount-proc "$@"; do :; done
"""
"""A step of a job: what it started ends with it. A start that took too long is tried again."""


def test_the_script_for_slurm(site: Make) -> None:
    """SLURM's own commands are stand-ins, all else is as written."""
    made = site("first", "second")
    tools = made.folder / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text("#!/usr/bin/env bash\nprintf 'first\\nsecond\\n'")
    (tools / "srun").write_text(SRUN.format(on=made.machines.on))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (made.folder / "environment" / "bin").mkdir(parents=True)
    (made.folder / "environment" / "bin" / "activate").touch()  # ours is active
    job = replace(
        made,
        settings=f"export PATH='{tools}':$PATH MERGE_SEARCH_ENV=environment SLURM_CPUS_PER_TASK=1 "
        f"SLURM_JOB_NODELIST='first,second' MERGE_SEARCH_WAIT={PATIENCE:g}",
    )
    job.run("first", f"bash '{EXAMPLES / 'slurm.sbatch'}' search.yaml night")
    answered = whole(made.folder / "night" / "study.db")
    assert set(answered) == {"first", "second"}
    assert all(answered.values()), answered
