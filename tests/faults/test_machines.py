"""Clusters as the documentation and the examples start them, on two machines of namespaces."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runs.store import Store
from runs.utilisation import attended
from tests.faults.machines import Machine, connect, permitted
from tests.faults.test_driver_kills import say
from tests.faults.test_ray_kills import EVALUATOR, scored, wait_for

ROOT = Path(__file__).parents[2]
TRIALS = 30
REASON = permitted()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=f"no network namespaces here: {REASON}"),
]

Pair = tuple[Machine, Machine]


@pytest.fixture
def machines() -> Iterator[Pair]:
    first, second = Machine(1), Machine(2)
    connect(first, second)
    yield first, second
    first.off()
    second.off()


@pytest.fixture
def project(tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    """A folder that all machines see, with a search of an evaluator of its own."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "slow.py").write_text(EVALUATOR)
    config = {
        "base": str(tiny_family["base"]),
        "models": {name: str(tiny_family[name]) for name in ("math", "code")},
        "evaluator": "./slow.py:make",
        "tasks": ["one"],
        "held_out": 0.3,
        "space": {"methods": ["linear"]},
        "search": {"trials": TRIALS, "sampler": "random", "seed": 1, "validate": 0},
        "workers": {"count": 2, "cpus": 2},  # one on each machine
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(config))
    return folder


def documented(project: Path) -> tuple[str, str, list[str]]:
    """The page's commands: the token, the settings, and the three that start a search."""
    page = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    text = page[page.index("## A cluster") : page.index("## Nodes that come and go")]
    token, settings, rest = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    place = str(project)
    lines = [line for line in rest.replace("FIRST_MACHINE", "10.77.0.1").splitlines() if line]
    return token.replace("/shared", place), settings.replace("/shared", place), lines


def on(settings: str, command: str) -> str:
    return f"{settings}\n{command}"


def nodes_of(study: Path) -> set[str]:
    store = Store.open(str(study))
    try:
        return {one.node for one in attended(store)}
    finally:
        store.close()


def test_the_page(machines: Pair, project: Path) -> None:
    first, second = machines
    token, settings, (head, other, search) = documented(project)
    first.run(token, project)
    assert (project / "ray-token").stat().st_mode & 0o077 == 0
    first.run(on(settings, head), project)
    first.run(on(settings, "until ray status; do sleep 0.5; done"), project)
    second.run(on(settings, other), project)
    out = second.run(on(settings, search), project)
    assert "state-dump" not in out
    study = project / "search" / "study.db"
    assert scored(study) >= TRIALS
    assert len(nodes_of(study)) == 2

    # without the token, with another, and where nobody is
    (project / "other").write_text("f" * 64)
    address = f"{first.address}:6379"
    for given, words in (
        ("unset RAY_AUTH_MODE", "expected the cluster's token, got none"),
        (f"RAY_AUTH_TOKEN_PATH={project}/other", "expected the cluster's token, got a wrong or no"),
        ("rm -f x; address=10.77.0.1:1", "cannot join the cluster at 10.77.0.1:1: "),
    ):
        run = f"{settings}\naddress={address}; {given}\nsearch run search.yaml --out more"
        refused = second.start(f"{run} --ray-address $address", project)
        _, err = refused.communicate(timeout=120)
        assert refused.returncode == 2, err
        (line,) = [one for one in err.splitlines() if one.startswith("search: error: ")]
        assert words in line


