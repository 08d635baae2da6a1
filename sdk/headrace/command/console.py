"""How commands print: tables for people, JSON for machines, both on standard output; everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.command.voice import shown

PIPE_WIDTH: Final = 4_000
"""Columns of what is no terminal: nothing is folded or cut for whoever reads it."""
_KIB: Final = 1024.0


def out() -> Console:
    """For what was asked for."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def err() -> Console:
    """For what is said beside it."""
    return Console(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """`data` as JSON. NaN and infinities, which JSON has not, are null."""
    print(json.dumps(_finite(data), indent=2, default=str, allow_nan=False, ensure_ascii=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(name): _finite(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data


def plain(text: object) -> str:
    """Somebody's text, to be printed as it is: neither rich's markup nor the terminal's control sequences in it do anything."""
    return escape(shown(text))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    folded: Sequence[str] = (),
) -> Table:
    """A table of plain cells. The columns in `numbers` are set to the right, those in `folded` give way when it is too wide."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        made.add_column(name, justify=justify, no_wrap=name not in folded, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: object) -> str:
    return plain(str(value))


def size(count: float) -> str:
    """Bytes for people: '1.5 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def number(value: object) -> str:
    """A value of a metric or parameter for people."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def when(time: datetime | None) -> str:
    """A time in the reader's zone, to the second."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasted(first: datetime | None, last: datetime | None) -> str:
    """From `first` to `last`, or until now."""
    if first is None:
        return ""
    seconds = ((last or datetime.now(UTC)) - first) // timedelta(seconds=1)
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
