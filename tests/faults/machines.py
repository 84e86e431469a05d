"""Machines in a network of their own: each has its address, its name, its home and its Ray.

They are network namespaces at one switch, and what they run lives in one process namespace: it all
ends when ``Machines`` does, or the process that made it, and nothing of it is left anywhere.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PATIENCE = 300.0
"""Seconds for a command to end in, on a machine that has much else to do."""

TOOLS = ("ip", "unshare", "nsenter", "hostname")

# Builds the network, says so, and lives for as long as somebody holds its standard input.
BUILD = """
set -e
cd "$1"; shift
mount -t tmpfs tmpfs /run; mkdir /run/netns
ip link set lo up; ip link add switch type bridge; ip link set switch up
echo '127.0.0.1 localhost' > hosts
echo 'nameserver 127.0.0.1' > resolv.conf
number=0
for name in "$@"; do
  number=$((number + 1)) address=10.77.0.$((number + 10))
  mkdir -p "$name/home" "$name/ray"
  echo "$address $name" >> hosts
  ip netns add "$name"
  ip link add "port-$name" type veth peer name eth0 netns "$name"
  ip link set "port-$name" master switch up
  ip -n "$name" link set lo up
  ip -n "$name" address add "$address/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default via 10.77.0.1
done
echo built
read -r _ || true
"""

# ``on FOLDER NAME COMMAND...`` within the process namespace: a command on one machine.
ON = """
folder=$1 name=$2; shift 2
exec ip netns exec "$name" unshare --uts bash -c '
  mount --bind "$1/hosts" /etc/hosts
  mount --bind "$1/resolv.conf" /etc/resolv.conf
  mount --bind "$1/$2/ray" /tmp/ray
  hostname "$2"
  export HOME="$1/$2/home"
  shift 2
  exec "$@"' on "$folder" "$name" "$@"
"""


def absent() -> str:
    """Programs that are not installed; empty if all are."""
    return ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)


def refused() -> str:
    """Why the system lets nobody make such machines here; empty if it does."""
    try_out = "ip netns add a && ip link add name b type bridge && ip link add name c type veth"
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "bash", "-c"]
    text = f"mount -t tmpfs tmpfs /run && mkdir /run/netns && {try_out}"
    done = subprocess.run([*apart, text], capture_output=True, text=True, check=False)
    return done.stderr.strip()


class Machines:
    """Machines that can reach one another, and nothing else.

    Args:
        folder: For what they keep: ``hosts``, and a folder for each.
        names: Their host names.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        Path("/tmp/ray").mkdir(mode=0o777, exist_ok=True)  # where each one's own appears
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._site = subprocess.Popen(
            [*apart, "bash", "-c", BUILD, "build", folder, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._site.stdout is not None
        assert self._site.stdout.readline() == "built\n"
        children = Path(f"/proc/{self._site.pid}/task/{self._site.pid}/children")
        self._first = children.read_text().split()[0]
        self.on = folder / "on"
        self.on.write_text(f"#!/usr/bin/env bash\nset -- '{folder}' \"$@\"\n{ON}")
        self.on.chmod(0o755)

    def address(self, name: str) -> str:
        """Its address in the network."""
        lines = (self.folder / "hosts").read_text().splitlines()
        return next(line.split()[0] for line in lines if line.endswith(f" {name}"))

    def start(self, name: str, script: str, *, cwd: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a script on a machine; what it says goes to a file."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        with log.open("ab") as file:
            return subprocess.Popen(
                [*self._within(), self.on, name, "bash", "-ec", f"cd '{cwd}'\n{script}"],
                env={**kept, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, name: str, script: str, *, cwd: Path) -> tuple[int, str]:
        """Run a script on a machine: its exit code, and what it said. What it left goes on."""
        log = self.folder / name / f"{len(list((self.folder / name).iterdir()))}.log"
        started = self.start(name, script, cwd=cwd, log=log)
        try:
            code = started.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            raise AssertionError(f"{name}: {script}\n{log.read_text()}") from None
        return code, log.read_text(errors="replace")

    def cut(self, name: str) -> None:
        """Pull the cable out of a machine, at the switch."""
        subprocess.run([*self._within(), "ip", "link", "set", f"port-{name}", "down"], check=True)

    def close(self) -> None:
        """End all that runs on them."""
        assert self._site.stdin is not None
        self._site.stdin.close()
        assert self._site.stdout is not None
        self._site.stdout.close()
        self._site.wait(30)

    def _within(self) -> list[str]:
        return ["nsenter", "--target", self._first, "--net", "--mount", "--pid", "--"]
