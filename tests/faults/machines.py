"""Machines out of Linux namespaces: network, processes, host name and home of their own."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

SCRIPTS = Path(sys.executable).parent
APART = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


def permitted() -> str:
    """Why there can be no such machines here; empty if there can."""
    try:
        done = subprocess.run(
            [*APART, "ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


class Machine:
    """One that ends with everything on it when it is switched off."""

    def __init__(self, number: int) -> None:
        self.name, self.address = f"machine{number}", f"10.77.0.{number}"
        self.home = Path(tempfile.mkdtemp(prefix="m", dir="/tmp"))  # Ray's sockets need short names
        self._life = subprocess.Popen([*APART, "sleep", "100000"])
        end = time.monotonic() + 30
        while not (found := psutil.Process(self._life.pid).children()):
            assert time.monotonic() < end
            time.sleep(0.05)
        self.pid = found[0].pid
        while Path(f"/proc/{self.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.05)
        hosts = self.home / "hosts"
        names = "10.77.0.1 machine1\n10.77.0.2 machine2\n"
        hosts.write_text(f"127.0.0.1 localhost\n{names}")
        self.call("hostname", self.name)
        self.call("mount", "--bind", hosts, "/etc/hosts")
        self.call("ip", "link", "set", "lo", "up")

    def command(self, *words: object) -> list[str]:
        """What runs a command there, from outside."""
        return ["nsenter", "--target", str(self.pid), "--all", *map(str, words)]

    def call(self, *words: object) -> None:
        subprocess.run(self.command(*words), check=True)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = f"{SCRIPTS}:{os.environ['PATH']}"
        usual = {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(self.home)}
        places = {"TMPDIR": str(self.home), "RAY_TMPDIR": str(self.home)}
        return {**own, **usual, **places, "PATH": path, **more}

    def start(self, script: str, folder: Path, **more: str) -> subprocess.Popen[str]:
        """Run a script there."""
        inside = f"cd {shlex.quote(str(folder))} && {script}"
        return subprocess.Popen(
            self.command("bash", "-c", inside),
            env=self.environment(more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, folder: Path, **more: str) -> str:
        """Run a script to its end; what it printed."""
        process = self.start(script, folder, **more)
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, (script, out, err)
        return out

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Ask what was started there to end; ``nsenter`` passes no signals on."""
        for one in psutil.Process(process.pid).children(recursive=True):
            if "search" in one.name():
                one.terminate()

    def off(self) -> None:
        self._life.kill()
        self._life.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def connect(one: Machine, other: Machine) -> None:
    """A wire between two machines; each is the other's way to all else."""
    subprocess.run(
        ["ip", "link", "add", "wire", "netns", str(one.pid), "type", "veth",
         "peer", "name", "wire", "netns", str(other.pid)],
        check=True,
    )  # fmt: skip
    for this in (one, other):
        this.call("ip", "address", "add", f"{this.address}/24", "dev", "wire")
        this.call("ip", "link", "set", "wire", "up")
    for this, that in ((one, other), (other, one)):
        this.call("ip", "route", "add", "default", "via", that.address)