@pytest.mark.parametrize("limit", [None, 6.0])
def test_the_wire_is_cut(
    machines: Pair, project: Path, limit: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was under way there is done elsewhere, even where its time is over before that."""
    first, second = machines
    token, settings, (head, other, _) = documented(project)
    config = yaml.safe_load((project / "search.yaml").read_text())
    config["search"]["trials"] = 400
    config["workers"] = {"cpus": 2, "timeout": limit}
    (project / "search.yaml").write_text(yaml.safe_dump(config))
    first.run(token, project)
    first.run(on(settings, head), project)
    second.run(on(settings, other), project)
    study = project / "search" / "study.db"
    driver = first.start(on(settings, "search run search.yaml --ray-address auto"), project)
    wait_for(lambda: study.exists() and len(nodes_of(study)) == 2 and scored(study) >= 5, driver)
    second.call("ip", "link", "set", "wire", "down")
    cut = time.monotonic()
    lines = []
    assert driver.stdout is not None
    for line in driver.stdout:
        lines.append(line)
        if "is gone, with" in line:
            break
    noticed = time.monotonic() - cut
    say(capsys, f"a node that was cut off is noticed after {noticed:.1f} s")
    assert noticed < 45, lines
    first.stop(driver)
    out, err = driver.communicate(timeout=120)
    text = "".join(lines) + out + err
    assert driver.returncode == 0, text
    assert "timeout" not in text
    assert "\x1b[" not in text
    assert "(raylet)" not in text


STUBS = {
    "scontrol": "printf 'machine1\\nmachine2\\n'",
    "srun": """
node=machine1
while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done
[[ $1 == hostname ]] && { echo 10.77.0.1; exit; }
exec "$STUBS/on-$node" "$@"
""",
}


def test_the_script_for_slurm(machines: Pair, project: Path, tmp_path: Path) -> None:
    """As it stands, but for SLURM's own commands: the first machine is where the job runs."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for machine in machines:
        own = f"HOME={machine.home} TMPDIR={machine.home} RAY_TMPDIR={machine.home}"
        words = " ".join(machine.command("env", own, '"$@"'))
        STUBS[f"on-{machine.name}"] = f"cd {project}; exec {words}"
    for name, body in STUBS.items():
        (stubs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (stubs / name).chmod(0o755)
    # The script runs outside, with a search that is sent to the first machine as srun is.
    (stubs / "search").write_text('#!/usr/bin/env bash\nexec "$STUBS/on-machine1" SEARCH "$@"\n')
    (stubs / "search").chmod(0o755)
    real = machines[0].environment({})["PATH"].split(":")[0]
    text = (stubs / "search").read_text().replace("SEARCH", f"{real}/search")
    (stubs / "search").write_text(text)
    (stubs / "ray").write_text(f'#!/usr/bin/env bash\nexec "$STUBS/on-machine1" {real}/ray "$@"\n')
    (stubs / "ray").chmod(0o755)
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "activate").touch()
    (stubs / "srun").write_text((stubs / "srun").read_text().replace('"$@"', f'"{real}/$@"'))
    job = {
        **machines[0].environment({}),
        "STUBS": str(stubs),
        "MERGE_SEARCH_ENV": str(tmp_path / "env"),
        "SLURM_JOB_NODELIST": "machine[1-2]",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_GPUS_ON_NODE": "0",
    }
    job["PATH"] = f"{stubs}:{job['PATH']}"
    script = ROOT / "examples" / "cluster" / "slurm.sbatch"
    done = subprocess.run(
        ["bash", script, project / "search.yaml", project / "night"],
        env=job, cwd=project, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    study = project / "night" / "study.db"
    assert scored(study) >= TRIALS
    assert len(nodes_of(study)) == 2


def test_the_manifest(machines: Pair, project: Path) -> None:
    """Its environment, Ray's parameters and the entry point, with what KubeRay adds to them."""
    manifest = yaml.safe_load((ROOT / "examples" / "cluster" / "rayjob.yaml").read_text("utf-8"))
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    added = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
    first, second = machines

    def settings(group: dict[str, Any]) -> dict[str, str]:
        (container,) = group["template"]["spec"]["containers"]
        return {one["name"]: one["value"] for one in container["env"]} | added

    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    options = " ".join(f"--{key}={value}" for key, value in head["rayStartParams"].items())
    first.run(f"ray start --head {options}", project, **settings(head))
    second.run(f"ray start --address={first.address}:6379", project, **settings(worker))
    config = yaml.safe_load((project / "search.yaml").read_text())
    config["workers"] = {"cpus": 2}
    (project / "search.yaml").write_text(yaml.safe_dump(config))
    entry = manifest["spec"]["entrypoint"].replace("/shared", str(project))
    entry = entry.replace("/runs/night", str(project / "night"))
    first.run(entry, project, **settings(head))
    study = project / "night" / "study.db"
    assert scored(study) >= TRIALS
    assert len(nodes_of(study)) == 1  # the head has no CPUs
