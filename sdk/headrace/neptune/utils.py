"""What the old client's `utils` offered to scripts."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

from headrace import git
from headrace.neptune.git_info import GitInfo

_GIT_WAIT_S: Final = 10.0
_GIT_LOOK_S: Final = 0.01


def get_git_info(repo_path: str | None = None) -> GitInfo | None:
    """What is known of the repository that `repo_path` (the working folder) lies in; None where there is none.

    Branch, commit and remote are read from `.git`. For the rest git itself is asked, for at most 10 s: where it does not answer,
    the tree counts as dirty, as in a `GitInfo` that says nothing of it.
    """
    found = git.find_repository(repo_path or os.getcwd())
    info = git.read_repository(found[1]) if found else None
    if found is None or info is None or info.commit is None:
        return None
    answer = _asked(found[0])
    clean = git.clean(info._replace(**answer))
    return GitInfo(
        commit_id=info.commit,
        message=clean.message or "",
        author_name=clean.author or "",
        commit_date=clean.date or "",
        repository_dirty=clean.dirty is not False,
        active_branch=clean.branch or "Detached HEAD",
        remote_urls=[clean.remote] if clean.remote else [],
    )


def _asked(tree: str) -> dict[str, Any]:
    try:
        inquiry = git.Inquiry(tree)
    except OSError:
        return {}
    deadline = time.monotonic() + _GIT_WAIT_S
    try:
        while (answer := inquiry.answer()) is None and time.monotonic() < deadline:
            time.sleep(_GIT_LOOK_S)
        return answer or {}
    finally:
        inquiry.close()


def discover_git_repo_location() -> str | None:
    """The folder of the script that runs; None where none does."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return os.path.dirname(os.path.abspath(file)) if file else None
