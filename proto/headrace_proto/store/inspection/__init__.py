"""Inspection of a whole store: every commit, part, file, row and claim held against the others, one experiment at a time.

What it puts right (`Options.repair`) is what can be written from the commits, which are the truth: rows of the catalog,
`experiment.json`, FORMAT.md; and it removes old leftovers. It invents nothing: a part or file that is missing stays an error. All
of it is safe while collectors, mergers and sweepers work. What it removes of an experiment, it removes by a sweeper's rules; files
without a name after RETENTION_S; and a catalog file that cannot be read, whose rows it writes anew, at once.

Memory: one experiment a thread, two of its commits at a time, one block of a part; and an entry an experiment of the project for
its catalog.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from headrace_proto.ids import is_id
from headrace_proto.store import claims, layout
from headrace_proto.store.backend import Store
from headrace_proto.store.inspection.experiment import Inspected, inspect_experiment
from headrace_proto.store.inspection.findings import Depth, Finding, Options, Severity, note
from headrace_proto.store.inspection.project import CatalogCheck, inspect_record
from headrace_proto.store.inspection.root import inspect_identity, inspect_root

__all__ = ["Depth", "Finding", "Options", "Severity", "inspect"]

Progress = Callable[[str, int, int], None]
"""Called with a project, its experiments looked at, and all of them."""


def inspect(store: Store, options: Options, progress: Progress | None = None) -> Iterator[Finding]:
    """Everything that is to be said of a store. Raises `OSError` when the store itself fails."""
    identity, findings = inspect_identity(store)
    yield from findings
    yield from inspect_root(store, options)
    with ThreadPoolExecutor(max(options.threads, 1), "headrace-fsck") as pool:
        for project in _projects(store):
            yield from _inspect_project(store, project, identity, options, pool, progress or _quiet)


def _quiet(project: str, done: int, total: int) -> None:
    """Nobody watches."""


def _projects(store: Store) -> list[str]:
    """Those with a record, and those that only look like one: folders with experiments."""
    return [
        name
        for name in claims.project_folders(store)
        if store.size(layout.project_file(name)) is not None or store.names(layout.experiments_folder(name))
    ]


def _inspect_project(
    store: Store, project: str, identity: str | None, options: Options, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[Finding]:
    yield from inspect_record(store, project)
    catalog = CatalogCheck(store, project, options)
    yield from catalog.begin()
    folder = layout.experiments_folder(project)
    names = store.names(folder)
    experiments = [name for name in names if is_id(name)]
    for name in set(names) - set(experiments):
        yield note(f"{folder}/{name}", "it is no experiment's folder", "nothing of ours: move it elsewhere")

    def look(experiment: str) -> Inspected:
        return inspect_experiment(store, project, experiment, identity, options)

    for done, found in enumerate(_in_order(pool, look, experiments, 2 * max(options.threads, 1))):
        progress(project, done, len(experiments))
        yield from found.findings
        yield from catalog.compare(found)
    progress(project, len(experiments), len(experiments))
    yield from catalog.end(set(experiments))


def _in_order(
    pool: ThreadPoolExecutor, look: Callable[[str], Inspected], experiments: Iterable[str], ahead: int
) -> Iterator[Inspected]:
    """What `look` finds, in order; at most `ahead` results wait for whoever reads them."""
    waiting: deque[Future[Inspected]] = deque()
    for experiment in experiments:
        waiting.append(pool.submit(look, experiment))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
