"""Hand-made sources: journals as bytes, cut into frames at will."""

from __future__ import annotations

import time
from binascii import crc32
from hashlib import sha256
from itertools import pairwise
from typing import Any

import zstandard

from headrace_proto import events, frame, subjects
from headrace_proto.events import ChannelType, Kind, Outcome, Role
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.ids import random_id
from headrace_proto.limits import CHUNK_BYTES

PROJECT = "team/digits"
SITE = "hall"


class Source:
    """One process that logs to an experiment: appends events, remembers every event's end."""

    def __init__(self, experiment: str | None = None, *, role: str = Role.OWNER, project: str = PROJECT) -> None:
        self.experiment = experiment or random_id()
        self.id = random_id()
        self.project = project
        self.journal = b""
        self.ends = [0]
        self.points: list[tuple[str, float, float]] = []
        self._channels: dict[str, int] = {}
        self.add(Kind.OPEN, time.time_ns(), {"role": role, "host": "node"})
        if role == Role.OWNER:
            self.add(Kind.CREATE, time.time_ns(), {"name": "run", "params": {"lr": 0.1}, "created_ns": time.time_ns()})

    @property
    def end(self) -> int:
        return len(self.journal)

    def add(self, kind: Kind, *fields: Any) -> None:
        self._append(events.pack(kind, *fields))

    def _append(self, raw: bytes) -> None:
        self.journal += raw
        self.ends.append(self.end)

    def channel(self, name: str, kind: ChannelType = ChannelType.NUMERIC) -> int:
        if name not in self._channels:
            self._channels[name] = len(self._channels)
            self.add(Kind.CHANNEL, self._channels[name], name, int(kind))
        return self._channels[name]

    def log(self, name: str, count: int = 1) -> None:
        """Append points whose steps go on from this source's last."""
        channel = self.channel(name)
        first = len(self.points)
        for step in range(first, first + count):
            self._append(events.pack_point(channel, float(step), time.time_ns(), step + 0.5))
            self.points.append((name, float(step), step + 0.5))

    def artifact(self, path: str, data: bytes, number: int = 0) -> str:
        """Append the event of a spooled artifact; returns the file's name in the spool."""
        file = f"{number:06d}-{crc32(data):08x}"
        payload = {"file": file, "size": len(data), "sha256": sha256(data).hexdigest()}
        self.add(Kind.ARTIFACT, time.time_ns(), path, payload, {"mode": 0o644})
        return file

    def close(self, outcome: str = Outcome.SUCCEEDED) -> None:
        self.add(Kind.CLOSED, time.time_ns(), outcome, None)

    # -- Frames ---------------------------------------------------------------------------------------------------------

    def frame(self, first: int, end: int, kind: FrameKind = FrameKind.EVENTS, **fields: Any) -> Frame:
        body = zstandard.compress(self.journal[first:end], 1) if kind is FrameKind.EVENTS and first < end else b""
        codec = Codec.ZSTD if body else Codec.NONE
        return Frame(kind, self.project, self.experiment, self.id, first, end, body, codec, site=SITE, **fields)

    def cut(self, pieces: int, first: int = 0) -> list[Frame]:
        """The journal from `first` on, in about so many frames, each of whole events."""
        ends = [end for end in self.ends if end >= first]
        size = max(1, -(-(len(ends) - 1) // pieces))
        edges = [*ends[:-1:size], ends[-1]]
        return [self.frame(a, b) for a, b in pairwise(edges)]

    def chunks(self, file: str, data: bytes, size: int = CHUNK_BYTES) -> list[Frame]:
        digest = sha256(data).hexdigest()
        return [
            Frame(
                FrameKind.CHUNK,
                self.project,
                self.experiment,
                self.id,
                at,
                min(at + size, len(data)),
                data[at : at + size],
                site=SITE,
                file=file,
                size=len(data),
                sha256=digest,
            )
            for at in range(0, len(data), size)
        ]


def logged(count: int = 100) -> Source:
    """A source that has logged `count` points."""
    source = Source()
    source.log("loss", count)
    return source


def subject_of(sent: Frame) -> str:
    """Where an agent publishes a frame."""
    make = subjects.files if sent.kind is FrameKind.CHUNK else subjects.events
    return make(sent.site, sent.experiment, sent.source)


def encoded(sent: Frame) -> bytes:
    return frame.encode(sent)
