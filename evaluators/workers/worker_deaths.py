"""Why a worker's process died, as far as its machine knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LAST_BYTES = 65_536
"""How much of the end of a process's messages is read."""

_FAULT = re.compile(r"Fatal Python error: (.+)|\*\*\* (SIG[A-Z]+) received")
_WORDS = re.compile(r"(?:receives a |received )?(SIG(?!SEGV or)[A-Z]+)|exit code (\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vitals:
    """What has to be known of a living process to say later what it died of.

    Attributes:
        log: Path of the file that its standard error goes to; may be something else.
        counters: What the kernel's out-of-memory killer has killed so far, by the counter's file.
    """

    log: str
    counters: tuple[tuple[str, int], ...]

    @classmethod
    def here(cls) -> Vitals:
        """Of this process."""
        try:
            log = str(Path("/proc/self/fd/2").readlink())
        except OSError:
            log = ""
        return cls(log=log, counters=tuple((name, _killed(name)) for name in _counters()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """What a process died of.

    Attributes:
        memory: Whether the kernel ended it because memory ran out.
        words: The cause for people; empty if nobody knows.
    """

    memory: bool = False
    words: str = ""


def death_of(vitals: Vitals) -> Death:
    """What a process of this machine died of: a fault that it wrote down, or a lack of memory."""
    try:
        with Path(vitals.log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_BYTES))
            faults = _FAULT.findall(file.read().decode("utf-8", "replace"))
    except OSError:  # not a file, or not for us
        faults = []
    if faults:
        return Death(words=next(word for word in faults[-1] if word).strip())
    if any(_killed(name) > before for name, before in vitals.counters):
        return Death(memory=True, words="killed by the kernel's out-of-memory killer")
    return Death()


def ending_of(text: str) -> str:
    """The signal or exit code that Ray names, if it knows; else an empty text."""
    detail = text.rpartition("Worker exit detail:")[2]
    if "Some common causes" in detail:  # a list of what it might have been
        return ""
    found = [signal or f"exit code {code}" for signal, code in _WORDS.findall(detail)]
    return found[-1] if found else ""


def _counters() -> list[str]:
    """The files that count what was killed: of the process's control group, and of the machine."""
    found = ["/proc/vmstat"]
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:
            found.append(f"/sys/fs/cgroup{path.rstrip('/')}/memory.events")
        elif "memory" in kinds.split(","):
            found.append(f"/sys/fs/cgroup/memory{path.rstrip('/')}/memory.oom_control")
    return [name for name in found if Path(name).is_file()]


def _killed(name: str) -> int:
    """How many processes a counter has seen killed; 0 where it cannot be read."""
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except OSError:
        return 0
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0
