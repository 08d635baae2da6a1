"""How the SDK's tests read back what a process has journaled."""

from __future__ import annotations

from typing import Any, NamedTuple

import headrace as hr
from headrace_proto.events import ChannelType, Kind
from headrace_proto.home import Home
from headrace_proto.journal import Header, JournalReader
from tests.proto.journal.reading import events_of, sources


class Point(NamedTuple):
    """A point, by the name of its channel."""

    channel: str
    step: float | None
    value: Any
    time_ns: int
    facts: Any = None


class Journal(NamedTuple):
    """One source's journal."""

    header: Header
    events: list[list[Any]]

    def of(self, kind: Kind) -> list[list[Any]]:
        """The fields behind the time of each event of a kind."""
        return [event[2:] for event in self.events if event[0] == kind]

    @property
    def outcome(self) -> str | None:
        """How the source was closed, if it was."""
        closed = self.of(Kind.CLOSED)
        return closed[0][0] if closed else None

    @property
    def detail(self) -> str:
        """What its closing record says."""
        return self.of(Kind.CLOSED)[0][1] or ""

    @property
    def created(self) -> dict[str, Any]:
        """The facts of its CREATE."""
        [[facts]] = self.of(Kind.CREATE)
        return dict(facts)

    def points(self) -> list[Point]:
        """Every point, in order; rows are taken apart."""
        channels: dict[int, str] = {}
        schemas: dict[int, list[int]] = {}
        points: list[Point] = []
        for kind, *fields in self.events:
            match kind:
                case Kind.CHANNEL:
                    channels[fields[0]] = fields[1]
                case Kind.SCHEMA:
                    schemas[fields[0]] = fields[1]
                case Kind.POINT:
                    points.append(Point(channels[fields[0]], fields[1], fields[3], fields[2]))
                case Kind.AUTO_POINT:
                    points.append(Point(channels[fields[0]], None, fields[2], fields[1]))
                case Kind.ROW | Kind.AUTO_ROW:
                    number, step, time_ns, raw = fields if kind == Kind.ROW else (fields[0], None, *fields[1:])
                    values = memoryview(raw[::-1]).cast("d").tolist()[::-1]
                    points += [
                        Point(channels[c], step, v, time_ns) for c, v in zip(schemas[number], values, strict=True)
                    ]
                case Kind.TEXT | Kind.IMAGE:
                    points.append(Point(channels[fields[0]], fields[1], fields[3], fields[2], *fields[4:]))
        return points

    def series(self, channel: str) -> list[tuple[float | None, Any]]:
        """(step, value) of each point of a channel."""
        return [(point.step, point.value) for point in self.points() if point.channel == channel]

    def texts(self, channel: str) -> list[str]:
        """The texts of a channel."""
        return [value for _, value in self.series(channel)]

    def types(self) -> dict[str, ChannelType]:
        """The channels that it defines."""
        return {event[2]: ChannelType(event[3]) for event in self.events if event[0] == Kind.CHANNEL}


def journal(home: Home, source: str) -> Journal:
    """One source's journal."""
    reader = JournalReader(home.journal(source))
    reader.close()
    return Journal(reader.header, events_of(home, source))


def journals(home: Home) -> list[Journal]:
    """All journals of a home, in the order of their beginning."""
    return sorted((journal(home, source) for source in sources(home)), key=lambda one: one.header.created_ns)


def of_role(home: Home, role: str) -> list[Journal]:
    """The journals of sources with a role."""
    return [journal for journal in journals(home) if journal.header.role == role]


def journal_of(experiment: hr.Experiment) -> Journal:
    """What this process has logged to the experiment."""
    return journal(experiment.origin.home, experiment._writer.source)
