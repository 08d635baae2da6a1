"""The catalog's rows, appended together: whoever waits while one append is under way goes with the next.

A row is in the catalog before its mark is told, so that whoever waits for "stored" finds the experiment listed as stored. The
catalog is a cache, though: when the store will not take a row, the mark does not wait, and the row goes with the next ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from headrace_collector.metrics import Metrics
from headrace_proto.store.backend import Store
from headrace_proto.store.catalog import Catalog, CatalogRow

_LOG: Final = logging.getLogger(__name__)

DELTAS_MAX: Final = 64
"""Files of a catalog's shard that a reader has to open besides its bases before they are folded."""
_AGAIN_S: Final = 1.0

Call = Callable[..., Awaitable[Any]]


class Listing:
    """All projects' catalogs, as far as this collector writes to them."""

    def __init__(self, store: Store, call: Call, metrics: Metrics) -> None:
        self._store = store
        self._call = call
        self._metrics = metrics
        self._rows: dict[str, dict[str, CatalogRow]] = defaultdict(dict)
        self._waiting = asyncio.Event()
        self._appended = asyncio.Event()
        self._deltas: dict[str, int] = defaultdict(int)

    async def append(self, project: str, row: CatalogRow) -> None:
        """Put a row into the catalog; returns when that was tried."""
        known = self._rows[project].get(row.experiment)
        if known is None or known.commit < row.commit:
            self._rows[project][row.experiment] = row
        self._waiting.set()
        await self._appended.wait()

    async def run(self) -> None:
        """Append for ever."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            appended, self._appended = self._appended, asyncio.Event()
            rows, self._rows = self._rows, defaultdict(dict)
            try:
                taken = await asyncio.gather(*(self._append(project, by_name) for project, by_name in rows.items()))
            finally:
                appended.set()
            if not all(taken):
                asyncio.get_running_loop().call_later(_AGAIN_S, self._waiting.set)
            await self._fold()

    async def _append(self, project: str, rows: dict[str, CatalogRow]) -> bool:
        try:
            await self._call(Catalog(self._store, project).append, list(rows.values()))
            self._deltas[project] += 1
        except OSError as error:
            self._metrics.store_errors.inc()
            _LOG.warning("the catalog waits for the store", extra={"project": project, "error": repr(error)})
            self._rows[project] = {**rows, **self._rows[project]}
            return False
        return True

    async def _fold(self) -> None:
        for project in [project for project, deltas in self._deltas.items() if deltas >= DELTAS_MAX]:
            self._deltas[project] = 0
            try:
                await self._call(Catalog(self._store, project).fold, DELTAS_MAX)
            except OSError as error:
                self._metrics.store_errors.inc()
                _LOG.warning("a catalog could not be folded", extra={"project": project, "error": repr(error)})
