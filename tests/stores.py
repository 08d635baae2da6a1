"""What tests of several parts do with a stored experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace_proto.store.catalog import append_rows, row_of

if TYPE_CHECKING:
    from headrace_proto.store.chain import Chain
    from headrace_proto.store.commits import Commit


def head_of(chain: Chain) -> Commit:
    """The newest commit that a chain has read or made; an AssertionError if there is none."""
    assert chain.head is not None, f"{chain.folder} has no commit"
    return chain.head


def list_newest(chain: Chain) -> None:
    """Put a chain's newest commit into its project's catalog, as every writer does when it has committed."""
    append_rows(chain.store, chain.place.project, [row_of(head_of(chain))])
