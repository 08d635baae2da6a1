"""What an experiment is created with, checked, and as the events that say so."""

from __future__ import annotations

from headrace.values import optional_text, parameters
from headrace.values import properties as kept_properties
from headrace_proto import names
from headrace_proto.errors import InvalidValue
from headrace_proto.events import Kind, pack
from headrace_proto.limits import INLINE_BYTES_MAX
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Final

UNTITLED: Final = "Untitled"
"""Neptune's name for an experiment without one."""
_FACTS_BYTES_MAX: Final = INLINE_BYTES_MAX // 2
"""Of params, properties and tags in one event each; more follow in events of their own."""


class Definition(Record):
    """The facts of a new experiment."""

    name: str
    description: str
    params: dict[str, Any]
    properties: dict[str, str]
    tags: tuple[str, ...]
    author: str | None
    hostname: str
    key: str | None
    created_ns: int
    notebook_id: str | None = None
    notebook_path: str | None = None

    def events(self) -> Iterator[tuple[Any, ...]]:
        """CREATE, and what does not fit into it."""
        params = list(_bounded(self.params.items()))
        properties = list(_bounded(self.properties.items()))
        tags = list(_bounded(self.tags))
        facts = {
            "name": self.name,
            "description": self.description,
            "params": dict(params[0]),
            "properties": dict(properties[0]),
            "tags": tags[0],
            "author": self.author,
            "hostname": self.hostname,
            "key": self.key,
            "created_ns": self.created_ns,
            "notebook_id": self.notebook_id,
            "notebook_path": self.notebook_path,
        }
        known = {name: value for name, value in facts.items() if value is not None}
        yield (Kind.CREATE, self.created_ns, known)
        for some in params[1:]:
            yield (Kind.PARAMETERS, self.created_ns, dict(some))
        for some in properties[1:]:
            for name, text in some:
                yield (Kind.PROPERTY, self.created_ns, name, text)
        for some in tags[1:]:
            yield (Kind.TAGS, self.created_ns, some, [])


def _bounded(items: Iterable[Any]) -> Iterator[list[Any]]:
    """`items` in lists whose encoding stays below the limit; at least one list."""
    gathered: list[Any] = []
    size = 0
    for item in items:
        item_size = len(pack(Kind.CREATE, item))
        if gathered and size + item_size > _FACTS_BYTES_MAX:
            yield gathered
            gathered, size = [], 0
        gathered.append(item)
        size += item_size
    yield gathered


def define(
    name: str | None,
    description: str | None,
    params: Mapping[str, Any] | None,
    properties: Mapping[str, Any] | None,
    tags: Iterable[str] | None,
    *,
    author: str | None,
    hostname: str,
    key: str | None,
    created_ns: int,
    notebook_id: str | None = None,
    notebook_path: str | None = None,
) -> Definition:
    """The definition that these arguments make. Raises `InvalidName` or `InvalidValue` for the first that is wrong."""
    return Definition(
        name=optional_text("the experiment's name", name) or UNTITLED,
        description=optional_text("the description", description) or "",
        params=parameters({} if params is None else params),
        properties=kept_properties({} if properties is None else properties),
        tags=checked_tags(() if tags is None else tags),
        author=optional_text("the author", author),
        hostname=hostname,
        key=key,
        created_ns=created_ns,
        notebook_id=optional_text("notebook_id", notebook_id),
        notebook_path=optional_text("notebook_path", notebook_path),
    )


def checked_callback(callback: Callable[[], Any] | None) -> Callable[[], Any] | None:
    """What is to be called when somebody aborts the experiment. Raises `InvalidValue`."""
    if callback is not None and not callable(callback):
        raise InvalidValue(f"abort_callback must be callable without arguments, or None, not {callback!r:.80}")
    return callback


def checked_git(given: Any) -> Any:
    """What `git_info` may be: a `GitInfo`, None for what is found, False for nothing."""
    if given is None or isinstance(given, bool) or hasattr(given, "commit"):
        return given
    raise InvalidValue(f"git_info must be a headrace.git.GitInfo, or False for nothing, not {given!r:.80}")


def checked_tags(given: Any) -> tuple[str, ...]:
    """Tags by Neptune's rule, each once, in order."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise InvalidValue(f"tags must be a list of str, not {given!r:.80}: write [{given!r:.40}]")
    return tuple(dict.fromkeys(names.tag(tag) for tag in given))


def appended_tags(tag: Any, more: Iterable[Any]) -> tuple[str, ...]:
    """The tags of `append_tag("a")`, `append_tag("a", "b")` and `append_tag(["a", "b"])`, checked."""
    if not isinstance(tag, str) and not hasattr(tag, "__iter__"):
        raise InvalidValue(f"a tag must be a str, or a list of str, not {tag!r:.80}")
    return checked_tags([*([tag] if isinstance(tag, str) else tag), *more])
