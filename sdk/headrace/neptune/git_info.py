"""What is said of a repository."""

from __future__ import annotations

from typing import Any

from headrace.git import GitInfo as Known


class GitInfo:
    """A repository at one moment, for `create_experiment(git_info=...)`. Raises `TypeError` without a commit."""

    def __init__(
        self,
        commit_id: str,
        message: str = "",
        author_name: str = "",
        author_email: str = "",
        commit_date: Any = "",
        repository_dirty: bool = True,
        active_branch: str = "",
        remote_urls: list[str] | None = None,
    ) -> None:
        if commit_id is None:
            raise TypeError("commit_id must not be None: leave git_info out where there is no repository")
        self.commit_id = commit_id
        self.message = message
        self.author_name = author_name
        self.author_email = author_email
        self.commit_date = commit_date
        self.repository_dirty = repository_dirty
        self.active_branch = active_branch
        self.remote_urls = list(remote_urls or [])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GitInfo) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.commit_id)

    def __repr__(self) -> str:
        return f"GitInfo({self.commit_id})"


def known(info: GitInfo) -> Known:
    """The same as Headrace keeps it: one remote, and no address of the author's."""
    date = info.commit_date
    return Known(
        commit=str(info.commit_id),
        branch=info.active_branch or None,
        remote=info.remote_urls[0] if info.remote_urls else None,
        dirty=bool(info.repository_dirty),
        message=info.message or None,
        author=info.author_name or None,
        date=(date.isoformat() if hasattr(date, "isoformat") else str(date)) or None,
    )
