"""Files: artifacts, and the sources of a run. Their bytes are held before a call returns."""

from __future__ import annotations

import os
from time import time_ns

from headrace.given import (
    DEFAULT_MODE,
    blocks_of,
    deletable,
    file_facts,
    files_of,
    is_below,
    is_path,
    named_stream,
    opened,
    warn_unlisted,
)
from headrace.live.handle import Handle, reported
from headrace.live.stamps import stamp_ns
from headrace.spool import NO_ROOM, SpoolFull
from headrace_proto.errors import StaleRead
from headrace_proto.events import Kind
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from headrace.spool import Kept


class Files(Handle):
    """The calls that log files."""

    @reported
    def log_artifact(self, artifact: Any, destination: str | None = None) -> None:
        """Keep a file, all files of a folder, or what an open file or a buffer holds.

        When the call returns the content is safe: rewriting or deleting the file afterwards changes nothing. (Above
        HEADRACE_COPY_MAX, 1 GiB, a file is hard-linked instead of copied where the file system cannot clone it, and a warning says
        so: replace such a file, do not rewrite it in place, until `wait("stored")`.)

        Args:
            artifact: A path; or an object with `read()`, which is read from where it stands (a BytesIO or StringIO whole).
            destination: Its path in the experiment, with '/'; by default the name of the file or folder.

        Raises:
            ArtifactNotFound: there is no such file.
            InvalidName: the destination is missing for an open file, or leads out of the experiment.
            InvalidValue: it is no file, folder or readable object.
        """
        if is_path(artifact):
            ours = [self.origin.home], self.origin.store
            for file, name in files_of(os.fspath(artifact), destination, *ours, self._cannot_list):
                self._keep_path(file, name, "artifact")
            return
        name = named_stream(destination)
        facts = {"mode": DEFAULT_MODE, "mtime_ns": time_ns(), "kind": "artifact"}
        self._log_file(name, facts, lambda source: self._spool.keep_stream(source, blocks_of(artifact)))

    def send_artifact(self, artifact: Any, destination: str | None = None) -> None:
        """`log_artifact`, as Neptune also called it."""
        self.log_artifact(artifact, destination)

    @reported
    def delete_artifacts(self, path: str | Iterable[str]) -> None:
        """Delete artifacts, by whichever process they were logged.

        Args:
            path: One or several paths in the experiment, of files and folders. Never all of them: "" is what a variable holds that
                was forgotten.

        Raises:
            ArtifactNotFound: neither this process nor the store knows anything of that path. Only for one of which this process
                has logged nothing is the store asked, as a read asks it; where that cannot tell, the deletion is logged, with a
                warning.
            InvalidName: the path leads out of the experiment, or is that of all artifacts.
        """
        deleted: dict[str, None] = {}
        for name in deletable(path):
            known = [one for one in tuple(self._known.artifacts) if is_below(one, name)]
            deleted.update(dict.fromkeys([name, *(known or self._require_artifacts(name))]))
        self._event(Kind.UNLINK, list(deleted))
        for name in deleted:
            self._known.artifacts.pop(name, None)

    def _require_artifacts(self, name: str) -> Iterable[str]:
        """What the store has at or below a path. Raises `ArtifactNotFound` if it says that there is nothing."""
        settled = self._settled()
        if settled is None:
            warn(f"whether there is an artifact {name!r} is not known here: it is deleted if there is", StaleRead)
            return ()
        return settled.artifacts_below(name)

    def _keep_path(self, path: str, name: str, kind: str) -> None:
        """Log the file at `path`, whose name in the experiment is checked."""
        try:
            file = opened(path, [self.origin.home])
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._writer.lose(1, error.strerror or str(error))
            return
        with file:
            self._log_file(name, file_facts(file, kind), lambda source: self._spool.keep_file(source, file, path))

    def _cannot_list(self, error: OSError) -> None:
        """A folder of an artifact cannot be listed: what is in it counts as one that was dropped."""
        self._writer.lose(1, error.strerror or str(error))
        warn_unlisted(error)

    def _log_file(self, name: str, facts: dict[str, Any], keep: Callable[[str], Kept]) -> None:
        target = self._writer.here()
        try:
            if target is None:
                raise SpoolFull("interrupted")
            kept = keep(target.source)
        except SpoolFull as full:
            self._writer.lose(1, str(full))
            return
        except OSError as error:  # of what is read
            if error.errno not in NO_ROOM:
                raise
            self._writer.lose(1, error.strerror or str(error))
            return
        if not kept.copied:
            warn(
                f"{name!r} is too large to copy (HEADRACE_COPY_MAX) and was hard-linked: until wait('stored') replace the file "
                "if need be, but do not rewrite it in place"
            )
        target.event(Kind.ARTIFACT, stamp_ns(), name, kept.payload, {**facts, "copied": kept.copied})
        if facts["kind"] == "artifact":
            self._known.artifacts[name] = None
