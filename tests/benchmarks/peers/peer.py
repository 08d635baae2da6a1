"""What the bench asks of a peer. How a peer answers is its own file in `adapters`.

An adapter imports its peer inside its methods: the runner, which knows all of them, has none of them installed, and what an
import costs belongs to the measurement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

CHANNEL: Final = "loss"
"""What is logged one scalar a call, and read back."""


class NotOffered(Exception):
    """A peer has no way to do this where it runs here; the text says what it has instead."""


class Log(NamedTuple):
    """The two calls that are measured, as near to the peer's own as a common form allows: at most one Python frame above it."""

    scalar: Callable[[str, int, float], object]
    """Name, step, value."""
    row: Callable[[Mapping[str, float], int], object]
    """Values by name, step."""


class Series(NamedTuple):
    """A series as a peer's own reader gives it."""

    steps: Sequence[float]
    values: Sequence[float]


class Trial(NamedTuple):
    """One of the runs of which some are then searched for."""

    name: str
    batch: int
    loss: float


class Peer(ABC):
    """One peer around one folder. Each process makes its own."""

    name: ClassVar[str]
    """What it is called on the command line and in the tables."""
    distribution: ClassVar[str] = ""
    """The installed package whose version is told."""
    of_product: ClassVar[bool] = False
    """It runs in the product's environment, not in the peers'."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables that its documentation gives for working offline and telling nobody."""
    share: ClassVar[float] = 1.0
    """The part of the calls that it is asked for, where all of them would take many minutes."""
    columns: ClassVar[frozenset[str]] = frozenset({"scalars", "rows", "first", "kill", "read", "find"})
    """The measurements in which it takes part."""
    way: ClassVar[str]
    """How it is used here, for the reader of the results."""
    beyond: ClassVar[str]
    """What it does that Headrace does not."""

    def __init__(self, folder: str) -> None:
        self.folder: Final = folder

    @abstractmethod
    def begin(self) -> Log:
        """Start a run, with a parameter, as the peer's first page shows it."""

    @abstractmethod
    def end(self) -> None:
        """End the run in the documented way: afterwards the process may leave."""

    @abstractmethod
    def read(self) -> Series:
        """CHANNEL of the run in the folder, whole, by the peer's own reader."""

    def recover(self) -> None:  # noqa: B027 - most need nothing
        """What the documentation says to do after a crash, before reading."""

    def fill(self, values: Sequence[float]) -> None:
        """Have a run in the folder whose CHANNEL holds `values`, by the quickest documented way."""
        log = self.begin().scalar
        for step, value in enumerate(values):
            log(CHANNEL, step, value)
        self.end()

    def populate(self, trials: Sequence[Trial]) -> None:
        """Have a run for each trial, with the parameter `batch` and the metric CHANNEL."""
        raise NotOffered("no list of runs")

    def finder(self) -> Callable[[], pd.DataFrame]:
        """A search, ready to be asked again and again: the runs with `batch` = 32 and CHANNEL < 0.5."""
        raise NotOffered("no list of runs")

    def data(self) -> list[str]:
        """The folders that hold what was logged."""
        return [self.folder]

    @contextmanager
    def services(self) -> Iterator[list[int]]:
        """What has to run beside the program, as process ids; most need nothing."""
        yield []

    def settle(self) -> None:  # noqa: B027 - most have no services
        """Called by the runner, before it counts, once the program has gone: wait until the services are done with it."""
