"""The columns of the table: what is measured of one peer, each time in processes of its own."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from tests.benchmarks.peers import workload
from tests.benchmarks.peers.peer import Peer, Series
from tests.benchmarks.peers.process import Failed, Measured, environment_of, python_of
from tests.benchmarks.peers.registry import peer_class

KILL_AFTER_CALLS: Final = 200_000
KILL_AFTER_S: Final = 3.0
"""At full speed, whichever comes first."""
SLOW_S: Final = 12.0
"""How long the slow loops log before they are killed."""
BEGIN_S: Final = 120.0
MIB: Final = 1024 * 1024
_PAGE: Final = 4096
_LOOK_S: Final = 0.001
_ROUNDED: Final = 1e-6
"""What a float32 may differ by."""
_BARE: Final = "import sys, time; open(sys.argv[1], 'w').write(str(time.monotonic_ns()))"

KILLS: Final = {"kill-full": 0.0, "kill-100": 100.0, "kill-1": 1.0}
"""Calls a second before SIGKILL; 0 is as fast as the loop can."""
COLUMNS: Final = ("scalars", "rows", "first", "read", "find", *KILLS)

Figures = dict[str, float]


def takes_part(name: str, column: str) -> bool:
    """Whether a peer has this column."""
    return ("kill" if column in KILLS else column) in peer_class(name).columns


class Sizes(NamedTuple):
    """How much is asked of every peer."""

    scalars: int = workload.SCALARS
    rows: int = workload.ROWS
    points: int = workload.SCALARS
    trials: int = workload.TRIALS
    slow_s: float = SLOW_S


class Bench:
    """Measures below a folder, and leaves nothing there but what is read again."""

    def __init__(self, folder: Path, sizes: Sizes = Sizes()) -> None:  # noqa: B008 - a NamedTuple does not change
        self.folder: Final = folder
        self.sizes: Final = sizes

    # -- Calls -----------------------------------------------------------------------------------------------------------

    def scalars(self, name: str) -> Figures:
        """The first workload."""
        return self._calls(name, "scalars", self.sizes.scalars, 1)

    def rows(self, name: str) -> Figures:
        """The second workload."""
        return self._calls(name, "rows", self.sizes.rows, workload.WIDTH)

    def _calls(self, name: str, verb: str, calls: int, width: int) -> Figures:
        calls = max(1, int(calls * peer_class(name).share))
        with self._work(name, verb) as (peer, work), peer.services() as services:
            before_s = _cpu_s(services)
            measured = Measured(peer, work, verb, str(calls))
            tree = measured.finish()
            said = measured.said()
            durable_ns = said["ended_ns"] if services else _synced_ns(peer.data())
            peer.settle()
            spans = sorted(_array("q", measured.result.with_name(f"{measured.result.name}.spans")))
            return {
                "calls": len(spans),
                "events": len(spans) * width,
                **{
                    key: (spans[min(len(spans) - 1, int(len(spans) * part))] - said["clock_ns"]) / 1000
                    for key, part in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0))
                },
                "durable_s": (durable_ns - said["begun_ns"]) / 1e9,
                "cpu_s": tree["cpu_s"] - said["own_cpu_s"] + _cpu_s(services) - before_s,
                "rss_mib": (tree["rss_bytes"] + _resident_bytes(services)) / MIB,
                "disk_bytes": _disk_bytes(peer.data()),
            }

    def first(self, name: str) -> Figures:
        """From starting Python to the first metric's return, over starting Python alone; and what so short a life costs."""
        with self._work(name, "first") as (peer, work):
            bare_ns = _bare_ns(peer, work)
            measured = Measured(peer, work, "first")
            tree = measured.finish()
            logged_ns = int(measured.result.read_text(encoding="utf-8"))
            return {
                "first_s": (logged_ns - tree["begun_ns"] - bare_ns) / 1e9,
                "first_cpu_s": tree["cpu_s"],
                "first_disk_bytes": _disk_bytes(peer.data()),
            }

    def measure(self, name: str, column: str) -> Figures:
        """One column of one peer: one of `COLUMNS`."""
        if column in KILLS:
            return self.kill(name, KILLS[column])
        found: Figures = getattr(self, column)(name)
        return found

    # -- SIGKILL ---------------------------------------------------------------------------------------------------------

    def kill(self, name: str, per_s: float) -> Figures:
        """SIGKILL of the program alone, at full speed (0) or in a slow loop: of the calls that had returned, how many are lost.

        Its helpers, if it has any, are left alone for `GRACE_S`; then the peer's recovery is done, and its own reader asked.
        """
        with self._work(name, f"kill-{per_s:g}") as (peer, work):
            returned = _killed(peer, work, per_s, self.sizes.slow_s)
            survivors = Measured(peer, work, "survivors")
            survivors.finish()
            found, right = _there(_series(survivors.result), returned)
            return {"returned": returned, "lost": returned - found, "wrong": found - right}

    # -- Reading ---------------------------------------------------------------------------------------------------------

    def fill(self, name: str) -> None:
        """Make the series that `read` reads."""
        work = self._kept(name, "read")
        Measured(peer_class(name)(str(work / "data")), work, "fill", str(self.sizes.points)).finish()

    def read(self, name: str) -> Figures:
        """The series, by the peer's own reader."""
        work = self._kept(name, "read")
        measured = Measured(peer_class(name)(str(work / "data")), work, "read")
        measured.finish()
        _, right = _there(_series(measured.result), self.sizes.points)
        if right != self.sizes.points:
            raise Failed(f"{name} gives {right} of {self.sizes.points} points:\n{measured.printed()}")
        return {"read_s": float(measured.result.with_name(f"{measured.result.name}.s").read_text(encoding="utf-8"))}

    def populate(self, name: str) -> None:
        """Make the runs that `find` searches."""
        work = self._kept(name, "find")
        Measured(peer_class(name)(str(work / "data")), work, "populate", str(self.sizes.trials)).finish()

    def find(self, name: str) -> Figures:
        """The runs with a parameter and a metric, as a DataFrame."""
        work = self._kept(name, "find")
        measured = Measured(peer_class(name)(str(work / "data")), work, "find")
        measured.finish()
        said = measured.said()
        if said["found"] != workload.wanted(self.sizes.trials):
            raise Failed(
                f"{name} finds {said['found']} of {workload.wanted(self.sizes.trials)} runs:\n{measured.printed()}"
            )
        return {"find_first_s": said["first_s"], "find_again_s": said["again_s"]}

    # -- Folders ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _work(self, name: str, what: str) -> Iterator[tuple[Peer, Path]]:
        work = self.folder / f"{name}-{what}"
        work.mkdir(parents=True)
        (work / "data").mkdir()
        try:
            yield peer_class(name)(str(work / "data")), work
        finally:
            shutil.rmtree(work)

    def _kept(self, name: str, what: str) -> Path:
        work = self.folder / f"{name}-{what}"
        (work / "data").mkdir(parents=True, exist_ok=True)
        return work


