"""What a folder lies on, and what a journal may rely on there.

The mount is found by its number (the folder's descriptor names it), not by a path or a device: a btrfs subvolume has a device that
is in no table, and paths have links and bind mounts in them. The kernel's own name of the type says what statfs says by a magic
number, FUSE's servers told apart.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NETWORK: Final = frozenset({
    "9p", "acfs", "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "coda", "fuse", "fuseblk",
    "gfs", "gfs2", "gpfs", "lustre", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs",
    "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
})  # fmt: skip
"""A server, or another host, has the bytes: a map is not coherent between hosts, and dies of SIGBUS when the server fails."""
COPY_ON_WRITE: Final = frozenset({"bcachefs", "btrfs", "zfs"})
"""Space that was allocated is not reserved: a write takes new blocks, so a store into a map can die of SIGBUS on a full disk."""


def kind_of(path: str) -> str:
    """The type of the file system that holds `path`, or the nearest folder above it that exists: "ext4", "nfs4", "fuse.sshfs", ...

    "" when that cannot be known (no /proc, no permission); it is then taken for a local one.
    """
    try:
        mount = _mount_of(_existing(os.path.abspath(path)))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(" ")
                if fields[0] == mount:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return ""


def _existing(path: str) -> str:
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _mount_of(folder: str) -> str:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="utf-8") as file:
            return next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    except StopIteration as error:
        raise ValueError(f"/proc does not say on which mount {folder!r} is") from error
    finally:
        os.close(descriptor)


def is_network(kind: str) -> bool:
    """Whether other hosts may see the same files."""
    return kind in NETWORK or kind.startswith("fuse.")


def can_be_mapped(kind: str) -> bool:
    """Whether what was allocated there can be written through a map, and no store into it ever fails."""
    return not is_network(kind) and kind not in COPY_ON_WRITE
