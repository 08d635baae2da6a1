"""The retained commits of one experiment: each is what its name says, and no watermark ever goes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.store import layout
from headrace_proto.store.chain import Chain
from headrace_proto.store.commits import Commit, Side
from headrace_proto.store.documents import LostRange
from headrace_proto.store.inspection.findings import Finding, error, note
from headrace_proto.store.sweeping import first_of_chain

_RESTORE: Final = "restore it from a copy of the store; nothing can make up what it said"
_REPORT: Final = (
    "readers use the newest commit only; find out who wrote this, and whether the store was restored or copied"
)


def inspect_commits(chain: Chain, store_id: str | None, *, all_of_them: bool) -> Iterator[Finding]:
    """Look at the newest commit, or at all that are retained, oldest first. Two are held at a time."""
    folder = layout.commits_folder(*chain.place)
    numbers = [number for number in layout.commit_numbers(chain.store.names(folder)) if number <= chain.number]
    first = first_of_chain(numbers, chain.number)
    strangers = [number for number in numbers if number < first]
    if strangers:
        yield note(folder, f"{len(strangers)} commits lie below a hole: of a writer that slept, no reader sees them")
    steps = _Steps(chain, store_id)
    for number in numbers if all_of_them else [chain.number]:
        if number >= first:
            yield from steps.inspect(number)


class _Steps:
    """One commit after another, each beside its predecessor."""

    def __init__(self, chain: Chain, store_id: str | None) -> None:
        self._chain: Final = chain
        self._store_id: Final = store_id
        self._before: Commit | None = None
        self._positions: dict[str, int] = {}
        self._side: tuple[str | None, Side] = (None, Side())

    def inspect(self, number: int) -> Iterator[Finding]:
        path = layout.commit_file(*self._chain.place, number)
        try:
            commit = self._chain.read_commit(number)
            side = self._side_of(commit)
        except FileNotFoundError as gone:
            if number == self._chain.number:
                yield error(path, f"it names a side file that is missing: {gone}", _RESTORE)
            return  # an older one was swept meanwhile
        except (Corrupt, FormatUnknown) as bad:
            yield error(path, str(bad), _RESTORE)
            return
        yield from self._identity(path, commit)
        yield from self._watermarks(path, commit, side)
        self._before = commit

    def _side_of(self, commit: Commit) -> Side:
        if commit.side != self._side[0]:
            path = f"{self._chain.folder}/{commit.side}"
            self._side = (commit.side, Side.decode(self._chain.store.read(path), path) if commit.side else Side())
        return self._side[1]

    def _identity(self, path: str, commit: Commit) -> Iterator[Finding]:
        project, experiment = self._chain.place
        if layout.commit_file(project, experiment, commit.number) != path:
            yield error(path, f"it says that it is commit {commit.number}", _REPORT)
        if self._store_id is not None and commit.store != self._store_id:
            yield error(path, f"it was written for the store {commit.store[:8]}, this is {self._store_id[:8]}", _REPORT)
        told = (commit.document.project, commit.document.internal_id)
        if told != (project, experiment):
            yield error(path, f"it is of experiment {told[1]} of {told[0]}", _REPORT)
        if self._before and commit.sweep < self._before.sweep:
            yield error(path, f"its count of sweeps goes back from {self._before.sweep} to {commit.sweep}", _REPORT)
        if self._before and self._before.document.id not in ("", commit.document.id):
            yield error(path, f"its number goes from {self._before.document.id} to {commit.document.id}", _REPORT)

    def _watermarks(self, path: str, commit: Commit, side: Side) -> Iterator[Finding]:
        positions = {source: item.state.position for source, item in side.sources.items()}
        positions |= {source: state.position for source, state in commit.sources.items()}
        for source, before in self._positions.items():
            if positions.get(source, -1) < before:
                now = positions.get(source, "nothing")
                yield error(path, f"the watermark of {source} goes back from {before} to {now}", _REPORT)
        self._positions = positions
        records = {source: item.record for source, item in side.sources.items()} | commit.document.sources
        for source, record in records.items():
            if not _in_order(record.lost, positions.get(source, 0)):
                ranges = ", ".join(f"[{gap.first}, {gap.end})" for gap in record.lost)
                yield error(path, f"lost ranges of {source} are not apart below its watermark: {ranges}", _REPORT)


def _in_order(lost: Iterable[LostRange], position: int) -> bool:
    end = -1
    for gap in lost:
        if not end < gap.first < gap.end <= position:
            return False
        end = gap.end - 1  # ranges of different reasons may touch
    return True
