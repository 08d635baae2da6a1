"""What everything in one collector shares: the store, threads for it, the outbox, memory, figures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from headrace_collector.answers import Answers
from headrace_collector.intake import Memory
from headrace_collector.listing import Listing
from headrace_collector.metrics import Metrics
from headrace_collector.pacing import Pacing
from headrace_collector.upkeep import Upkeep
from headrace_proto.limits import MIB
from headrace_proto.store import stretches
from headrace_proto.store.backend import Store

_LOG: Final = logging.getLogger(__name__)

READY_BYTES_MAX: Final = 64 * MIB
"""Of frames that wait for a commit: beyond it nothing is pulled, and the backlog stays in the stream, then in journals."""
LOCAL_COMMITS: Final = 2
"""At a time. They compute more than they wait."""
REMOTE_COMMITS: Final = 8
"""At a time. They wait more than they compute; each may hold COMMIT_RAW_BYTES of events."""

FILE_THREADS: Final = 4
"""Threads for files on their way."""

RETRY_S_FIRST: Final = 0.2
RETRY_S_MAX: Final = 30.0

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Shared:
    """Made once by the collector, handed to everything in it."""

    def __init__(
        self, name: str, store: Store, store_id: str, answers: Answers, metrics: Metrics, pacing: Pacing
    ) -> None:
        self.name: Final = name
        """What this collector is called among the others."""
        self.store: Final = store
        self.store_id: Final = store_id
        self.answers: Final = answers
        self.metrics: Final = metrics
        self.pacing: Final = pacing
        self.memory: Final = Memory()
        self.assemblies = 0
        """Files on their way."""
        self.fault = ""
        """What the store's last call died of; "" once one has succeeded."""
        self.room: Final = asyncio.Event()
        self.room.set()
        commits = LOCAL_COMMITS if store.local else REMOTE_COMMITS
        self.slots: Final = asyncio.Semaphore(commits)
        self._threads: Final = ThreadPoolExecutor(commits + 2, thread_name_prefix="store")
        self._file_threads: Final = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files")
        self.listing: Final = Listing(store, self.call, metrics)
        self.upkeep: Final = Upkeep(store, self.listing, metrics)

    async def call(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """Run a call that blocks in a thread of the store's."""
        return await self._run(self._threads, lambda: function(*args, **kwargs))

    async def _run(self, threads: ThreadPoolExecutor, function: Callable[[], _Result]) -> _Result:
        result = await asyncio.get_running_loop().run_in_executor(threads, function)
        self.fault = ""
        return result

    async def persist(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """Run a call that blocks, again and again while the store is out of order. It must stand being repeated."""
        return await self._persist(self._threads, lambda: function(*args, **kwargs))

    async def persist_file(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """As `persist`, in threads of its own: thousands of files that arrive together must not stand before a commit."""
        return await self._persist(self._file_threads, lambda: function(*args, **kwargs))

    async def _persist(self, threads: ThreadPoolExecutor, function: Callable[[], _Result]) -> _Result:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(OSError),
            wait=wait_random_exponential(RETRY_S_FIRST, RETRY_S_MAX),
            before_sleep=self.count_error,
        )
        return await retrying(self._run, threads, function)

    async def warm_up(self) -> None:
        """Encode a point, once: what libraries load at their first use (0.2 s) no commit has to wait for."""
        await self.call(stretches.warm_up)

    def count_error(self, state: RetryCallState) -> None:
        """A call of the store failed and will be tried again."""
        self.metrics.store_errors.inc()
        error = state.outcome.exception() if state.outcome else None
        self.fault = repr(error)
        expected = isinstance(error, OSError)
        _LOG.warning("the store is out of order", extra={"error": repr(error)}, exc_info=None if expected else error)

    @property
    def crowded(self) -> bool:
        """Whether what waits for commits should not wait for their time."""
        return self.memory.ready > READY_BYTES_MAX // 2

    def weigh(self) -> None:
        """Pull on or pause, by what waits for a commit."""
        ready = self.memory.ready
        self.metrics.ready_bytes.set(ready)
        self.metrics.above_bytes.set(self.memory.above)
        if ready > READY_BYTES_MAX:
            self.room.clear()
        elif ready <= READY_BYTES_MAX // 2:
            self.room.set()

    def close(self) -> None:
        """Let the threads end. What they are in the middle of is safe to lose, and safe to finish."""
        self.upkeep.close()
        for threads in (self._threads, self._file_threads):
            threads.shutdown(wait=False, cancel_futures=True)
