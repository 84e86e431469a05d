"""The files of examples/cluster: a script that runs, manifests that KubeRay takes."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"
SCRIPT = FOLDER / "slurm.sbatch"

# Names, types and what is required in a RayJob and a RayCluster of ray.io/v1, by KubeRay's types
# and the schema of its resources: all fields of a job, of a cluster those of its groups. Of pods
# the fields that are used.
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
SHARE = {"type": "number", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def each(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


AMOUNTS = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+([numkMGTPE]|[KMGTPE]i)?$"},
}
CONTAINER = fields(
    ("name", "image"),
    name=TEXT,
    image=TEXT,
    env=each(fields(("name",), name=TEXT, value=TEXT)),
    resources=fields(limits=AMOUNTS, requests=AMOUNTS),
    volumeMounts=each(
        fields(("name", "mountPath"), name=TEXT, mountPath=TEXT, readOnly={"type": "boolean"})
    ),
)
CLAIM = fields(("claimName",), claimName=TEXT, readOnly={"type": "boolean"})
POD = fields(
    ("spec",),
    spec=fields(
        ("containers",),
        containers=each(CONTAINER),
        volumes=each(fields(("name",), name=TEXT, persistentVolumeClaim=CLAIM)),
        terminationGracePeriodSeconds=COUNT,
    ),
)
HEAD = fields(
    ("rayStartParams", "template"), rayStartParams=TEXTS, template=POD, serviceType=TEXT,
    enableIngress=FLAG, headService={"type": "object"},
)  # fmt: skip
WORKERS = fields(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, numOfHosts=COUNT,
    rayStartParams=TEXTS, template=POD, scaleStrategy={"type": "object"},
)  # fmt: skip
CLUSTER = fields(
    ("headGroupSpec",), rayVersion=TEXT, enableInTreeAutoscaling=FLAG, suspend=FLAG,
    autoscalerOptions=fields(
        version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT, image=TEXT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    ),
    authOptions=fields(mode={"enum": ["token", "disabled"]}),
    headServiceAnnotations=TEXTS, headGroupSpec=HEAD,
    workerGroupSpecs=each(WORKERS),
)  # fmt: skip
JOB = fields(
    ("entrypoint", "rayClusterSpec"),  # a job that runs in a cluster of its own needs both
    activeDeadlineSeconds=COUNT, backoffLimit=COUNT, clusterSelector=TEXTS, entrypoint=TEXT,
    deletionStrategy={"type": "object"}, entrypointNumCpus=SHARE, entrypointNumGpus=SHARE,
    entrypointResources=TEXT, jobId=TEXT, managedBy=TEXT, metadata=TEXTS, rayClusterSpec=CLUSTER,
    runtimeEnvYAML=TEXT, shutdownAfterJobFinishes=FLAG, suspend=FLAG, ttlSecondsAfterFinished=COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    submitterConfig=fields(backoffLimit=COUNT), submitterPodTemplate=POD,
)  # fmt: skip
KINDS = {"RayJob": JOB, "RayCluster": CLUSTER}
MANIFESTS = ["rayjob.yaml", "raycluster.yaml"]


def schema(kind: str) -> dict[str, Any]:
    return fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=fields(("name",), name=TEXT),
        spec=KINDS[kind],
    )


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


def cluster_of(one: dict[str, Any]) -> dict[str, Any]:
    return one["spec"].get("rayClusterSpec", one["spec"])


def test_every_manifest_is_looked_at() -> None:
    assert sorted(MANIFESTS) == sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_of_its_kind(name: str) -> None:
    one = manifest(name)
    jsonschema.Draft202012Validator.check_schema(schema(one["kind"]))
    jsonschema.validate(one, schema(one["kind"]))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("spec.entryPoint", "x"),
        ("spec.rayClusterSpec.authOptions.mode", "none"),
        ("spec.rayClusterSpec.autoscalerOptions", {"idleTimeout": 60}),
        ("spec.backoffLimit", "3"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplicas", None),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.imagee", "x"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resources.limits.cpu", "4x"),
    ],
)
def test_a_manifest_with_a_mistake_is_none(place: str, value: object) -> None:
    *inner, last = place.split(".")
    one = target = manifest("rayjob.yaml")
    for name in inner:
        target = target[int(name) if name.isdecimal() else name]
    target[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(one, schema("RayJob"))


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_hangs_together(name: str) -> None:
    cluster = cluster_of(manifest(name))
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = [mount for one in pod["containers"] for mount in one["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == volumes
        assert "/shared" in {mount["mountPath"] for mount in mounts}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["rayVersion"] == installed("ray")
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_manifests_are_of_the_same_pods() -> None:
    """Whoever has the volumes and the image of one has those of the other."""
    job, kept = (cluster_of(manifest(name)) for name in MANIFESTS)
    offline = {"name": "HF_HUB_OFFLINE", "value": "1"}  # a job's own environment has it
    assert yaml.safe_load(manifest("rayjob.yaml")["spec"]["runtimeEnvYAML"]) == {
        "env_vars": {offline["name"]: offline["value"]}
    }
    pairs = [(job["headGroupSpec"], kept["headGroupSpec"])]
    pairs += zip(job["workerGroupSpecs"], kept["workerGroupSpecs"], strict=True)
    for of_job, of_kept in pairs:
        (container,) = of_kept["template"]["spec"]["containers"]
        first, *container["env"] = container["env"]
        assert first == offline
        assert of_job["template"] == of_kept["template"]
        assert of_job["rayStartParams"] == of_kept["rayStartParams"]


def test_a_cluster_that_stays_comes_from_nothing_and_goes() -> None:
    cluster = cluster_of(manifest("raycluster.yaml"))
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    for group in cluster["workerGroupSpecs"]:
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
        assert group["maxReplicas"] > 0


def installed(package: str) -> str:
    constraints = (FOLDER.parent.parent / "constraints.txt").read_text("utf-8").splitlines()
    return next(line.split("==")[1] for line in constraints if line.startswith(f"{package}=="))


def test_the_entrypoint_is_a_command_of_ours(tmp_path: Path) -> None:
    text = manifest("rayjob.yaml")["spec"]["entrypoint"].replace("/runs/night", str(tmp_path))
    stub(tmp_path / "search", 'echo "$@"')
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = [*["bash", "-c"], text]
    first = subprocess.run(run, capture_output=True, text=True, env=environment, check=True)
    expected = f"run /shared/search.yaml --out {tmp_path} --ray-address auto"
    assert first.stdout.strip() == expected
    (tmp_path / "study.db").touch()
    again = subprocess.run(run, capture_output=True, text=True, env=environment, check=True)
    assert again.stdout.strip() == f"resume {tmp_path}/study.db --ray-address auto"


def test_the_script_is_clean() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def stub(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which SLURM, Ray and the search only write down how they were called."""
    tools = tmp_path / "tools"
    (tmp_path / "env" / "bin").mkdir(parents=True)
    tools.mkdir()
    (tmp_path / "env" / "bin" / "activate").touch()
    stub(tools / "scontrol", "printf 'node1\\nnode2\\nnode3\\n'")
    stub(
        tools / "srun",
        'echo "srun $*" >> "$CALLS"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"',
    )
    stub(tools / "hostname", "echo '10.0.0.1 fe80::1'")
    stub(tools / "ray", '[[ $1 == status ]] || echo "ray $*" >> "$CALLS"')
    stub(
        tools / "search",
        'trap "echo stopped >> $CALLS; exit 0" TERM\necho "search $*" >> "$CALLS"\n'
        'for _ in $(seq "${SLEEPS:-1}"); do sleep 0.1; done\nexit "${CODE:-0}"',
    )
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "MERGE_SEARCH_ENV": str(tmp_path / "env"),
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_CPUS_PER_TASK": "32",
        "SLURM_GPUS_ON_NODE": "8",
    }


