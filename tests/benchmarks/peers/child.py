"""A measured process, in its peer's environment: `python -m tests.benchmarks.peers.child PEER FOLDER VERB RESULT [ARGUMENT]`.

RESULT is the file for what it has to say; the peers print as they like. Little is imported up here, because `first` measures an
interpreter's whole way to its first metric.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks.peers.peer import CHANNEL
from tests.benchmarks.peers.registry import peer_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.peers.peer import Peer

AGAIN: Final = 5
"""How often a search is asked again."""


def first(peer: Peer, result: str, _: str) -> None:
    """One metric; the result is when the call had returned, on the system's monotonic clock."""
    peer.begin().scalar(CHANNEL, 0, 0.5)
    logged_ns = time.monotonic_ns()
    with open(result, "w", encoding="utf-8") as file:
        file.write(str(logged_ns))
    peer.end()


def scalars(peer: Peer, result: str, calls: str) -> None:
    """The first workload."""
    from tests.benchmarks.peers.workload import scalar_spans

    _log(peer, result, scalar_spans, int(calls))


def rows(peer: Peer, result: str, calls: str) -> None:
    """The second workload."""
    from tests.benchmarks.peers.workload import row_spans

    _log(peer, result, row_spans, int(calls))


def _log(peer: Peer, result: str, spans_of: Callable[..., Any], calls: int) -> None:
    import json

    from tests.benchmarks.peers.peer import Log
    from tests.benchmarks.peers.workload import clock_ns

    log, own_s = peer.begin(), -time.process_time()
    clock = clock_ns()
    looped_s = -time.process_time()
    spans_of(Log(_nothing, _nothing), calls)
    own_s, looped_s = own_s + time.process_time(), looped_s + time.process_time()
    begun_ns = time.monotonic_ns()
    spans = spans_of(log, calls)
    logged_ns = time.monotonic_ns()
    peer.end()
    ended_ns = time.monotonic_ns()
    with open(f"{result}.spans", "wb") as raw:
        spans.tofile(raw)
    said = {"begun_ns": begun_ns, "logged_ns": logged_ns, "ended_ns": ended_ns, "clock_ns": clock}
    _tell(json.dumps({**said, "own_cpu_s": own_s + looped_s * len(spans) / calls}), result)


def _nothing(*_: object) -> None:
    """A call that costs only being called, to know what the loop and its clock cost."""


def forever(peer: Peer, result: str, per_s: str) -> None:
    """Log until the end; the result is a page of shared memory: calls that have returned, our process, and when it began."""
    import mmap
    import os

    from tests.benchmarks.peers import workload

    with open(result, "r+b") as file:
        shared = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
    log = peer.begin()
    shared[2], shared[1] = time.monotonic_ns(), os.getpid()
    workload.forever(log, shared, float(per_s))


def survivors(peer: Peer, result: str, _: str) -> None:
    """What a killed process has left behind, after what the documentation says to do then."""
    peer.recover()
    series = peer.read()
    _tell_series(series.steps, series.values, result)


def fill(peer: Peer, result: str, points: str) -> None:
    """A run to be read."""
    from tests.benchmarks.peers.workload import value

    peer.fill([value(step) for step in range(int(points))])
    _tell("{}", result)


def read(peer: Peer, result: str, _: str) -> None:
    """Read the series twice: the first time pays for imports, the second, through new handles, is what counts."""
    peer.read()
    begin = time.perf_counter()
    series = type(peer)(peer.folder).read()
    took_s = time.perf_counter() - begin
    _tell_series(series.steps, series.values, result)
    _tell(str(took_s), f"{result}.s")


def populate(peer: Peer, result: str, runs: str) -> None:
    """Runs to be searched."""
    from tests.benchmarks.peers.workload import trials

    peer.populate(trials(int(runs)))
    _tell("{}", result)


def find(peer: Peer, result: str, _: str) -> None:
    """Search: from opening (imports are paid for before), and again by the same handle."""
    import json
    from statistics import median

    peer.finder()()
    begin = time.perf_counter()
    search = type(peer)(peer.folder).finder()
    found = len(search())
    opened_s = time.perf_counter() - begin
    took = []
    for _again in range(AGAIN):
        begin = time.perf_counter()
        search()
        took.append(time.perf_counter() - begin)
    _tell(json.dumps({"found": found, "first_s": opened_s, "again_s": median(took)}), result)


def _tell_series(steps: Any, values: Any, result: str) -> None:
    from array import array

    with open(result, "wb") as file:
        array("d", map(float, steps)).tofile(file)
        array("d", map(float, values)).tofile(file)


def _tell(text: str, result: str) -> None:
    with open(result, "w", encoding="utf-8") as file:
        file.write(text)


VERBS: Final = {verb.__name__: verb for verb in (first, scalars, rows, forever, survivors, fill, read, populate, find)}


def main() -> None:
    """Do what the command line says."""
    name, folder, verb, result, argument = sys.argv[1:6]
    VERBS[verb](peer_class(name)(folder), result, argument)


if __name__ == "__main__":
    main()
