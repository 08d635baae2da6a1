"""From what people type to what lies in a store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from headrace.command.running import running
from headrace.command.stores import absolute_store
from headrace.reading import StoredProject
from headrace_proto.errors import ExperimentNotFound, UnknownStore
from headrace_proto.home import STORE_VARIABLE, Home, store_url
from headrace_proto.store.backend import Store, open_store
from headrace_proto.store.catalog import CatalogRow
from headrace_proto.store.claims import projects

if TYPE_CHECKING:
    from headrace.reading import StoredExperiment

_SHOWN: Final = 5


def open_for_reading(store: str | None, home: Home) -> Store:
    """The store that `--store` means; without it $HEADRACE_STORE, that of the running `headrace up`, or the home's folder."""
    named = bool(store or os.environ.get(STORE_VARIABLE))
    if not named and (there := running(home)) is not None:
        store = there.store
    opened = open_store(absolute_store(store_url(store, home)), writable=False)
    if named and opened.local and not os.path.isdir(opened.url):
        raise UnknownStore(
            f"there is no store at {opened.url!r}: no such folder; name the one that collectors write to"
        )
    return opened


def find_experiment(store: Store, wanted: str, project: str | None) -> StoredExperiment:
    """The experiment with this id (`DIG-7`, the internal id or the beginning of it) or key, in one project or in any.

    Raises `ExperimentNotFound` when there is none, or more than one, and `InvalidValue` for an empty one.
    """
    if project is not None:
        return StoredProject(store, project).get_experiment(wanted)
    from headrace.reading import StoredExperiment

    there = [StoredProject(store, name) for name in projects(store)]
    found = [(one, row) for one in there for row in one.fitting(wanted)]
    exact = [(one, row) for one, row in found if wanted == row.id or row.experiment in one.ids_of(wanted)]
    if len(exact or found) == 1:
        one, row = (exact or found)[0]
        return StoredExperiment(store, one.name, row.experiment, row=row)
    for one in there if not found else ():
        if (experiment := one.not_listed_yet(wanted)) is not None:
            return experiment
    raise ExperimentNotFound(_no_single(store, wanted, found))


def _no_single(store: Store, wanted: str, found: list[tuple[StoredProject, CatalogRow]]) -> str:
    if not found:
        return f"no experiment {wanted!r} in the store {store.url!r}: `headrace ls PROJECT` lists what there is"
    shown = ", ".join(f"{row.id} of {one.name} ({row.experiment[: len(wanted) + 4]}...)" for one, row in found[:_SHOWN])
    return f"{wanted!r} fits {len(found)} experiments: {shown}; give more of the id, or --project"
