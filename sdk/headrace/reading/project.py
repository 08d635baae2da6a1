"""A project as it lies in a store: lists, leaderboards and experiments by any of their ids."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc

from headrace.reading.criteria import Criteria, Several, matching
from headrace.reading.leaderboard import Leaderboard
from headrace.reading.silence import silent
from headrace_proto import names
from headrace_proto.errors import ExperimentNotFound, InvalidValue, ProjectNotFound
from headrace_proto.ids import derived_id, is_id, project_id
from headrace_proto.store import claims
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import Catalog, Rows, in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from headrace.reading.experiment import StoredExperiment
    from headrace_proto.store.backend import Store
    from headrace_proto.store.catalog import CatalogRow, Listing
    from headrace_proto.store.claims import ProjectRecord

_SHOWN_MATCHES: Final = 5


class StoredProject:
    """The experiments of `workspace/name` in a store.

    Lists come from the project's catalog, which trails the experiments' commits by about a second, and remember it: listing
    again reads only what is new. A project that the store does not have yet is empty.
    """

    def __init__(self, store: Store | str, name: str) -> None:
        self.store: Final = open_store(store, writable=False) if isinstance(store, str) else store
        self.name: Final = names.project_name(name)
        self.id: Final = project_id(name)
        self._catalog: Final = Catalog(self.store, name)
        self._all: tuple[Listing, Listing] | None = None  # of all experiments: in no order, and in order
        self._board: tuple[Listing, Leaderboard] | None = None  # for as long as nothing is new

    def __repr__(self) -> str:
        return f"StoredProject({self.name!r}, store={self.store.url!r})"

    def __iter__(self) -> Iterator[StoredExperiment]:
        return iter(self.get_experiments())

    def __len__(self) -> int:
        return len(self._catalog.listing())

    @property
    def record(self) -> ProjectRecord:
        """What the store knows of the project. Raises `ProjectNotFound` if it has none of this name."""
        record = claims.read_project(self.store, self.name)
        if record is None:
            there = ", ".join(claims.projects(self.store)) or "none"
            raise ProjectNotFound(f"no project {self.name!r} in the store {self.store.url!r}; there is: {there}")
        return record

    @property
    def key(self) -> str:
        """The project's key: `DIG` of `DIG-7`."""
        return self.record.key

    def get_members(self) -> list[str]:
        """Who has experiments here, sorted: the names that were given or found at creation. Nobody has verified them."""
        owners = pc.unique(self._catalog.listing().head["owner"]).to_pylist()
        return sorted(owner for owner in owners if owner)

    def get_experiments(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> list[StoredExperiment]:
        """The experiments that meet every criterion given, in the order of their numbers.

        `id` (short or internal), `state` and `owner` take one or several, of which any will do; of several `tag`s an experiment
        must have all. `min_running_time` is in seconds. Beside the four states, "not responding" is one to ask for: *running*, and
        of its node nothing was heard for a minute.
        """
        from headrace.reading.experiment import StoredExperiment

        listing = self._listed(Criteria(id, state, owner, tag, min_running_time))
        rows, each = Rows(listing), listing.head["experiment"].to_pylist()
        return [
            StoredExperiment(self.store, self.name, str(experiment), row=partial(rows.__getitem__, place))
            for place, experiment in enumerate(each)
        ]

    def get_leaderboard(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> pd.DataFrame:
        """The same experiments as a DataFrame, one row each.

        Columns: `id`, `name`, `created`, `finished`, `owner`, `notes`, `running_time` (seconds), `size` (bytes), `tags`, then
        `channel_<name>` with the last value (255 characters of a text), `parameter_<name>` and `property_<key>`.
        """
        listing = self._listed(Criteria(id, state, owner, tag, min_running_time))
        if self._all is None or listing is not self._all[1]:
            return Leaderboard(listing.table()).frame()
        if self._board is None or self._board[0] is not listing:
            self._board = (listing, Leaderboard(listing.table()))
        return self._board[1].frame()

    def rows(
        self,
        id: Several = None,
        state: Several = None,
        owner: Several = None,
        tag: Several = None,
        min_running_time: float | None = None,
    ) -> Rows:
        """The same experiments as the catalog has them; a row is made when it is asked for."""
        return Rows(self._listed(Criteria(id, state, owner, tag, min_running_time)))

    def _listed(self, criteria: Criteria) -> Listing:
        """The same experiments in columns, in the order of their numbers."""
        listing = self._catalog.listing()
        found = matching(listing.head, criteria, silent=partial(silent, listing.head, self.store))
        if found is not listing.head:
            return listing.of(in_order(found))
        if self._all is None or self._all[0] is not listing:
            self._all = (listing, listing.of(in_order(listing.head)))
        return self._all[1]

    def get_experiment(self, id: str) -> StoredExperiment:
        """The experiment with this id: `DIG-7`, its internal id, its `key`, or the beginning of an internal id that no other has.

        Raises `ExperimentNotFound` when there is none, or more than one.
        """
        from headrace.reading.experiment import StoredExperiment

        found = self.fitting(id)
        if len(found) == 1:
            return StoredExperiment(self.store, self.name, found[0].experiment, row=found[0])
        experiment = self.not_listed_yet(id) if not found else None
        if experiment is None:
            raise ExperimentNotFound(self._no_single(id, found))
        return experiment

    def not_listed_yet(self, wanted: str) -> StoredExperiment | None:
        """The experiment of this internal id, or key, that is committed and may not be in the catalog yet; without a look there."""
        from headrace.reading.experiment import StoredExperiment

        for meant in self.ids_of(wanted):
            with suppress(ExperimentNotFound):
                return StoredExperiment(self.store, self.name, meant)
        return None

    def ids_of(self, wanted: str) -> list[str]:
        """The internal ids that `wanted` may be of, without a look at the store: itself, or of the experiment with that `key`."""
        return [wanted] if is_id(wanted) else [derived_id(self.name, wanted)]

    def fitting(self, wanted: str) -> list[CatalogRow]:
        """The rows of experiments that `wanted` may mean: with this id, short or internal; or this key; or with an id so begun."""
        if not wanted:
            raise InvalidValue("an experiment's id is empty: give one such as 'DIG-7'")
        listing = self._catalog.listing()
        found = matching(listing.head, Criteria(id=wanted))
        if not found.num_rows:
            found = matching(listing.head, Criteria(id=self.ids_of(wanted)))
        if not found.num_rows:
            found = listing.head.filter(pc.starts_with(listing.head["experiment"], wanted))
        return self._catalog.rows(listing.of(in_order(found)))

    def _no_single(self, wanted: str, found: list[CatalogRow]) -> str:
        if not found:
            return f"no experiment {wanted!r} in the project {self.name!r} of the store {self.store.url!r}"
        shown = ", ".join(f"{row.id} ({row.experiment[: len(wanted) + 4]}...)" for row in found[:_SHOWN_MATCHES])
        return f"{wanted!r} fits {len(found)} experiments of {self.name!r}: {shown}; give more of the id"
