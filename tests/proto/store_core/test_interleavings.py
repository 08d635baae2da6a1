"""Committers, a merger, sweepers, an uploader and a reader on one experiment, in any order of their calls of the store."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reading.series import points
from headrace.reading.snapshot import Snapshot
from headrace_proto.errors import CommitConflict, ExperimentNotFound
from headrace_proto.events import Kind
from headrace_proto.store import sweeping
from headrace_proto.store.chain import Batch, Chain, FileDone
from headrace_proto.store.sweeping import sweep
from headrace_proto.store.uploads import PiecesGone, Upload
from tests.proto.store_core.script import (
    EXPERIMENT,
    NOW_NS,
    PROJECT,
    SECOND_NS,
    Source,
    memory_store,
    points_of,
    spooled,
)
from tests.proto.store_core.stage import Actor, play
from tests.proto.store_core.sweeps import FOLDER, HOUR_S, TimedStore, missing
from tests.stores import head_of

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

FILE = b"weights" * 100
ROUNDS = 3
NAPS_MAX = 3
"""Long ones in an example: a reader that sleeps for hours within one read, again and again, may say so."""


def _told() -> list[list[Batch]]:
    """What two sources tell: points, a text, an image, artifacts that come and go, a spooled file."""
    a, b = Source("a").create(), Source("b", "rank")
    told: list[list[Batch]] = [[], []]
    for step in range(4):
        a.point("x", step, step / 2).image("shots", step, b"png%d" % step).artifact(f"a{step}.txt", b"%d" % step)
        if step == 1:
            a.artifact("m.bin", spooled(0, len(FILE), sha256(FILE).hexdigest()))
        if step == 2:
            a.event(Kind.UNLINK, a.time_ns + SECOND_NS, ["a0.txt"])
            a.time_ns += 2 * SECOND_NS
        told[0].append(a.batch())
        told[1].append(b.point("y", step, step / 2).text("log", step, f"line {step}").batch())
    return told


TOLD = _told()


def _commit(timed: TimedStore, mine: int) -> object:
    """Commit all that both sources tell, whoever else does; the own one first."""

    def script(store: Store) -> None:
        chain = Chain(store, PROJECT, EXPERIMENT, clock=timed.clock)
        for _ in range(100):
            due = [[batch for batch in told if batch.end > chain.watermark(batch.source)] for told in TOLD]
            if not any(due):
                return
            ready = due[mine] or due[1 - mine]
            with suppress(CommitConflict, OSError):
                chain.commit(ready[: 1 + mine], now_ns=NOW_NS)
        raise AssertionError("a hundred commits were lost")

    return script


def _merge(timed: TimedStore) -> object:
    def script(store: Store) -> None:
        chain = Chain(store, PROJECT, EXPERIMENT, clock=timed.clock)
        for _ in range(ROUNDS):
            with suppress(CommitConflict, OSError):
                chain.load().compact(now_ns=NOW_NS, final=True)

    return script


def _sweep(timed: TimedStore) -> object:
    def script(store: Store) -> None:
        chain = Chain(store, PROJECT, EXPERIMENT, clock=timed.clock)
        for _ in range(ROUNDS):
            with suppress(OSError):
                sweep(chain, now_ns=NOW_NS, grace_s=0.0)

    return script


def _upload(timed: TimedStore) -> object:
    """Put the spooled file in place, as a collector does with a file whose event may be still to come."""

    def script(store: Store) -> None:
        file, source = spooled(0)["file"], TOLD[0][0].source
        chain = Chain(store, PROJECT, EXPERIMENT, clock=timed.clock)
        digest = sha256(FILE).hexdigest()
        for _ in range(100):
            if chain.load().has_file(source, file):
                return
            upload = Upload(store, PROJECT, EXPERIMENT, source, file, size=len(FILE), sha256=digest)
            if not upload.complete:
                upload.add(upload.received, FILE[upload.received :])
            if pending := chain.pending(source, file):
                with suppress(CommitConflict, PiecesGone, OSError):
                    bad = upload.finish(pending.path, lambda pending=pending: chain.awaits(pending))  # type: ignore[misc]
                    chain.commit([], files_done=[FileDone(source, file, bad)], now_ns=NOW_NS)
        raise AssertionError("the file was never in place")

    return script


def _read(timed: TimedStore) -> object:
    """Read everything; each channel's points are those of a prefix of what was told, without holes."""

    def script(store: Store) -> None:
        snapshot = Snapshot(store, PROJECT, EXPERIMENT)
        for _ in range(ROUNDS):
            with suppress(ExperimentNotFound):
                tables = snapshot.read(
                    lambda commit: points(snapshot, commit, "numeric", list(commit.document.channels.numeric), "all")
                )
                for table in tables.values():
                    steps = table["step"].to_pylist()
                    assert steps == [float(step) for step in range(len(steps))]

    return script


@settings(max_examples=40)
@given(st.data())
def test_nothing_is_lost_in_any_order_of_calls(data: st.DataObject) -> None:
    """No commit names a missing object, every point is stored once, no live file goes, no reader fails: in any order of the calls
    of two competing committers, a merger, two sweepers, an uploader and a reader, any of whom may sleep for hours anywhere."""
    timed = TimedStore(memory_store())
    scripts = [
        _commit(timed, 0),
        _commit(timed, 1),
        _merge(timed),
        _sweep(timed),
        _sweep(timed),
        _upload(timed),
        _read(timed),
    ]
    actors = [Actor(timed, script) for script in scripts]  # type: ignore[arg-type]
    # runs of one actor's steps: single steps alone would let all of them go in step
    runs = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 25)), max_size=60), label="runs")
    naps = data.draw(
        st.dictionaries(st.integers(0, 60), st.sampled_from([600.0, 5 * HOUR_S]), max_size=NAPS_MAX), label="naps"
    )

    def choices() -> object:
        for number, (actor, steps) in enumerate(runs):
            timed.now_s += naps.get(number, 0.0)
            for _ in range(steps):
                timed.now_s += 1.0
                yield actor

    with pytest.MonkeyPatch.context() as patch:
        # so that a dozen commits are enough for a writer to be overtaken by sweeps
        patch.setattr(sweeping, "COMMITS_KEPT", 1)
        play(actors, choices())  # type: ignore[arg-type]
        _check(timed)
        timed.now_s += 10 * HOUR_S
        timed.sweep()
    _check(timed)
    chain = timed.chain()
    named = {part.path for part in head_of(chain).parts.numeric}
    assert {f"channels/{name}" for name in timed.names(f"{FOLDER}/channels")} == named, "a swept folder is safe to glob"


def _check(timed: TimedStore) -> None:
    assert missing(timed) == set()
    chain = timed.chain()
    assert [(name, step, value) for name, step, _, value in points_of(chain)] == [
        (name, step, step / 2) for name in "xy" for step in range(4)
    ]
    assert set(chain.artifacts()) == {"a1.txt", "a2.txt", "a3.txt", "m.bin"}
    assert {record.state for record in chain.artifacts().values()} == {"stored"}
    assert chain.read("text").num_rows == chain.read("image").num_rows == 4
