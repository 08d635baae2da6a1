"""Who does not respond: experiments that are running, by the store, and of whose node nothing has been heard for a minute."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.reading.criteria import times_us
from headrace_proto.errors import HeadraceError
from headrace_proto.store.signs import SILENT_AFTER, Signs, is_silent, read_signs
from headrace_proto.store.times import us_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.reading.criteria import Mask
    from headrace_proto.store.backend import Store
    from headrace_proto.store.catalog import CatalogRow


def signs_of(store: Store) -> Signs:
    """What is known of the nodes; nothing, where that cannot be read: then nobody is called silent."""
    try:
        return read_signs(store)
    except HeadraceError:
        return Signs()


def silent(table: pa.Table, store: Store, now: datetime | None = None) -> Mask:
    """Which rows of a catalog's table do not respond. The store is asked only where any of them is running."""
    state: Mask = pc.equal(table["state"], pa.scalar("running")).to_numpy()
    if not state.any():
        return np.zeros(table.num_rows, np.bool_)
    limit = (now or datetime.now(UTC)) - SILENT_AFTER
    late = [experiment for experiment, heard_at in signs_of(store).heard_at().items() if heard_at < limit]
    unheard: Mask = pc.is_in(table["experiment"], value_set=pa.array(late, pa.string())).to_numpy()
    seen, known = times_us(table["seen_at"])
    found: Mask = state & unheard & ~(known & (seen >= us_of(limit)))
    return found


def silent_ones(rows: Iterable[CatalogRow], store: Store, now: datetime | None = None) -> set[str]:
    """The same of rows: the internal ids of those that do not respond."""
    running = [row for row in rows if row.state == "running"]
    heard_at = signs_of(store).heard_at() if running else {}
    moment = now or datetime.now(UTC)
    return {row.experiment for row in running if is_silent(heard_at.get(row.experiment), row.seen_at, moment)}
