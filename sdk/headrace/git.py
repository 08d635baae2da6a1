"""What a repository says of the code that runs, read from `.git` by hand: no git is needed, no process is waited for.

Branch, commit and remote are a few small files. Whether the tree is dirty, and who wrote the commit, only git itself can say
quickly: `Inquiry` starts one that runs on its own, at low priority, and is asked for its answer when the experiment ends.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one file under `.git`: `packed-refs` of very large repositories; anything larger is not read."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_USERINFO: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/]*@")
_SECTION: Final = re.compile(r'\[remote "(.+)"\]')


class GitInfo(Record):
    """A repository at one moment. What is not known is None."""

    commit: str | None = None
    branch: str | None = None  # None when HEAD is detached
    remote: str | None = None  # of "origin", or of the only remote; never with a user or password in it
    dirty: bool | None = None  # untracked files count
    message: str | None = None
    author: str | None = None
    date: str | None = None  # of the commit, ISO 8601


def find_repository(start: str) -> tuple[str, str] | None:
    """The working tree that `start` lies in and its git folder, or None."""
    folder = os.path.abspath(start)
    while True:
        candidate = os.path.join(folder, ".git")
        if os.path.isdir(candidate):
            return folder, candidate
        if os.path.isfile(candidate):  # a worktree or a submodule: a file that names the folder
            named = _read(candidate).removeprefix("gitdir:").strip()
            return folder, os.path.normpath(os.path.join(folder, named))
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def read_repository(git_folder: str) -> GitInfo | None:
    """What the files of a git folder say, or None when they say nothing."""
    head = _read(os.path.join(git_folder, "HEAD")).strip()
    common = os.path.normpath(os.path.join(git_folder, _read(os.path.join(git_folder, "commondir")).strip() or "."))
    reference = head.removeprefix("ref:").strip() if head.startswith("ref:") else None
    commit = _resolve(git_folder, common, reference) if reference else head
    if not head or (not reference and not _COMMIT.fullmatch(head)):
        return None
    return GitInfo(
        commit=commit or None,  # none before the first commit
        branch=reference.removeprefix("refs/heads/") if reference else None,
        remote=_remote(_read(os.path.join(common, "config"))),
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_FILE_BYTES_MAX)
    except OSError:
        return ""


def _resolve(git_folder: str, common: str, reference: str) -> str:
    if ".." in reference.split("/"):
        return ""
    for folder in (git_folder, common):
        commit = _read(os.path.join(folder, *reference.split("/"))).strip()
        if _COMMIT.fullmatch(commit):
            return commit
    for line in _read(os.path.join(common, "packed-refs")).splitlines():
        commit, _, name = line.partition(" ")
        if name == reference and _COMMIT.fullmatch(commit):
            return commit
    return ""


def _remote(config: str) -> str | None:
    urls: dict[str, str] = {}
    section = None
    for line in config.splitlines():
        text = line.strip()
        if text.startswith("["):
            match = _SECTION.fullmatch(text)
            section = match[1] if match else None
        elif section and text.replace(" ", "").startswith("url="):
            urls.setdefault(section, text.partition("=")[2].strip().strip('"'))
    chosen = urls.get("origin") or (next(iter(urls.values())) if len(urls) == 1 else None)
    return without_userinfo(chosen) if chosen else None


def without_userinfo(url: str) -> str:
    """`url` without the user and password that it may hold.

    >>> without_userinfo("https://me:secret@example.org/a.git")
    'https://example.org/a.git'
    >>> without_userinfo("git@example.org:a.git")
    'git@example.org:a.git'
    """
    return _USERINFO.sub(r"\1", url)


_SCRIPT: Final = (
    '(if changes=$(nice git -C "$0" --no-optional-locks status --porcelain); then '
    'git -C "$0" log -1 --format=%an%x09%cI%x09%s; test -z "$changes" && echo clean || echo dirty; fi; echo .) &'
)
"""Prints author, date and subject of the commit if there is one, 'clean' or 'dirty', and a dot that says 'complete'."""


def look(given: GitInfo | None) -> tuple[GitInfo, Inquiry | None]:
    """What is given, else what lies above the script that runs, or else above the current folder, with a question to git about the
    rest. Never fails.
    """
    if given is not None:
        return clean(given), None
    script = sys.argv[0] if sys.argv else ""
    try:
        above = find_repository(os.path.dirname(os.path.abspath(script))) if os.path.isfile(script) else None
        found = above or find_repository(os.getcwd())  # a command of an installed package lies in no repository
    except OSError:  # the current folder was deleted
        found = None
    info = read_repository(found[1]) if found else None
    if found is None or info is None:
        return GitInfo(), None
    try:
        return clean(info), Inquiry(found[0])
    except OSError:  # no shell, no room for a process: then nobody says whether the tree is dirty
        return clean(info), None


def clean(info: GitInfo) -> GitInfo:
    """`info` without the remote's userinfo, and without secrets."""
    from headrace.secrets import masked_text

    def kept(text: str | None) -> str | None:
        return text and masked_text(text)

    return info._replace(
        remote=kept(info.remote and without_userinfo(info.remote)), message=kept(info.message), author=kept(info.author)
    )


class Inquiry:
    """A question to git that nobody waits for.

    The shell that starts git returns at once, so git is no child of the trainer: it cannot surprise a trainer that waits for
    its own children, and may outlive it. The answer comes in an anonymous file in memory.
    """

    def __init__(self, tree: str) -> None:
        """Raises `OSError` when no process can be made."""
        self._answer: int | None = os.memfd_create("headrace-git", os.MFD_CLOEXEC)
        actions: list[Any] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self._answer, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            shell = os.posix_spawn("/bin/sh", ["sh", "-c", _SCRIPT, tree], environment, file_actions=actions)
            with suppress(ChildProcessError):  # a program that ignores SIGCHLD has no children to wait for
                os.waitpid(shell, 0)
        except OSError:
            self.close()
            raise

    def answer(self) -> dict[str, Any] | None:
        """What git has said: `dirty` and, if there is a commit, `author`, `date`, `message`; {} when it could say nothing.

        None as long as it works on it.
        """
        if self._answer is None:
            return None
        try:
            said = os.pread(self._answer, _FILE_BYTES_MAX, 0)
        except OSError:  # the program has closed descriptors that are not its own, as daemons do
            self._answer = None
            return None
        *lines, end = said.decode("utf-8", "replace").splitlines() or [""]
        if end != ".":
            return None
        known: dict[str, Any] = {}
        if lines:
            known["dirty"] = lines[-1] == "dirty"
        if len(lines) > 1:
            author, date, message = (*lines[0].split("\t", 2), "", "")[:3]
            said_of = clean(GitInfo(author=author, date=date, message=message))
            known |= {"author": said_of.author, "date": said_of.date, "message": said_of.message}
        return known

    def close(self) -> None:
        """Ask no more."""
        answer, self._answer = self._answer, None
        if answer is not None:
            with suppress(OSError):  # as above
                os.close(answer)
