"""Running a target on many inputs, each within a bound of time and of memory."""

from __future__ import annotations

import gc
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from headrace_proto.limits import MIB
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, Target

CORPUS: Final = Path(__file__).parent / "corpus"
INPUT_S_MAX: Final = 20.0
"""One input. Most take milliseconds; a machine with other work to do may take a hundred times as long, a hang takes for ever."""


class Hang(BaseException):
    """An input took too long. No `except Exception` of the code under test may take it for its own."""


class Finding(NamedTuple):
    """An input that did what none may."""

    target: str
    data: bytes
    what: str


def corpus(target: str) -> list[bytes]:
    """The inputs to begin with: good ones, and every bad one that once did harm."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def judge(name: str, data: bytes) -> Finding | None:
    """Run one input."""
    target: Target = TARGETS[name]
    before = _reset_peak()
    _arm(INPUT_S_MAX)
    try:
        target.run(data)
    except target.documented:
        pass
    except Hang:
        return Finding(name, data, f"took more than {INPUT_S_MAX:g} s")
    except BaseException as error:
        _arm(0)
        if isinstance(error, KeyboardInterrupt):
            raise
        return Finding(name, data, f"{type(error).__name__}: {error}"[:500])
    finally:
        _arm(0)
    used = _memory("VmHWM") - before
    return Finding(name, data, f"took {used // MIB} MiB of memory") if used > target.memory_max else None


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """The corpus as it stands, then changed in ever new ways, the same for the same seed."""
    target, seeds, chance = TARGETS[name], corpus(name), random.Random(f"{seed}/{name}")
    yield from seeds
    while True:
        yield target.dress(mutated(chance.choice(seeds), seeds, chance)[: target.size_max])


def fuzz(
    name: str, seed: int, *, count: int | None = None, seconds: float = float("inf")
) -> tuple[int, Finding | None]:
    """Judge inputs until there is a finding, or enough of them; how many it were."""
    until, tried = time.monotonic() + seconds, 0
    for data in inputs(name, seed):
        finding = judge(name, data)
        tried += 1
        if finding is not None:
            return tried, finding
        if tried == count or time.monotonic() > until:
            break
    return tried, None


def _arm(seconds: float) -> None:
    signal.signal(signal.SIGALRM, _hangs)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _hangs(*_: object) -> None:
    raise Hang


def _reset_peak() -> int:
    """Let the kernel forget the most memory that was in use; what is in use now, in bytes."""
    gc.collect(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))
