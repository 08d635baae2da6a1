"""A collector whose store kills it with SIGKILL at a chosen call: `python -m tests.collector.dying URL STORE MOMENT PATTERN`.

MOMENT is `before` or `after` the first writing call whose path matches PATTERN; or `asleep`: then it is stopped before the call,
with SIGSTOP, and makes it when somebody continues it. A sleeper's retention is that of `hasten`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from headrace_collector import collector
from headrace_collector.settings import CollectorSettings
from headrace_proto.store import chain, sweeping
from headrace_proto.store.backend import Store, open_store
from tests.collector.harness import PARTITIONS

_Value = TypeVar("_Value")


class DyingStore:
    """Passes everything on, and dies at the chosen write."""

    def __init__(self, inner: Store, moment: str, pattern: str) -> None:
        self._inner = inner
        self._moment = moment
        self._pattern = re.compile(pattern)
        self._slept = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _die_around(self, path: str, write: Callable[[], _Value]) -> _Value:
        chosen = self._pattern.search(path) is not None and not self._slept
        if chosen and self._moment == "asleep":
            self._slept, chosen = True, False
            os.kill(os.getpid(), signal.SIGSTOP)
        if chosen and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = write()
        if chosen:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    def create(self, path: str, data: bytes) -> bool:
        return self._die_around(path, lambda: self._inner.create(path, data))

    def put(self, path: str, data: bytes) -> None:
        self._die_around(path, lambda: self._inner.put(path, data))

    def put_stream(self, path: str, blocks: Iterable[bytes]) -> None:
        self._die_around(path, lambda: self._inner.put_stream(path, blocks))


def hasten(retention_s: float = 2.0) -> None:
    """Let what is replaced grow old in seconds, and writers know that it does."""
    vars(sweeping).update(RETENTION_S=retention_s, COMMITS_KEPT=1)
    vars(chain).update(LATE_S=retention_s / 2, LOOK_AGAIN_S=retention_s / 8)


def main(url: str, store: str, moment: str, pattern: str) -> None:
    settings = CollectorSettings(nats=url, store=store, partitions=PARTITIONS, commit_interval_s=0.1)
    if moment == "asleep":
        hasten()
    vars(collector)["open_store"] = lambda url: DyingStore(open_store(url), moment, pattern)
    asyncio.run(collector.Collector(settings).run(asyncio.Event()))


if __name__ == "__main__":
    main(*sys.argv[1:])
