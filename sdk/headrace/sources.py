"""Which files are the source code of a run, by the rules of Neptune's `upload_source_files`.

None means the script that runs, under its own name; in a notebook whose path is known, the notebook. Otherwise names and
patterns (`**` looks into folders, a folder means all that is in it); what they match is kept relative to its common folder, or,
when that lies below the current folder, relative to the current folder.
"""

from __future__ import annotations

import os
import sys

from headrace.capture.notebook import in_notebook
from headrace_proto.errors import ArtifactNotFound, InvalidValue
from headrace_proto.limits import MIB, SOURCES_BYTES_TOLD
from headrace_proto.record import Record
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any, Final, TypeAlias

    Patterns: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None


class SourceFile(Record):
    """A file to keep, and what it is called in the experiment."""

    path: str
    name: str


def entry_point() -> str | None:
    """The script that runs; None in a notebook, an interactive session, or under `python -c`."""
    path = sys.argv[0] if sys.argv else ""
    return path if path and os.path.isfile(path) and not in_notebook() else None


def source_files(patterns: Patterns, ours: Collection[str], notebook: str | None = None) -> list[SourceFile]:
    """The files that `patterns` mean, sorted by name. Nothing of the folders `ours` is ever among them.

    `notebook` is where the notebook lies that the process runs, if it is one that says so.

    Raises `ArtifactNotFound` for a name, not a pattern, of a file that does not exist, `InvalidValue` for what is neither.
    """
    if patterns is None:
        script = entry_point() or (notebook if notebook and os.path.isfile(notebook) else None)
        return [SourceFile(script, os.path.basename(script))] if script else []
    wanted = _wanted(patterns)
    paths = sorted({os.path.abspath(path) for pattern in wanted for path in _matches(pattern)})
    kept = [path for path in paths if not any(path.startswith(folder + os.sep) for folder in ours)]
    root = _common_folder(kept)
    return [SourceFile(path, os.path.relpath(path, root).replace(os.sep, "/")) for path in kept]


def _wanted(patterns: Any) -> list[str]:
    given = [patterns] if isinstance(patterns, str | os.PathLike) else patterns
    if not isinstance(given, str | bytes | dict) and hasattr(given, "__iter__"):
        wanted = list(given)
        if all(isinstance(one, str | os.PathLike) for one in wanted):
            return [os.fspath(one) for one in wanted]
    raise InvalidValue(
        f"upload_source_files must be a name or pattern of files, or a list of such, not {patterns!r:.80}"
    )


def _matches(pattern: str) -> Iterable[str]:
    from glob import glob, has_magic

    matches = glob(os.path.expanduser(pattern), recursive=True)
    if not matches and not has_magic(pattern):  # a pattern may match nothing; a name means a file
        raise ArtifactNotFound(
            f"source file {pattern!r} does not exist below {os.getcwd()!r}: name one that does, or a pattern"
        )
    for match in matches:
        if os.path.isfile(match):
            yield match
        for folder, _, files in os.walk(match):  # nothing when it is a file
            yield from (path for name in files if os.path.isfile(path := os.path.join(folder, name)))


def _common_folder(paths: list[str]) -> str:
    here = os.getcwd()
    if not paths:
        return here
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return here if common == here or common.startswith(here + os.sep) else common


class Keeping:
    """Source files on their way into the spool. More than SOURCES_BYTES_TOLD are told of: a pattern may have caught a data set."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._sizes: Final = {file.path: _size(file.path) for file in files}
        self._total: Final = sum(self._sizes.values())
        self._kept = self._told = 0
        if self._total > SOURCES_BYTES_TOLD:
            warn(
                f"upload_source_files means {len(files)} files of {self._total / MIB:,.0f} MB, all of which are kept: if that is "
                "not wanted, name fewer, or [] for none"
            )

    def kept(self, file: SourceFile) -> None:
        """A file is held."""
        self._kept += self._sizes[file.path]
        if SOURCES_BYTES_TOLD <= self._kept - self._told < self._total - self._told:
            self._told = self._kept
            warn(f"{self._kept / MIB:,.0f} of {self._total / MIB:,.0f} MB of source files are kept")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # gone since it was listed: to keep it says so
        return 0
