"""Which file system a folder lies on, as far as it matters to a database."""

from __future__ import annotations

from pathlib import Path

import psutil

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


def type_of(path: Path) -> str:
    """Type of the file system that a path, which need not exist, lies on; empty where unknown."""
    full = path.resolve()
    found, depth = "", -1
    for mount in psutil.disk_partitions(all=True):
        place = Path(mount.mountpoint)
        # Of two mounts on one place the later one is seen.
        if full.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = mount.fstype, len(place.parts)
    return found


def shared_over_network(kind: str) -> bool:
    """Whether a file system of that type may be written from several machines."""
    if kind in LOCAL_FUSE:
        return False
    return kind in NETWORK or kind.startswith("fuse.")
