"""Files as a caller gives them: paths, folders, open files and buffers; and what may be done with a path in the experiment."""

from __future__ import annotations

import os
import stat
from io import BytesIO, StringIO, UnsupportedOperation

from headrace.spool import NO_ROOM
from headrace_proto import names
from headrace_proto.errors import ArtifactNotFound, InvalidName, InvalidValue
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any, BinaryIO, Final

    from headrace_proto.home import Home

_BLOCK: Final = 1024 * 1024
DEFAULT_MODE: Final = 0o644
"""Of what is logged from a buffer."""


def is_path(artifact: Any) -> bool:
    """Whether an artifact is given by its path. Raises `InvalidValue` unless it is that, or can be read."""
    if isinstance(artifact, str | os.PathLike):
        return True
    if hasattr(artifact, "read"):
        if getattr(artifact, "closed", False):
            raise _unreadable(artifact)
        return False
    raise InvalidValue(
        f"an artifact must be a path, an open file or a buffer, not {artifact!r:.80} of type {type(artifact).__name__}"
    )


def named_stream(destination: Any) -> str:
    """The path in the experiment of an open file or a buffer, which has no name of its own."""
    if destination is None:
        raise InvalidName("an open file or a buffer needs a destination: log_artifact(buffer, 'model.bin')")
    return names.artifact_path(destination)


def blocks_of(artifact: Any) -> Iterator[bytes]:
    """What an open file holds from where it stands, or a buffer, wherever it stands."""
    if isinstance(artifact, StringIO | BytesIO):
        artifact = type(artifact)(artifact.getvalue())  # type: ignore[arg-type] # whole, wherever it stands
    while block := _read(artifact):
        if isinstance(block, str):
            yield block.encode("utf-8", "surrogateescape")
        elif isinstance(block, bytes | bytearray | memoryview):
            yield bytes(block)
        else:
            raise InvalidValue(f"reading the artifact gave {block!r:.80}, which is neither bytes nor str")


def _read(artifact: Any) -> Any:
    try:
        return artifact.read(_BLOCK)
    except UnsupportedOperation as error:  # it was opened for writing; any other failure is the caller's
        raise _unreadable(artifact) from error


def _unreadable(artifact: Any) -> InvalidValue:
    return InvalidValue(f"{artifact!r:.80} cannot be read: open it for reading, or log it by its path")


def files_of(
    path: str,
    destination: str | None,
    homes: Collection[Home],
    store: str,
    cannot_list: Callable[[OSError], None],
) -> Iterator[tuple[str, str]]:
    """The files that `path` means, each with its checked name in the experiment. Nothing of a folder's that is one of `homes`, or
    the `store`: what is stored there would be stored in it again, each time.
    """
    name = destination if destination is not None else os.path.basename(os.path.abspath(path))
    if not os.path.isdir(path):
        yield path, names.artifact_path(name)
        return
    root = os.path.realpath(path)
    ours = {os.path.realpath(folder) for home in homes for folder in (home.named, home.root, home.journals)}
    ours.add(os.path.realpath(store))
    for folder, folders, files in os.walk(root, onerror=cannot_list):
        folders[:] = sorted(one for one in folders if os.path.join(folder, one) not in ours)
        for one in sorted(files):
            file = os.path.join(folder, one)
            if _is_kept(file, root):
                relative = os.path.relpath(file, root).replace(os.sep, "/")
                yield file, names.artifact_path(f"{name.rstrip('/')}/{relative}")


def warn_unlisted(error: OSError) -> None:
    """Say that a folder of an artifact cannot be listed."""
    warn(f"the folder {error.filename!r} cannot be listed ({error.strerror}): nothing in it was logged")


def _is_kept(file: str, root: str) -> bool:
    """Whether a folder's entry is kept: plain files, and links to such inside the folder."""
    target = os.path.realpath(file)
    if not os.path.isfile(target):
        return False
    if target != file and not target.startswith(root + os.sep):
        warn(f"{file!r} is a link that leads out of the folder and was not logged: log {target!r} itself")
        return False
    return True


def opened(path: str, homes: Collection[Home]) -> BinaryIO:
    """The plain file at `path`, open for reading.

    Raises `ArtifactNotFound`, `InvalidValue` for what cannot be read, and `OSError` when the machine lacks something (`NO_ROOM`).
    """
    real = os.path.realpath(path)
    if any(real.startswith(os.path.realpath(home.journals) + os.sep) for home in homes):
        # To open and close the lock that says "this process lives" would free it, and the agent would take us for dead.
        raise InvalidValue(f"{path!r} is part of a journal, which is stored as it is written: log another file")
    try:
        file = open(path, "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError:
        raise ArtifactNotFound(f"no file at {path!r}: check the path, relative to {os.getcwd()!r}") from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise InvalidValue(f"{path!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidValue(f"{path!r} is no plain file: log what it holds through a file of your own")
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would have us wait for whoever writes to it


def file_facts(file: BinaryIO, kind: str) -> dict[str, Any]:
    """What an event says of an open file besides its content."""
    about = os.fstat(file.fileno())
    return {"mode": stat.S_IMODE(about.st_mode), "mtime_ns": about.st_mtime_ns, "kind": kind}


def deletable(path: Any) -> list[str]:
    """The checked paths that `delete_artifacts` is given: one or several."""
    if not isinstance(path, str) and not hasattr(path, "__iter__"):
        raise InvalidValue(f"the path to delete must be a str or several, not {path!r:.80}")
    paths: list[Any] = [path] if isinstance(path, str) else list(path)
    return [names.artifact_path(one.rstrip("/") if isinstance(one, str) else one) for one in paths]


def is_below(path: str, name: str) -> bool:
    """Whether the artifact `path` is `name`, or lies in that folder."""
    return path == name or path.startswith(f"{name}/")
