"""Tuples with names, for what a trainer imports: `typing.NamedTuple` to a type checker, made without `typing` when it runs.

Importing `typing` takes a third of what all of `import headrace` may take, most of it for `re` and for compiling every annotation
of a named tuple, which nobody reads. So no module on a trainer's way imports it (`tests/sdk/test_weight.py`): annotations are
never evaluated, and what else would need it stands below `if TYPE_CHECKING`.
"""

from __future__ import annotations

from collections import namedtuple

__all__ = ["Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from typing import NamedTuple as Record
else:

    class _Naming(type):
        """What its class statement says, as `collections.namedtuple` makes it: fields with defaults, then methods."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body.pop("__annotations__")
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024
            for attribute, value in body.items():
                setattr(made, attribute, value)
            return made

    class Record(metaclass=_Naming):
        """The base of every such tuple."""
