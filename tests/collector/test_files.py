"""Files through the collector: chunks become pieces, pieces the verified file, and the document says what became of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.service.nats_server import NatsServer
from headrace_collector import files
from headrace_proto import subjects
from headrace_proto.frame import SOURCE_GONE, FrameKind
from headrace_proto.limits import CHUNK_BYTES, PIECE_BYTES
from headrace_proto.messages import UNNAMED, Rewind
from headrace_proto.store import layout
from tests.collector.frames import PROJECT, Source, encoded, subject_of
from tests.collector.harness import Broker, collecting, document, quarantined
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("alone")

SEVERAL_PIECES = os.urandom(CHUNK_BYTES) * (2 * PIECE_BYTES // CHUNK_BYTES + 3) + b"the end"
SMALL = b"weights" * 20_000


def stored_file(store: str, source: Source, path: str) -> Path:
    return Path(store) / layout.artifact_file(PROJECT, source.experiment, path)


def uploads(store: str, source: Source) -> list[Path]:
    """Pieces that are still there."""
    folder = Path(store) / layout.experiment_folder(PROJECT, source.experiment) / "artifacts/.uploads"
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]


@pytest.mark.parametrize("data", [SMALL, SEVERAL_PIECES], ids=["one piece", "several pieces"])
@pytest.mark.parametrize("event_first", [True, False], ids=["event first", "bytes first"])
async def test_file_arrives_whole(nats_server: NatsServer, store: str, data: bytes, event_first: bool) -> None:
    """A file is put in place, verified, whether its event or its bytes come first, and its pieces are gone."""
    source = Source()
    file = source.artifact("models/best.bin", data)
    events, chunks = source.cut(1), source.chunks(file, data)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send(events + chunks if event_first else chunks)
        if not event_first:
            await until(lambda: uploads(store, source), "pieces are in the store")
            await broker.send(events)
        mark = await broker.file_done(source, file)
        assert (mark.done, mark.offset) == (True, len(data))
        await broker.emptied(subjects.FILES_STREAM)
        await until(lambda: not uploads(store, source), "the pieces are gone")
    assert stored_file(store, source, "models/best.bin").read_bytes() == data
    assert document(store, source.experiment).artifacts["models/best.bin"].state == "stored"


async def test_changed_file_is_refused(nats_server: NatsServer, store: str) -> None:
    """Bytes that are not those of the digest never get the file's name; agent and document are told."""
    source = Source()
    file = source.artifact("model.bin", SMALL)
    chunks = [chunk._replace(body=b"\0" + chunk.body[1:]) for chunk in source.chunks(file, SMALL)]
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*source.cut(1), *chunks])
        mark = await broker.file_done(source, file)
        assert "digest" in mark.bad
        await broker.emptied(subjects.FILES_STREAM)
    assert not stored_file(store, source, "model.bin").exists()
    assert document(store, source.experiment).artifacts["model.bin"].state == "changed"


async def test_file_that_was_changed_before_its_upload_is_refused(nats_server: NatsServer, store: str) -> None:
    """A hard-linked file whose content is another than when it was logged is told apart by the event's digest."""
    source = Source()
    file = source.artifact("model.bin", SMALL)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*source.cut(1), *source.chunks(file, SMALL + b"more")])
        assert "changed" in (await broker.file_done(source, file)).bad
    assert document(store, source.experiment).artifacts["model.bin"].state == "changed"


@pytest.mark.parametrize("end", ["closed", "dead"])
async def test_file_that_no_event_names_is_given_up_when_its_writer_is_gone(
    nats_server: NatsServer, store: str, end: str
) -> None:
    """A trainer killed between a file and its event: the file waits as long as the event may come, and no longer."""
    source, other = Source(), Source()
    file = other.artifact("model.bin", SMALL)  # of whose event `source` has nothing
    source.log("loss", 10)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*source.chunks(file, SMALL), *source.cut(1)])
        await until(lambda: uploads(store, source), "its bytes are in the store")
        position = source.end
        if end == "closed":
            source.close()
            await broker.send(source.cut(1, position))
        else:
            await broker.send([source.frame(position, position, FrameKind.DEAD)])
        assert (await broker.file_done(source, file)).bad == UNNAMED
        await broker.emptied(subjects.FILES_STREAM)
        await until(lambda: not uploads(store, source), "its pieces are gone")
    assert document(store, source.experiment).artifacts == {}


async def test_file_whose_event_may_still_come_is_kept(nats_server: NatsServer, store: str) -> None:
    """A gap that was closed because its node was away may be filled by it: what the event there names has its bytes by then."""
    source = Source()
    source.log("loss", 10)
    first = source.end
    file = source.artifact("model.bin", SMALL)
    end = source.end
    source.close()
    gone = source.frame(first, end, FrameKind.LOST, reason=SOURCE_GONE)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([source.frame(0, first), gone, source.frame(end, source.end)])
        await broker.stored(source)
        await broker.send(source.chunks(file, SMALL))
        await until(lambda: uploads(store, source), "its bytes are in the store")
        await broker.send([source.frame(first, end)])
        assert (await broker.file_done(source, file)).done
        await broker.emptied(subjects.FILES_STREAM)
    assert stored_file(store, source, "model.bin").read_bytes() == SMALL


