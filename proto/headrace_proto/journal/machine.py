"""Facts of the machine and of this process, by which a reader tells whether a writer can still be alive."""

from __future__ import annotations

import os
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ENDED: Final = frozenset("ZX")
"""States of proc(5): killed, and only its parent has not asked yet; or gone at this moment."""
_PID_MAX: Final = 1 << 22
"""The kernel's own limit."""


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # a codec of its own would have to be imported
            return file.readline().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def host_name() -> str:
    """The host: its node name and machine id. Either alone is shared by some containers and cloned images."""
    return f"{os.uname().nodename}/{_first_line('/etc/machine-id')}"


@lru_cache(maxsize=1)
def boot_id() -> str:
    """The kernel's random id of this boot: what was only in memory at another one is gone."""
    return _first_line("/proc/sys/kernel/random/boot_id")


def user_name() -> str:
    """Who runs this process: by $USER, else by the user database, else by number (a container often has no entry)."""
    named = os.environ.get("USER") or os.environ.get("LOGNAME")
    if named:
        return named
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def pid_namespace() -> int:
    """The inode of this process's pid namespace: a pid means nothing outside it. 0 where there is no /proc."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def process_start(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of proc(5)'s stat); 0 when it cannot be known."""
    fields = _stat_from_state(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def process_gone(pid: int, start: int, namespace: int) -> bool:
    """Whether the process that started then is proven to be gone: in doubt it lives. One that waits for its parent is gone.

    Only its own pid namespace can tell, and not where /proc hides other users' processes. Takes facts that may be made up.
    """
    if not namespace or namespace != pid_namespace() or not (type(pid) is int and 0 < pid <= _PID_MAX):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's: there it is
        pass
    started = process_start(pid)
    return 0 not in (started, start) and (started != start or _has_ended(pid))


def _has_ended(pid: int) -> bool:
    """Whether no thread of the process runs. The first may have left while others go on (`pthread_exit`): it is `Z` alone."""
    fields = _stat_from_state(pid)
    return len(fields) > 17 and fields[0] in _ENDED and int(fields[17]) <= 1


def maps(pid: int, start: int, part: str) -> bool:
    """Whether that process, of this pid namespace, has a file mapped whose path holds `part`. False when that cannot be seen."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            found = any(part in line for line in file)
    except OSError:
        return False
    return found and process_start(pid) == start


def _stat_from_state(pid: int) -> list[str]:
    line = _first_line(f"/proc/{pid}/stat")
    return line[line.rfind(")") + 2 :].split()  # the command's name, in parentheses, may hold anything
