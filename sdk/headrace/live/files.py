"""Files: artifacts, and the sources of a run. Their bytes are held before a call returns."""

from __future__ import annotations

import os
import stat
from io import BytesIO, StringIO
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from headrace.live.handle import Handle, reported
from headrace.live.stamps import stamp_ns
from headrace.spool import NO_ROOM, SpoolFull
from headrace_proto import names
from headrace_proto.errors import ArtifactNotFound, InvalidName, InvalidValue, StaleRead
from headrace_proto.events import Kind
from headrace_proto.warning import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace.spool import Kept
    from headrace_proto.home import Home

_BLOCK: Final = 1024 * 1024
_DEFAULT_MODE: Final = 0o644


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
        if isinstance(artifact, str | os.PathLike):
            path = os.fspath(artifact)
            for file, name in _found(path, destination, self.origin.home, self._cannot_list):
                self._keep_path(file, name, "artifact")
        elif hasattr(artifact, "read"):
            if destination is None:
                raise InvalidName("an open file or a buffer needs a destination: log_artifact(buffer, 'model.bin')")
            name = names.artifact_path(destination)
            facts = {"mode": _DEFAULT_MODE, "mtime_ns": time_ns(), "kind": "artifact"}
            self._log_file(name, facts, lambda source: self._spool.keep_stream(source, _read(artifact)))
        else:
            raise InvalidValue(
                f"an artifact must be a path, an open file or a buffer, not {artifact!r:.80} of type {type(artifact).__name__}"
            )

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
        journals = os.path.realpath(self.origin.home.journals)
        if os.path.realpath(path).startswith(journals + os.sep):
            # To open and close the lock that says "this process lives" would free it, and the agent would take us for dead.
            raise InvalidValue(f"{path!r} is part of a journal, which is stored as it is written: log another file")
        try:
            file = open(path, "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise ArtifactNotFound(f"no file at {path!r}: check the path, relative to {os.getcwd()!r}") from None
        except OSError as error:
            if error.errno in NO_ROOM:
                self._writer.lose(1, error.strerror or str(error))
                return
            raise InvalidValue(f"{path!r} cannot be read: {error.strerror}") from error
        with file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise InvalidValue(f"{path!r} is no plain file: log what it holds through a file of your own")
            facts = {"mode": stat.S_IMODE(about.st_mode), "mtime_ns": about.st_mtime_ns, "kind": kind}
            self._log_file(name, facts, lambda source: self._spool.keep_file(source, file, path))

    def _cannot_list(self, error: OSError) -> None:
        """A folder of an artifact cannot be listed: what is in it counts as one that was dropped."""
        self._writer.lose(1, error.strerror or str(error))
        warn(f"the folder {error.filename!r} cannot be listed ({error.strerror}): nothing in it was logged")

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


def deletable(path: Any) -> list[str]:
    """The checked paths that `delete_artifacts` is given: one or several."""
    if not isinstance(path, str) and not hasattr(path, "__iter__"):
        raise InvalidValue(f"the path to delete must be a str or several, not {path!r:.80}")
    paths: list[Any] = [path] if isinstance(path, str) else list(path)
    return [names.artifact_path(one.rstrip("/") if isinstance(one, str) else one) for one in paths]


def is_below(path: str, name: str) -> bool:
    """Whether the artifact `path` is `name`, or lies in that folder."""
    return path == name or path.startswith(f"{name}/")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would have us wait for whoever writes to it


def _read(artifact: Any) -> Iterator[bytes]:
    if isinstance(artifact, StringIO | BytesIO):
        artifact = type(artifact)(artifact.getvalue())  # type: ignore[arg-type] # whole, wherever it stands
    while block := artifact.read(_BLOCK):
        if isinstance(block, str):
            yield block.encode("utf-8", "surrogateescape")
        elif isinstance(block, bytes | bytearray | memoryview):
            yield bytes(block)
        else:
            raise InvalidValue(f"reading the artifact gave {block!r:.80}, which is neither bytes nor str")


def _found(
    path: str, destination: str | None, home: Home, cannot_list: Callable[[OSError], None]
) -> Iterator[tuple[str, str]]:
    """The files that `path` means, each with its checked name in the experiment."""
    name = destination if destination is not None else os.path.basename(os.path.abspath(path))
    if not os.path.isdir(path):
        yield path, names.artifact_path(name)
        return
    root = os.path.realpath(path)
    ours = {os.path.realpath(home.named), os.path.realpath(home.root), os.path.realpath(home.journals)}
    for folder, folders, files in os.walk(root, onerror=cannot_list):
        folders[:] = sorted(one for one in folders if os.path.join(folder, one) not in ours)
        for one in sorted(files):
            file = os.path.join(folder, one)
            if _is_kept(file, root):
                relative = os.path.relpath(file, root).replace(os.sep, "/")
                yield file, names.artifact_path(f"{name.rstrip('/')}/{relative}")


def _is_kept(file: str, root: str) -> bool:
    """Whether a folder's entry is kept: plain files, and links to such inside the folder."""
    target = os.path.realpath(file)
    if not os.path.isfile(target):
        return False
    if target != file and not target.startswith(root + os.sep):
        warn(f"{file!r} is a link that leads out of the folder and was not logged: log {target!r} itself")
        return False
    return True
