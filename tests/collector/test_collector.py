"""The collector end to end: real nats-server, hand-made frames, a store that is read back."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from nats.js.errors import NotFoundError

from headrace.service.nats_server import NatsServer
from headrace.service.ports import free_port
from headrace_collector import partition, upkeep
from headrace_collector.collector import BrokerLost, Collector
from headrace_collector.consumer import Queue, make_consumer
from headrace_collector.settings import CollectorSettings
from headrace_proto import subjects
from headrace_proto.frame import Codec, Frame, FrameKind
from headrace_proto.limits import PARTS_MAX
from headrace_proto.messages import Rewind
from headrace_proto.store.backend import open_store
from headrace_proto.store.catalog import read_rows
from headrace_proto.store.chain import Chain
from tests.collector.frames import PROJECT, SITE, Source, encoded, logged, subject_of
from tests.collector.harness import PARTITIONS, Broker, collecting, document, held, points, quarantined
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("alone")


class TestStoring:
    async def test_frames_become_a_readable_experiment(self, nats_server: NatsServer, store: str) -> None:
        """What a source sent is stored, listed under a short id, marked, and gone from the stream."""
        source = logged()
        source.close()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send(source.cut(5))
            mark = await broker.stored(source)
            await broker.emptied()
        assert points(store, source.experiment) == sorted(source.points)
        found = document(store, source.experiment)
        assert (found.id, found.state, found.params) == ("DIG-1", "succeeded", {"lr": 0.1})
        assert (mark.short_id, mark.experiment) == ("DIG-1", source.experiment)

    async def test_any_order_cut_and_number_is_stored_once(self, nats_server: NatsServer, store: str) -> None:
        """Frames of several ways to cut, shuffled and doubled, store each point once and leave nothing in the stream."""
        source = logged(500)
        frames = [*source.cut(7), *source.cut(20), *source.cut(3)] * 2
        random.Random(1).shuffle(frames)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send(frames)
            await broker.stored(source)
            await broker.emptied()
        assert points(store, source.experiment) == sorted(source.points)

    async def test_batch_over_the_watermark_is_cut(self, nats_server: NatsServer, store: str) -> None:
        """A frame that begins in what is stored and ends beyond adds only what is new."""
        source = logged()
        half = source.ends[len(source.ends) // 2]
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([source.frame(0, half)])
            await broker.stored(source, half)
            await broker.send([source.frame(source.ends[10], source.end)])
            await broker.stored(source)
        assert points(store, source.experiment) == sorted(source.points)

    async def test_stored_frame_is_answered_with_its_mark(self, nats_server: NatsServer, store: str) -> None:
        """An agent that sends again what is stored hears the mark once more, and the stream is emptied."""
        source = logged()
        async with Broker.connected(nats_server.url) as broker:
            async with collecting(nats_server.url, store):
                await broker.send(source.cut(2))
                await broker.stored(source)
            await broker.js.purge_stream(subjects.MARKS_STREAM)
            async with collecting(nats_server.url, store):
                await broker.send(source.cut(2))
                assert (await broker.stored(source)).short_id == "DIG-1"
                await broker.emptied()

    async def test_flush_does_not_wait_for_the_interval(self, nats_server: NatsServer, store: str) -> None:
        """What somebody waits for is committed at once, whatever the interval: a new experiment, and a flushed frame."""
        source = logged(10)
        created = source.end
        async with (
            Broker.connected(nats_server.url) as broker,
            collecting(nats_server.url, store, commit_interval_s=3600),
        ):
            await broker.send([source.frame(0, created)])
            await broker.stored(source)
            source.log("loss", 10)
            await broker.send([source.frame(created, source.end), source.frame(source.end, source.end, flush=True)])
            await broker.stored(source)
            await broker.emptied()

    async def test_source_is_bound_to_the_first_site_that_sent_it(self, nats_server: NatsServer, store: str) -> None:
        """Who may publish for another site can neither add to a source nor hear of it, now or for a later collector."""
        source = logged(10)
        async with Broker.connected(nats_server.url) as broker:
            for _ in range(2):
                async with collecting(nats_server.url, store):
                    await broker.send(source.cut(2))
                    stored = (await broker.stored(source)).position
                    source.log("loss", 10)
                    await broker.send([source.frame(stored, source.end)._replace(site="attic")])
                    await broker.emptied()
                    mark = await broker.mark(source)
                    assert mark is not None
                    assert mark.position == stored
            with pytest.raises(NotFoundError):
                await broker.js.get_last_msg(subjects.MARKS_STREAM, subjects.mark("attic", source.id))
        assert len(points(store, source.experiment)) == 20

    async def test_stop_commits_what_is_there(self, nats_server: NatsServer, store: str) -> None:
        """A collector that is asked to stop stores, acknowledges and marks what it holds before it leaves."""
        source = logged(10)
        created = source.end
        async with Broker.connected(nats_server.url) as broker:
            async with collecting(nats_server.url, store, commit_interval_s=3600) as collector:
                await broker.send([source.frame(0, created)])
                await broker.stored(source)
                source.log("loss", 10)
                await broker.send([source.frame(created, source.end)])
                await until(lambda: dict(collector.health().facts)["waiting_bytes"], "the frame has arrived")
            assert points(store, source.experiment) == sorted(source.points)
            assert (await broker.stored(source)).position == source.end
            assert await broker.left() == 0

    async def test_death_is_told_by_a_frame(self, nats_server: NatsServer, store: str) -> None:
        """An owner that is gone without a closing event makes its experiment fail."""
        source = logged()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([*source.cut(2), source.frame(source.end, source.end, FrameKind.DEAD, reason="gone")])
            await broker.stored(source)
            await broker.emptied()
        assert document(store, source.experiment).state == "failed"

    async def test_sources_of_one_experiment_share_its_commits(self, nats_server: NatsServer, store: str) -> None:
        """Ranks that log to one experiment are stored together, each with a watermark of its own."""
        ranks = [logged(50)]
        ranks += [Source(ranks[0].experiment, role="rank") for _ in range(3)]
        for rank in ranks[1:]:
            rank.log("loss", 50)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send(frame for rank in ranks for frame in rank.cut(3))
            for rank in ranks:
                await broker.stored(rank)
        assert points(store, ranks[0].experiment) == sorted(point for rank in ranks for point in rank.points)

    async def test_an_object_store_is_committed_to_like_a_folder(self, nats_server: NatsServer, s3_url: str) -> None:
        """The same on an object store, through its conditional writes."""
        source = logged()
        file = source.artifact("model.bin", b"weights" * 20_000)
        source.close()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, s3_url):
            await broker.send(source.cut(3))
            await broker.send(source.chunks(file, b"weights" * 20_000))
            await broker.stored(source)
            assert (await broker.file_done(source, file)).done
        assert points(s3_url, source.experiment) == sorted(source.points)
        assert document(s3_url, source.experiment).artifacts["model.bin"].state == "stored"


class TestCare:
    async def test_catalog_shows_what_a_mark_promises(self, nats_server: NatsServer, store: str) -> None:
        """Whoever waits until a run is stored finds it in the catalog as it was stored."""
        source = logged()
        source.close()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send(source.cut(1))
            mark = await broker.stored(source)
            (row,) = read_rows(open_store(store), PROJECT)
        assert (row.experiment, row.commit, row.id, row.state) == (source.experiment, mark.commit, "DIG-1", "succeeded")
        assert row.metrics == {"loss": 99.5}

    async def test_row_that_was_never_written_is_written_by_the_next(self, nats_server: NatsServer, store: str) -> None:
        """A collector that meets frames of a run which the catalog does not show puts it there."""
        source = logged()
        async with Broker.connected(nats_server.url) as broker:
            async with collecting(nats_server.url, store):
                await broker.send(source.cut(1))
                await broker.stored(source)
            shutil.rmtree(Path(store) / PROJECT / "catalog")
            async with collecting(nats_server.url, store):
                await broker.send(source.cut(1))
                await broker.emptied()
        assert [row.experiment for row in read_rows(open_store(store), PROJECT)] == [source.experiment]

    async def test_finished_run_is_merged_into_one_part(
        self, nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the end of a run its small parts become one, with every point in it."""
        monkeypatch.setattr(upkeep, "SETTLE_S", 0.0)
        source = logged()
        source.close()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            for sent in source.cut(5):
                await broker.send([sent])
                await broker.stored(source, sent.end)
            await until(lambda: len(parts(store, source)) == 1, "one part is left")
        assert points(store, source.experiment) == sorted(source.points)

    async def test_long_run_is_merged_while_it_goes_on(
        self, nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run of many commits never has more parts than its limit for long, and commits go on beside the merging."""
        source = logged(300)
        async with (
            Broker.connected(nats_server.url) as broker,
            collecting(nats_server.url, store, commit_interval_s=0.01),
        ):
            for sent in source.cut(PARTS_MAX + 20):
                await broker.send([sent])
                await broker.stored(source, sent.end)
            await until(lambda: len(parts(store, source)) < PARTS_MAX, "parts were merged")
        assert points(store, source.experiment) == sorted(source.points)

    async def test_figures_and_health_are_served(self, nats_server: NatsServer, store: str) -> None:
        """What was stored is counted for Prometheus, and /healthz says what the collector does."""
        source, port = logged(100), free_port()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store, metrics_port=port):
            await broker.send(source.cut(2))
            await broker.stored(source)
            figures = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
            health = json.loads(await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/healthz"))
        assert "headrace_collector_points_total 100.0" in figures
        assert f"headrace_collector_bytes_total {source.end}.0" in figures
        assert (health["ok"], health["partitions"], health["experiments"]) == (True, [0, 1, 2, 3], 1)


def parts(store: str, source: Source) -> list[str]:
    """The live numeric parts of a source's experiment."""
    head = Chain(open_store(store), PROJECT, source.experiment).load().head
    return [part.path for part in head.parts.numeric] if head else []


def _get(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


class TestGaps:
    async def test_gap_is_asked_for_and_healed(self, nats_server: NatsServer, store: str) -> None:
        """A frame that never came is asked for from where it is missing; with it, all is stored once."""
        source = logged()
        frames = source.cut(5)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([frames[0], *frames[2:]])
            await until(lambda: broker.rewinds, "the agent is asked to send again")
            assert broker.rewinds[0] == Rewind(source.id, frames[1].first)
            await broker.send(frames[1:])
            await broker.stored(source)
            await broker.emptied()
        assert points(store, source.experiment) == sorted(source.points)

    async def test_gap_of_one_source_holds_up_nobody(self, nats_server: NatsServer, store: str) -> None:
        """While one source waits for what is missing, another of the same experiment is stored."""
        owner = logged()
        rank = Source(owner.experiment, role="rank")
        rank.log("loss", 10)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send(owner.cut(4)[1:])
            await broker.send(rank.cut(1))
            await broker.stored(rank)

    async def test_lost_range_lets_the_watermark_pass_and_is_filled(self, nats_server: NatsServer, store: str) -> None:
        """A range that its agent gave up is recorded as lost; when its bytes come after all, it is stored and gone."""
        source = logged()
        frames = source.cut(4)
        given_up = source.frame(frames[2].first, frames[2].end, FrameKind.LOST, reason="damaged")
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([*frames[:2], given_up, frames[3]])
            await broker.stored(source)
            lost = document(store, source.experiment).sources[source.id].lost
            assert [(gap.first, gap.end) for gap in lost] == [(given_up.first, given_up.end)]
            await broker.send([frames[2]])
            await broker.emptied()
        assert document(store, source.experiment).sources[source.id].lost == ()
        assert points(store, source.experiment) == sorted(source.points)


class TestQuarantine:
    @pytest.mark.parametrize("change", ["body", "header", "version", "truncated", "empty"])
    async def test_frame_that_cannot_be_read_moves_nothing(
        self, nats_server: NatsServer, store: str, change: str
    ) -> None:
        """Damaged or unknown frames are kept aside with their subject, never move a watermark, and are asked for again."""
        source = logged()
        good = source.cut(3)
        bad = bytearray(encoded(good[1]))
        bad[{"body": -20, "header": 12, "version": 3}.get(change, 0)] ^= 0x10
        data = {"truncated": bytes(bad[: len(bad) // 2]), "empty": b""}.get(change, bytes(bad))
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([good[0]])
            await broker.js.publish(subject_of(good[1]), data)
            await until(lambda: quarantined(store), "the frame is put aside")
            assert quarantined(store)[0].read_bytes() == data
            assert subject_of(good[1]) in quarantined(store)[0].with_suffix(".json").read_text()
            await until(lambda: broker.rewinds, "it is asked for again")
            assert broker.rewinds[0].source == source.id
            assert broker.rewinds[0].position <= good[1].first
            await broker.send(good[1:])
            await broker.stored(source)
            await broker.emptied()
        assert points(store, source.experiment) == sorted(source.points)
        assert document(store, source.experiment).sources[source.id].lost == ()

    async def test_poison_passes_as_lost_and_stops_nobody(self, nats_server: NatsServer, store: str) -> None:
        """A frame that is sound but whose events are not is kept aside, recorded as lost, and what follows is stored."""
        source = logged()
        frames = source.cut(4)
        garbage = Frame(
            FrameKind.EVENTS, source.project, source.experiment, source.id, frames[1].first, frames[1].end,
            b"\xc1" * (frames[1].end - frames[1].first), site=SITE,
        )  # fmt: skip
        squashed = frames[2]._replace(body=b"no zstd", codec=Codec.ZSTD)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([frames[0], garbage, squashed, frames[3]])
            await broker.stored(source)
            await broker.emptied()
        lost = document(store, source.experiment).sources[source.id].lost
        assert sorted((gap.first, gap.end) for gap in lost) == [(f.first, f.end) for f in frames[1:3]]
        assert len(quarantined(store)) == 2

    async def test_batch_that_contradicts_the_store_is_put_aside(self, nats_server: NatsServer, store: str) -> None:
        """A batch that would have to be cut inside an event is kept aside and asked for again, and moves nothing."""
        source = logged()
        half = source.ends[50]
        crooked = Source(source.experiment)
        crooked.id = source.id
        crooked.log("other name", 120)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send([source.frame(0, half)])
            await broker.stored(source, half)
            await broker.send([crooked.frame(0, crooked.end)])
            await until(lambda: quarantined(store) and broker.rewinds, "it is put aside and asked for")
            await broker.send([source.frame(half, source.end)])
            await broker.stored(source)
            await broker.emptied()
        assert points(store, source.experiment) == sorted(source.points)

    async def test_frame_under_another_source_s_subject_is_refused(self, nats_server: NatsServer, store: str) -> None:
        """Permissions are given by subject: a frame that is about somebody else is put aside."""
        mine, other = logged(), logged()
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.js.publish(subject_of(mine.cut(1)[0]), encoded(other.cut(1)[0]))
            await until(lambda: quarantined(store), "the frame is put aside")
            await broker.emptied()
        assert document(store, other.experiment).id == ""

    @pytest.mark.parametrize("project", ["../../etc", "no-slash", "a/b/c", ""])
    async def test_hostile_project_name_is_refused(self, nats_server: NatsServer, store: str, project: str) -> None:
        """A project becomes a folder, so a frame that names none is put aside."""
        source = Source(project=project)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store):
            await broker.send(source.cut(1))
            await until(lambda: quarantined(store), "the frame is put aside")
            await broker.emptied()


class TestBroker:
    # -- Fault 10: nothing lost, nothing twice -----------------------------------------------------------------------

    async def test_broker_that_restarts_loses_nothing(self, start_nats: Callable[..., NatsServer], store: str) -> None:
        """A broker killed and started again between frames: all is stored once."""
        server, source = start_nats(), logged(200)
        frames = source.cut(10)
        async with collecting(server.url, store):
            async with Broker.connected(server.url) as broker:
                await broker.send(frames[:5])
            server.kill()
            server.start()
            async with Broker.connected(server.url) as broker:
                await broker.send(frames[4:])
                await broker.stored(source)
                await broker.emptied()
        assert points(store, source.experiment) == sorted(source.points)

    async def test_stream_made_anew_is_served_and_keeps_its_messages(self, nats_server: NatsServer, store: str) -> None:
        """A stream deleted and made again gets new consumers, and no acknowledgement of the old one removes anything."""
        source = logged()
        frames = source.cut(6)
        async with (
            Broker.connected(nats_server.url) as broker,
            collecting(nats_server.url, store, commit_interval_s=3600) as one,
        ):
            await broker.send(frames[:1])
            await broker.stored(source, frames[0].end)
            await broker.send(frames[1:3])
            await until(lambda: dict(one.health().facts)["waiting_bytes"], "frames of the old stream are held")
            await broker.js.delete_stream(subjects.EVENTS_STREAM)
            async with Broker.connected(nats_server.url) as again:  # makes the streams that are missing
                await again.send(frames)
                await again.send([source.frame(source.end, source.end, flush=True)])
                await again.stored(source)
                await again.emptied()
        assert points(store, source.experiment) == sorted(source.points)

    async def test_connection_closed_for_good_ends_the_collector(self, nats_server: NatsServer, store: str) -> None:
        """When the broker will not have this client any more, the collector ends with an error that says so."""
        collector = Collector(CollectorSettings(nats=nats_server.url, store=store, partitions=PARTITIONS))
        running = asyncio.create_task(collector.run(asyncio.Event()))
        await until(lambda: held(collector), "it serves")
        assert collector._site is not None
        await collector._site.client.close()
        with pytest.raises(BrokerLost, match="credentials"):
            await running

    async def test_silent_experiment_is_let_go_of(
        self, nats_server: NatsServer, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An experiment that has nothing to say takes no memory, and is loaded again when it speaks."""
        monkeypatch.setattr(partition, "IDLE_S", 0.0)
        source = logged()
        frames = source.cut(2)
        async with Broker.connected(nats_server.url) as broker, collecting(nats_server.url, store) as one:
            await broker.send(frames[:1])
            await broker.stored(source, frames[0].end)
            await until(lambda: dict(one.health().facts)["experiments"] == 0, "it is let go of")
            await broker.send(frames[1:])
            await broker.stored(source)
        assert points(store, source.experiment) == sorted(source.points)

    async def test_other_number_of_partitions_after_all_have_stopped(self, nats_server: NatsServer, store: str) -> None:
        """Consumers of another division do not stand in the way of a new one, and what they left is stored."""
        sources = [logged(10) for _ in range(6)]
        async with Broker.connected(nats_server.url) as broker:
            async with collecting(nats_server.url, store, partitions=4) as collector:
                await until(lambda: len(held(collector)) == 4, "all partitions are held")
            await broker.send(frame for source in sources for frame in source.cut(1))
            async with collecting(nats_server.url, store, partitions=3):
                for source in sources:
                    await broker.stored(source)
                await broker.emptied()

    async def test_new_consumer_replaces_its_predecessor(self, nats_server: NatsServer) -> None:
        """A new holder's consumer is the only one of its partition; what the old one held unacknowledged comes at once."""
        queue = Queue(subjects.EVENTS_STREAM, subjects.EVENTS_PREFIX, 0, 1)
        async with Broker.connected(nats_server.url) as broker:
            await broker.send(logged().cut(1))
            first = (await make_consumer(broker.js, queue, 1)).name
            pull = await broker.js.pull_subscribe_bind(consumer=first, stream=queue.stream)
            assert len(await pull.fetch(1)) == 1
            second = (await make_consumer(broker.js, queue, 2)).name
            assert [info.name for info in await broker.js.consumers_info(queue.stream)] == [second]
            pull = await broker.js.pull_subscribe_bind(consumer=second, stream=queue.stream)
            assert len(await pull.fetch(1)) == 1