def _bare_ns(peer: Peer, work: Path) -> int:
    """What an interpreter takes that does nothing: the quickest of three, as a slow one is somebody else's doing."""
    result, took = work / "bare", []
    for _ in range(3):
        begin = time.monotonic_ns()
        environment = environment_of(type(peer), work)
        subprocess.run([python_of(type(peer)), "-c", _BARE, str(result)], env=environment, check=True)
        took.append(int(result.read_text(encoding="utf-8")) - begin)
    return min(took)


def _killed(peer: Peer, work: Path, per_s: float, slow_s: float) -> int:
    """Have a process log, kill it, wait for what it leaves; how many of its calls had returned."""
    progress = work / "progress"
    progress.write_bytes(bytes(_PAGE))
    with progress.open("r+b") as file, mmap.mmap(file.fileno(), _PAGE) as page, memoryview(page).cast("Q") as shared:
        measured = Measured(peer, work, "forever", str(per_s), result=progress)
        deadline = time.monotonic() + BEGIN_S
        while not shared[1]:
            if measured.process.poll() is not None or time.monotonic() > deadline:
                measured.stop()
                raise Failed(f"{peer.name} does not begin:\n{measured.printed()}")
            time.sleep(_LOOK_S)
        end_ns = shared[2] + int((slow_s if per_s else KILL_AFTER_S) * 1e9)
        while time.monotonic_ns() < end_ns and (per_s or shared[0] < KILL_AFTER_CALLS):
            time.sleep(_LOOK_S)
        with suppress(ProcessLookupError):
            os.kill(shared[1], signal.SIGKILL)
        measured.finish(killed=True)
        if not shared[0]:
            raise Failed(f"no call of {peer.name} returned:\n{measured.printed()}")
        return shared[0]


def _there(series: Series, points: int) -> tuple[int, int]:
    """How many of the first so many points there are, and how many of these with their values."""
    found = {int(step): value for step, value in zip(series.steps, series.values, strict=True) if 0 <= step < points}
    right = sum(abs(value - workload.value(step)) <= _ROUNDED * max(1.0, abs(value)) for step, value in found.items())
    return len(found), right


def _series(result: Path) -> Series:
    both = _array("d", result)
    return Series(both[: len(both) // 2], both[len(both) // 2 :])


def _array(code: str, path: Path) -> array[int] | array[float]:
    found: array[float] = array(code)
    found.frombytes(path.read_bytes())
    return found


# -- What the machine says -----------------------------------------------------------------------------------------------


def _files(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())


def _disk_bytes(folders: Iterable[str]) -> int:
    """What the files take on disk: allocated blocks, so that holes are free and reserved space is not."""
    return sum(path.stat().st_blocks * 512 for path in _files(folders))


def _synced_ns(folders: Iterable[str]) -> int:
    """Have the kernel write every file there to the disk; when it has."""
    for path in _files(folders):
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.close(descriptor)
    return time.monotonic_ns()


def _tree(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)


def _cpu_s(pids: Iterable[int]) -> float:
    total = 0.0
    for process in _tree(pids):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _resident_bytes(pids: Iterable[int]) -> int:
    total = 0
    for process in _tree(pids):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total
