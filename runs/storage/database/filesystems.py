"""Which file system a folder lies on, as far as it matters to a database."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "virtiofs"),
        *("lustre", "gpfs", "beegfs", "ceph", "glusterfs", "wekafs", "orangefs", "pvfs2", "panfs"),
        *("quobyte", "ocfs2", "gfs2", "vboxsf", "prl_fs", "drvfs", "fuse"),
    }
)
"""Types on which the machines that see a file share no memory, which a write-ahead log needs.

Everything served through FUSE (``fuse.sshfs``, ``fuse.s3fs``, ...) is taken for one of them, but
for ``LOCAL_FUSE``.
"""

LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs"})


def type_of(path: Path, *, mounts: Path = MOUNTS) -> str:
    """Type of the file system that a path lies on, such as ``ext4``; empty where unknown.

    Args:
        path: A file or folder; it need not exist.
        mounts: The kernel's table of mounts.
    """
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return ""
    full = path.resolve()
    found, depth = "", -1
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        place = Path(_unescaped(fields[1]))
        # Of two mounts on one place the later one is seen.
        if full.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = fields[2], len(place.parts)
    return found


def shared_over_network(kind: str) -> bool:
    """Whether a file system of that type may be written from several machines."""
    if kind in LOCAL_FUSE:
        return False
    return kind in NETWORK or kind.startswith("fuse.")


def _unescaped(field: str) -> str:
    """A path of the mount table: white space and backslashes stand there as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
