"""One experiment's newest commit, and how to read its files while compaction replaces them.

A commit names files that never change, but a later commit may replace some, and these are removed some time later. A reader
that misses one has an old commit: it takes the newest and begins again. What is missing from the newest commit is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from headrace_proto.errors import ArtifactNotFound, Corrupt, ExperimentNotFound
from headrace_proto.store import layout
from headrace_proto.store.commits import Commit, Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace_proto.store.backend import Store
    from headrace_proto.store.commits import ArchivedFile
    from headrace_proto.store.documents import FileRecord

RELOADS_MAX: Final = 3
"""Times that a read begins again. A replaced file lives at least 15 minutes, so that even once is rare."""

_Result = TypeVar("_Result")


class Snapshot:
    """The newest commit of an experiment that this reader has seen."""

    def __init__(self, store: Store, project: str, experiment: str) -> None:
        self.store: Final = store
        self.folder: Final = layout.experiment_folder(project, experiment)
        self._commits: Final = layout.commits_folder(project, experiment)
        self._commit: Commit | None = None

    @property
    def known(self) -> Commit | None:
        """The commit last seen, if any was looked for."""
        return self._commit

    @property
    def commit(self) -> Commit:
        """The commit last seen; the newest, if none was looked for yet."""
        return self._commit or self.newest()

    def saw(self, commit: Commit) -> None:
        """Somebody else has read or made this commit: it is the one last seen, unless a newer one was."""
        if self._commit is None or self._commit.number < commit.number:
            self._commit = commit

    def newest(self) -> Commit:
        """Look for the newest commit: one listing, and one read if there is a newer one."""
        for _ in range(RELOADS_MAX):
            number = max(layout.commit_numbers(self.store.names(self._commits)), default=None)
            if number is None:
                raise ExperimentNotFound(f"the store {self.store.url!r} has no experiment at {self.folder!r}")
            if self._commit is not None and self._commit.number == number:
                return self._commit
            path = f"{self._commits}/{layout.digits(number)}.json"
            try:
                commit = Commit.decode(self.store.read(path), self.store.url_of(path))
            except FileNotFoundError:  # old commits are removed, and this one has grown old since the listing
                continue
            if commit.blank:
                raise ExperimentNotFound(
                    f"the store {self.store.url!r} has nothing of an experiment in {self.folder!r}"
                )
            self._commit = commit
            return commit
        raise Corrupt(f"the commits of {self.folder!r} are listed and cannot be read")

    def read(self, reading: Callable[[Commit], _Result]) -> _Result:
        """`reading` of the newest commit, begun again when a file that it names has been replaced meanwhile."""
        commit = self.newest()
        for _ in range(RELOADS_MAX):
            try:
                return reading(commit)
            except ArtifactNotFound:  # what was asked for is not there, and no other commit would be meant
                raise
            except FileNotFoundError as error:
                newer = self.newest()
                if newer is commit:
                    raise Corrupt(
                        f"commit {commit.number} of {self.folder!r} names a file that is missing: {error}"
                    ) from error
                commit = newer
        return reading(commit)

    def path(self, inside: str) -> str:
        """The path in the store of what a commit names from the experiment's folder."""
        return f"{self.folder}/{inside}"

    def artifacts(self, commit: Commit) -> dict[str, FileRecord]:
        """All artifacts, those that no longer fit the commit too, by path."""
        return _together(commit.document.artifacts, self._side(commit).artifacts)

    def source_files(self, commit: Commit) -> dict[str, FileRecord]:
        """All source files of the program, likewise."""
        return _together(commit.document.source_files, self._side(commit).source_files)

    def _side(self, commit: Commit) -> Side:
        if commit.side is None:
            return Side()
        path = self.path(commit.side)
        return Side.decode(self.store.read(path), self.store.url_of(path))


def _together(here: dict[str, FileRecord], aside: dict[str, ArchivedFile]) -> dict[str, FileRecord]:
    archived = {path: file.record for path, file in aside.items() if file.record is not None}
    return dict(sorted({**archived, **here}.items()))