def sbatch(environment: dict[str, str], folder: Path, **options: Any) -> subprocess.Popen[bytes]:
    command = ["bash", SCRIPT, "search.yaml", folder]
    return subprocess.Popen(command, env=environment, start_new_session=True, **options)


def ended(job: subprocess.Popen[bytes]) -> int:
    """The exit code of a job; its steps end with it, as SLURM has it."""
    try:
        return job.wait(200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def calls(environment: dict[str, str]) -> list[str]:
    path = Path(environment["CALLS"])
    return path.read_text("utf-8").splitlines() if path.exists() else []


def test_the_script_starts_ray_on_every_node_and_a_search_on_the_first(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "night"
    assert ended(sbatch({**slurm, "CODE": "1"}, folder)) == 1  # the search's own exit code
    said = calls(slurm)
    heads = [line for line in said if line.startswith("ray start") and " --head " in line]
    others = [line for line in said if line.endswith("--address=10.0.0.1:6379")]
    assert len(heads) == 1
    assert {line.split("--nodelist=")[1].split()[0] for line in others if "srun" in line} == {
        "node2",
        "node3",
    }
    assert f"search run search.yaml --out {folder} --ray-address 10.0.0.1:6379" in said
    folder.mkdir()
    (folder / "study.db").touch()
    assert ended(sbatch(slurm, folder)) == 0
    assert f"search resume {folder}/study.db --ray-address 10.0.0.1:6379" in calls(slurm)


def test_the_script_lets_a_search_finish(slurm: dict[str, str], tmp_path: Path) -> None:
    job = sbatch({**slurm, "SLEEPS": "3000"}, tmp_path / "night")
    end = time.monotonic() + 200
    while not any(line.startswith("search") for line in calls(slurm)):
        assert time.monotonic() < end
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert ended(job) == 0
    assert calls(slurm)[-1] == "stopped"


@pytest.mark.parametrize(
    ("tool", "body", "limit", "line"),
    [
        ("scontrol", "exit 1", "300", "scontrol names no node of this job"),
        ("hostname", "exec sleep 600", "1", "error: node node1 does not tell its address"),
        ("ray", "exit 1", "300", "error: Ray does not start on node node1; what it says is above"),
        (
            "ray",
            "[[ $1 != status ]] || exit 1\nexec sleep 600",
            "1",
            "error: Ray on node node1 does not answer within 1 s (MERGE_SEARCH_WAIT) at "
            "10.0.0.1:6379",
        ),
    ],
)
def test_the_script_waits_for_nothing_for_ever(
    slurm: dict[str, str], tmp_path: Path, tool: str, body: str, limit: str, line: str
) -> None:
    stub(tmp_path / "tools" / tool, body)
    log = tmp_path / "log"
    with log.open("w") as file:
        job = sbatch({**slurm, "MERGE_SEARCH_WAIT": limit}, tmp_path / "night", stderr=file)
        assert ended(job) == 1
    assert log.read_text("utf-8").rstrip().endswith(line)
    assert not any(one.startswith("search") for one in calls(slurm))


def test_the_script_starts_a_ray_that_was_too_slow_again(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    stub(
        tmp_path / "tools" / "ray",
        f'if [[ $1 == status ]]; then [[ -e "{second}" ]]; exit; fi\n'
        f'mkdir "{first}" 2> /dev/null && exit 1\ntouch "{second}"\nexec sleep 600',
    )
    assert ended(sbatch(slurm, tmp_path / "night")) == 0
    assert any(one.startswith("search") for one in calls(slurm))


DOCKERFILE = FOLDER / "Dockerfile"
ROOT = FOLDER.parent.parent


def instructions() -> list[tuple[str, list[str]]]:
    """Of the Dockerfile, each with its words; lines are none but whole instructions."""
    lines = DOCKERFILE.read_text("utf-8").splitlines()
    words = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    return [(first, rest) for first, *rest in words]


def test_the_image_is_that_of_the_manifests() -> None:
    (build,) = re.findall(r"^#   (docker build .*)$", DOCKERFILE.read_text("utf-8"), re.M)
    _, _, _, file, _, tag, where = build.split()
    assert (ROOT / file, where) == (DOCKERFILE, ".")
    named = {
        image
        for name in MANIFESTS
        for image in re.findall(r"image: (\S+)", (FOLDER / name).read_text("utf-8"))
    }
    assert named == {tag}


def test_the_image_holds_what_an_install_needs() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    assert re.fullmatch(r"python:3\.11\.\d+-\w+", found[0][1][0])  # as CI has it, pinned
    assert {name for name, _ in found} == {"FROM", "WORKDIR", "RUN", "COPY"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    about = {project["project"]["readme"], *project["project"]["license-files"]}
    copied = {source for name, words in found if name == "COPY" for source in words[:-1]}
    assert copied == {one for one in packages if "*" not in one} | about | {
        "pyproject.toml", "constraints.txt",
    }  # fmt: skip
    for name, (*sources, target) in found:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in sources), sources
            assert target in ("./", *sources)  # of folders it is the content that is copied


def test_the_image_is_installed_as_the_readme_says() -> None:
    torch, install = (words for name, words in instructions() if name == "RUN")
    start = ["pip", "install", "--no-cache-dir"]
    (version,) = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    assert torch == [*start, version]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"pip install {version} " in readme
    assert install == [*start, "-c", "constraints.txt", ".", "ray[default]"]
    assert "\npip install -c constraints.txt .\n" in readme
