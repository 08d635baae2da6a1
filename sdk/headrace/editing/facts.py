"""Edits of facts: parameters, properties, tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.definition import appended_tags
from headrace.editing.changes import Changes
from headrace.values import fixed_parameter, named, parameters, property_text
from headrace_proto import names
from headrace_proto.events import Kind
from headrace_proto.store.plain import unplain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class FactEdits(Changes):
    """The calls that change what is known of a stored experiment."""

    def log_parameter(self, name: str, value: Any) -> None:
        """Add a parameter; see `log_parameters`."""
        self.log_parameters({name: value})

    def log_parameters(self, params: Mapping[str, Any], flatten: str | None = None) -> None:
        """Add parameters, or change those that were added. Those given at creation are fixed.

        The arguments are those of the live experiment's. Raises `InvalidValue` when a fixed one would change.
        """
        given = parameters(named("parameter", params, flatten))
        commit = self._snapshot.commit  # the one last seen: what is fixed was so from the beginning
        new: dict[str, Any] = {}
        for name, value in given.items():
            stamp = commit.stamps.params.get(name)
            if stamp is None or not stamp.definition:
                new[name] = value
            elif (kept := unplain(commit.document.params.get(name))) != value:
                raise fixed_parameter(name, kept, value)
        if new:
            self._edit(Kind.PARAMETERS, new)

    def set_property(self, key: str, value: Any) -> None:
        """Set a property to the text of `value`."""
        self._edit(Kind.PROPERTY, names.key(key), property_text(str(key), value))

    def remove_property(self, key: str) -> None:
        """Remove a property. One that is not set is none the more there."""
        self._edit(Kind.PROPERTY, names.key(key), None)

    def append_tag(self, tag: str | Iterable[str], *tags: str) -> None:
        """Add tags: `append_tag("a")`, `append_tag("a", "b")` or `append_tag(["a", "b"])`, of letters, digits and '-'."""
        self._edit(Kind.TAGS, list(appended_tags(tag, tags)), [])

    def append_tags(self, tag: str | Iterable[str], *tags: str) -> None:
        """`append_tag`, as Neptune also calls it."""
        self.append_tag(tag, *tags)

    def remove_tag(self, tag: str) -> None:
        """Remove a tag. One that the experiment does not have is ignored."""
        self._edit(Kind.TAGS, [], [names.stored_tag(tag)])
