"""`headrace.init`: the way in."""

from __future__ import annotations

import os

from headrace.project import Project
from headrace_proto.home import Home, store_url


def init(
    name: str,
    home: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    direct: bool = False,
    *,
    author: str | None = None,
) -> Project:
    """Open the project `workspace/name`. Creates nothing and connects to nothing.

    Args:
        name: Two parts of letters, digits, '.', '_' and '-', for example "vision/digits".
        home: The folder for journals, shared with the node's agent; HEADRACE_HOME, or ~/.headrace, by default. On a local disk.
        store: Where experiments are read from: a folder or an fsspec URL; HEADRACE_STORE, or the home's own store, by default.
        direct: Store without an agent: `wait`, `save`, reads and `stop` bring what this process logged into the store themselves.
        author: Whose experiments are created, unless they say otherwise.

    Raises:
        InvalidName: `name` is not of that form.
        UnknownStore: with `direct`, `store` has a protocol that is not known. (Otherwise the first read says so.)
    """
    place = Home(home)
    url = store_url(os.fspath(store) if store is not None else None, place)
    if direct:
        from headrace.direct import check_store

        check_store(url)
    return Project(name, place, url, direct=direct, author=author)
