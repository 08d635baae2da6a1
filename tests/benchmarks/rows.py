"""One measured figure, and how figures are printed."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

REPEATS: Final = 7


class Row(NamedTuple):
    """A figure, and what it should reach. A row without a bar stands beside others for comparison."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def reach(self) -> str:
        """The bar, for people."""
        if self.at_most is not None:
            return f"≤ {number(self.at_most)}"
        return f"≥ {number(self.at_least)}" if self.at_least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None


def number(value: float) -> str:
    """A figure with three significant digits and no more zeros than people read.

    >>> number(0.3612), number(1234567), number(99.96), number(0)
    ('0.361', '1,230,000', '100', '0')
    """
    if value == 0 or value != value:
        return "0" if value == 0 else "nan"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def median_ms(call: Callable[[], object]) -> float:
    """What a call takes, after a first one that is not counted."""
    call()
    took = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1000


def machine_line() -> str:
    """What the figures were measured on."""
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = models[0] if models else platform.machine()
    return f"{os.cpu_count()} x {cpu}, Linux {platform.release()}, CPython {platform.python_version()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def show(title: str, rows: Iterable[Row], console: Console) -> None:
    """Print rows as a table."""
    table = Table(title=title, title_justify="left")
    for heading, justify in (
        ("what", "left"),
        ("measured", "right"),
        ("unit", "left"),
        ("reach", "right"),
        ("", "left"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        mark = {True: "[green]met", False: "[red]missed", None: ""}[row.met]
        table.add_row(row.what, number(row.value), row.unit, row.reach, mark)
    console.print(table)


def as_markdown(rows: Iterable[Row]) -> str:
    """The rows as the README quotes them."""
    lines = ["| what | measured | reach |", "|---|---:|---:|"]
    lines += [f"| {row.what} | {number(row.value)} {row.unit} | {row.reach} |" for row in rows]
    return "\n".join(lines) + "\n"


def as_json(rows: Iterable[Row]) -> str:
    """The rows for tools."""
    return json.dumps([{**row._asdict(), "met": row.met} for row in rows], indent=1)
