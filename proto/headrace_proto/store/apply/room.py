"""What the registers of one document may take: its parameters, properties, tags and facts are part of every commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace_proto.limits import FACT_BYTES_MAX, REGISTER_BYTES_MAX, REGISTERS_MAX
from headrace_proto.names import PROPERTY_BYTES_MAX
from headrace_proto.store.plain import DEPTH_MAX

_VALUE_MAX: Final = {"facts": FACT_BYTES_MAX, "params": PROPERTY_BYTES_MAX, "properties": PROPERTY_BYTES_MAX}
_NUMBER_BYTES: Final = 9


class Room:
    """The bytes of one draft's registers, counted when the first of them is to change."""

    def __init__(self, stamps: Mapping[str, Mapping[str, Any]], values: Mapping[str, Mapping[str, Any]]) -> None:
        self._stamps = stamps
        self._values = values
        self._total: int | None = None

    def refusal(self, group: str, field: str, value: Any) -> str:
        """Why the register `field` of `group` may not hold `value`; "" if it may, and is counted then."""
        size = size_of(value)
        if size > _VALUE_MAX.get(group, FACT_BYTES_MAX):
            return f"a value of {group} has more than {_VALUE_MAX.get(group, FACT_BYTES_MAX)} bytes"
        known = field in self._stamps[group]
        if not known and len(self._stamps[group]) >= REGISTERS_MAX:
            return f"an experiment holds at most {REGISTERS_MAX} {group}"
        if self._total is None:
            self._total = sum(self._weight(group, field) for group in self._groups for field in self._stamps[group])
        total = self._total + len(field) + size - (self._weight(group, field) if known else 0)
        if total > REGISTER_BYTES_MAX:
            return f"parameters, properties, tags and facts together have more than {REGISTER_BYTES_MAX} bytes"
        self._total = total
        return ""

    @property
    def _groups(self) -> tuple[str, ...]:
        return ("params", "properties", "tags", "facts")

    def _weight(self, group: str, field: str) -> int:
        return len(field) + size_of(self._values.get(group, {}).get(field))


def size_of(value: Any, depth: int = 0) -> int:
    """About the bytes of a value in JSON, as deep as `plain` keeps it."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, bytes):
        return len(value) * 4 // 3
    if isinstance(value, dict) and depth < DEPTH_MAX:
        return sum(size_of(str(key)) + size_of(item, depth + 1) + 2 for key, item in value.items())
    if isinstance(value, (list, tuple)) and depth < DEPTH_MAX:
        return sum(size_of(item, depth + 1) + 1 for item in value)
    return _NUMBER_BYTES
