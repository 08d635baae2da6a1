"""Facts: parameters, properties, tags. Answered from memory, at once."""

from __future__ import annotations

from headrace.definition import appended_tags
from headrace.live.handle import Handle, reported
from headrace.values import fixed_parameter, named, parameters, property_text
from headrace_proto import names
from headrace_proto.events import Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class Facts(Handle):
    """The calls that change what is known of an experiment, and those that ask for it."""

    @property
    def name(self) -> str:
        """The experiment's name, as far as this process knows it."""
        return self._known.name

    @property
    def params(self) -> dict[str, Any]:
        """The parameters: those given at creation, and those that this process has added."""
        return {**self._known.fixed, **self._known.added}

    @property
    def properties(self) -> dict[str, str]:
        """The properties."""
        return dict(self._known.properties)

    @property
    def tags(self) -> list[str]:
        """The tags, in the order in which they came."""
        return list(self._known.tags)

    @property
    def metrics(self) -> dict[str, float]:
        """The value that this process logged last, of each numeric channel."""
        return self._writer.latest()

    def get_parameters(self) -> dict[str, Any]:
        """`params`, as Neptune asks for them."""
        return self.params

    def get_properties(self) -> dict[str, str]:
        """`properties`, as Neptune asks for them."""
        return self.properties

    def get_tags(self) -> list[str]:
        """`tags`, as Neptune asks for them."""
        return self.tags

    def get_logs(self) -> dict[str, float | str | None]:
        """Each channel that this process has logged to, with its last value: a number, the beginning of a text, None for images.

        After a `refresh()` those of other processes too, as they were then.
        """
        return {**self._known.elsewhere, **self._writer.latest(), **self._known.others}

    def get_channels(self) -> dict[str, float | str | None]:
        """`get_logs`, as Neptune also called it."""
        return self.get_logs()

    def log_parameter(self, name: str, value: Any) -> None:
        """Add a parameter; see `log_parameters`."""
        self.log_parameters({name: value})

    @reported
    def log_parameters(self, params: Mapping[str, Any], flatten: str | None = None) -> None:
        """Add parameters. One given at creation is fixed: giving it again with the same value does nothing.

        Args:
            params: Names and values: numbers, texts, lists and mappings of them. Anything else is kept as its text.
            flatten: Between the names of nested parameters: with "/", `{"adam": {"lr": 1}}` adds `adam/lr`.

        Raises:
            InvalidValue: a parameter of the experiment's creation would change.
        """
        given = parameters(named("parameter", params, flatten))
        for name, value in given.items():
            if name in self._known.fixed and self._known.fixed[name] != value:
                raise fixed_parameter(name, self._known.fixed[name], value)
        new = {name: value for name, value in given.items() if name not in self._known.fixed}
        for name, value in new.items():
            self._event(Kind.PARAMETERS, {name: value})
            self._known.added[name] = value

    @reported
    def set_property(self, key: str, value: Any) -> None:
        """Set a property to the text of `value`."""
        name, text = names.key(key), property_text(str(key), value)
        self._event(Kind.PROPERTY, name, text)
        self._known.properties[name] = text

    @reported
    def remove_property(self, key: str) -> None:
        """Remove a property. One that is not set is none the more there."""
        self._event(Kind.PROPERTY, names.key(key), None)
        self._known.properties.pop(key, None)

    @reported
    def append_tag(self, tag: str | Iterable[str], *tags: str) -> None:
        """Add tags: `append_tag("a")`, `append_tag("a", "b")` or `append_tag(["a", "b"])`, of letters, digits and '-'."""
        added = appended_tags(tag, tags)
        self._event(Kind.TAGS, list(added), [])
        for one in added:
            self._known.tags[one] = None

    def append_tags(self, tag: str | Iterable[str], *tags: str) -> None:
        """`append_tag`, as Neptune also calls it."""
        self.append_tag(tag, *tags)

    @reported
    def remove_tag(self, tag: str) -> None:
        """Remove a tag. One that the experiment does not have is ignored."""
        self._event(Kind.TAGS, [], [names.stored_tag(tag)])
        self._known.tags.pop(tag, None)