async def test_missing_chunk_is_asked_for(nats_server: NatsServer, store: str) -> None:
    """A chunk above a gap is dropped and the file asked for from where it stands; sent again, it is stored."""
    source, data = Source(), os.urandom(4 * CHUNK_BYTES)
    file = source.artifact("model.bin", data)
    chunks = source.chunks(file, data)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*source.cut(1), chunks[0], *chunks[2:]])
        await until(lambda: broker.rewinds, "the file is asked for")
        assert broker.rewinds == [Rewind(source.id, chunks[1].first, file)]
        await broker.send(chunks[1:])
        assert (await broker.file_done(source, file)).done
        await broker.emptied(subjects.FILES_STREAM)
    assert stored_file(store, source, "model.bin").read_bytes() == data


async def test_garbled_chunk_is_asked_for(nats_server: NatsServer, store: str) -> None:
    """A chunk with a flipped bit is kept aside and its file asked for again."""
    source, data = Source(), os.urandom(3 * CHUNK_BYTES)
    file = source.artifact("model.bin", data)
    chunks = source.chunks(file, data)
    garbled = bytearray(encoded(chunks[2]))
    garbled[-100] ^= 1
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*source.cut(1), *chunks[:2]])
        await broker.js.publish(subject_of(chunks[2]), bytes(garbled))
        await until(lambda: quarantined(store), "the chunk is kept aside")
        await until(lambda: Rewind(source.id, chunks[2].first, file) in broker.rewinds, "its file is asked for")
        await broker.send(chunks[2:])
        assert (await broker.file_done(source, file)).done


async def test_chunks_that_wait_become_a_small_piece(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow upload is acknowledged and marked as it comes, not only when a piece is full."""
    monkeypatch.setattr(files, "FLUSH_S", 0.05)
    source, data = Source(), os.urandom(3 * CHUNK_BYTES)
    file = source.artifact("model.bin", data)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send(source.chunks(file, data)[:2])
        await broker.emptied(subjects.FILES_STREAM)
        mark = await broker.file_mark(source, file)
        assert mark is not None
        assert (mark.offset, mark.done) == (2 * CHUNK_BYTES, False)


async def test_upload_goes_on_with_another_collector(nats_server: NatsServer, store: str) -> None:
    """A collector that stops in the middle of a file leaves pieces; the next one goes on from them."""
    source, data = Source(), SEVERAL_PIECES
    file = source.artifact("model.bin", data)
    chunks = source.chunks(file, data)
    async with Broker.connected(nats_server.url) as broker:
        async with collecting(nats_server.url, store):
            await broker.send([*source.cut(1), *chunks[:20]])
            await until(lambda: uploads(store, source), "a piece is in the store")
        async with collecting(nats_server.url, store):
            await broker.send(chunks[20:])
            assert (await broker.file_done(source, file)).done
            await broker.emptied(subjects.FILES_STREAM)
    assert stored_file(store, source, "model.bin").read_bytes() == data


async def test_finished_file_is_answered_again(nats_server: NatsServer, store: str) -> None:
    """An agent that forgot, and sends a stored file again, is told that it is done."""
    source = Source()
    file = source.artifact("model.bin", SMALL)
    async with Broker.connected(nats_server.url) as broker:
        async with collecting(nats_server.url, store):
            await broker.send([*source.cut(1), *source.chunks(file, SMALL)])
            await broker.file_done(source, file)
        await broker.js.purge_stream(subjects.MARKS_STREAM)
        async with collecting(nats_server.url, store):
            await broker.send(source.chunks(file, SMALL))
            assert (await broker.file_done(source, file)).done
            await broker.emptied(subjects.FILES_STREAM)
        assert not uploads(store, source)


async def test_overwritten_artifact_keeps_the_later_bytes(nats_server: NatsServer, store: str) -> None:
    """Two files logged under one path: the later one is there in the end, whatever arrived last."""
    source, first, second = Source(), SMALL, SMALL[::-1]
    files_of = [source.artifact("model.bin", data, number) for number, data in enumerate((first, second))]
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([*source.cut(1), *source.chunks(files_of[1], second), *source.chunks(files_of[0], first)])
        for file in files_of:
            assert (await broker.file_done(source, file)).done
        await broker.emptied(subjects.FILES_STREAM)
    assert stored_file(store, source, "model.bin").read_bytes() == second


@pytest.mark.parametrize("name", ["../../escape", ".hidden", "a/b", "", "x" * 200])
async def test_hostile_file_name_is_refused(nats_server: NatsServer, store: str, name: str) -> None:
    """A chunk whose file could lie outside the experiment's uploads is kept aside, and the experiment goes on."""
    source = Source()
    source.log("loss", 10)
    chunk = source.chunks("000001-0123abcd", SMALL)[0]._replace(file=name)
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        await broker.send([chunk, *source.cut(1)])
        await until(lambda: quarantined(store), "the chunk is kept aside")
        await broker.stored(source)
        await broker.emptied(subjects.FILES_STREAM)


async def test_file_that_nobody_names_is_let_go_of(
    nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last message does not wait in the queue for ever; once an event names it, it is sent again and stored."""
    monkeypatch.setattr("headrace_collector.files.IDLE_S", 0.3)
    data = b"x" * 1_000
    async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
        source = Source()
        before = source.end
        file = source.artifact("late.bin", data)
        await broker.send([source.frame(0, before), *source.chunks(file, data)])
        await broker.emptied(subjects.FILES_STREAM)
        mark = await broker.file_mark(source, file)
        assert mark is not None
        assert not mark.done
        await broker.send([source.frame(before, source.end), *source.chunks(file, data)])
        assert (await broker.file_done(source, file)).done
