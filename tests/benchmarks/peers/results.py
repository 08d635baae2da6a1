"""What was measured, as it is kept between runs and told to the report."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Self

from headrace import __version__
from headrace_proto import filesystem
from tests.benchmarks.peers.process import PEERS_PYTHON
from tests.benchmarks.peers.registry import PEERS, peer_class
from tests.benchmarks.rows import machine_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.benchmarks.peers.bench import Figures, Sizes

_VERSIONS: Final = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""
PER_100K: Final = 100_000


class Results:
    """Of each peer and column, the figures of each run."""

    def __init__(self) -> None:
        self.about: dict[str, str] = {}
        """Machine, file system, date, sizes."""
        self.versions: dict[str, str] = {}
        self.figures: dict[str, dict[str, list[Figures]]] = {}
        self.failures: dict[str, dict[str, str]] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """What a run has kept; empty if there is none."""
        made = cls()
        if path.exists():
            vars(made).update(json.loads(path.read_text(encoding="utf-8")))
        return made

    def save(self, path: Path) -> None:
        """Keep it, for a later run to add to."""
        path.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")

    def begin(self, names: Iterable[str], columns: Iterable[str], folder: Path, date: str, sizes: Sizes) -> None:
        """Forget what is about to be measured again, and note where and when."""
        wanted = set(columns)
        self.about |= {"machine": machine_line(), "filesystem": filesystem.kind_of(os.fspath(folder)), "date": date}
        self.about |= {key: f"{value:,.0f}" for key, value in sizes._asdict().items()}
        names = list(names)
        for name in names:
            for kept in (self.figures.setdefault(name, {}), self.failures.setdefault(name, {})):
                for column in wanted & set(kept):
                    del kept[column]
        self.versions |= versions(names)

    def add(self, name: str, column: str, figures: Figures) -> None:
        """One more run."""
        self.figures[name].setdefault(column, []).append(figures)

    def fail(self, name: str, column: str, why: str) -> None:
        """A run that gave nothing."""
        self.failures[name][column] = why

    # -- Asked -----------------------------------------------------------------------------------------------------------

    def peers(self, column: str) -> list[str]:
        """Those with figures in a column, in the order of the tables."""
        return [name for name in PEERS if self.figures.get(name, {}).get(column)]

    def every(self, name: str, column: str, key: str) -> list[float]:
        """A figure of each run."""
        return [figures[key] for figures in self.figures.get(name, {}).get(column, [])]

    def median(self, name: str, column: str, key: str) -> float | None:
        """A figure's median; None without a run."""
        values = self.every(name, column, key)
        return median(values) if values else None

    def cpu_s(self, name: str, column: str) -> float | None:
        """CPU seconds per 100,000 events, starting included: what a life with one metric costs, and the rest in proportion."""
        whole, events = self.median(name, column, "cpu_s"), self.median(name, column, "events")
        if whole is None or not events:
            return None
        began = min(whole, self.median(name, "first", "first_cpu_s") or 0.0)
        return began + (whole - began) * PER_100K / events

    def bytes_an_event(self, name: str, column: str) -> float | None:
        """Bytes on disk for each event: what a run with one metric takes is not the events', unless they fit into that."""
        whole, events = self.median(name, column, "disk_bytes"), self.median(name, column, "events")
        if whole is None or not events:
            return None
        empty = self.median(name, "first", "first_disk_bytes") or 0.0
        return (whole - empty if whole > empty else whole) / events


def versions(names: Iterable[str]) -> dict[str, str]:
    """What is installed for each of these peers."""
    wanted = {name: peer_class(name).distribution for name in names}
    found: dict[str, Any] = {}
    packages = sorted({package for package in wanted.values() if package})
    if packages:
        done = subprocess.run([PEERS_PYTHON, "-c", _VERSIONS, *packages], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
    ours = {name: __version__ for name, package in wanted.items() if not package and name.startswith("headrace")}
    return {**{name: str(found[package]) for name, package in wanted.items() if package}, **ours}
