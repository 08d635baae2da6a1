"""The bell: it rings for what comes, at once; and an agent whose bell is deaf works as well."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify

from headrace.service.nats_server import NatsServer
from headrace_agent import bell as belling
from headrace_agent import tail as tailing
from headrace_agent.bell import Bell
from headrace_agent.source import Source
from headrace_agent.sync import Syncer
from headrace_agent.tail import Tail
from headrace_proto.events import Outcome
from headrace_proto.home import Home
from headrace_proto.journal import JournalWriter
from tests.agent.conftest import Serve, log_points, new_writer
from tests.agent.far_end import FarEnd
from tests.waiting import until

LONG_S = 60.0


async def rings(bell: Bell) -> None:
    """Wait until it does, which the clock would not do in time."""
    async with asyncio.timeout(LONG_S):
        await bell.rung(2 * LONG_S)


async def test_it_rings_for_what_comes_into_a_folder(tmp_path: Path) -> None:
    """A file that is made there, and a folder that is moved there."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "made elsewhere").mkdir()
    with Bell([str(tmp_path / "a"), str(tmp_path / "b")], [], hears=True) as bell:
        assert not bell.deaf
        (tmp_path / "a" / "file").touch()
        await rings(bell)
        (tmp_path / "made elsewhere").rename(tmp_path / "b" / "folder")
        await rings(bell)
        (tmp_path / "a" / "file").unlink()
        await bell.rung(0.05)  # nothing came: this is only over when its time is


async def test_it_rings_for_a_descriptor_and_when_it_is_rung() -> None:
    """As that of the processes that ended."""
    readable, writable = os.pipe()
    try:
        with Bell([], [readable], hears=False) as bell:
            assert bell.deaf
            os.write(writable, b"!")
            await rings(bell)
            os.read(readable, 1)
            bell.ring()
            await rings(bell)
    finally:
        os.close(readable)
        os.close(writable)


async def test_a_folder_that_is_taken_away_makes_it_deaf_until_there_is_one_again(tmp_path: Path) -> None:
    """What is made in its place is another folder, of which the kernel says nothing before it is asked."""
    folder = tmp_path / "journals"
    folder.mkdir()
    with Bell([str(folder)], [], hears=True) as bell:
        folder.rmdir()
        await until(lambda: bell.deaf, "it is deaf")
        bell.listen()
        heard = [not bell.deaf]  # there is none
        folder.mkdir()
        bell.listen()
        heard.append(not bell.deaf)
        assert heard == [False, True]
        await bell.rung(0.0)
        (folder / "file").touch()
        await rings(bell)


async def test_when_the_kernel_drops_what_it_had_to_tell_it_rings_and_listens_again(tmp_path: Path) -> None:
    """What was dropped may be that a folder was taken away: it hears of the one in its place."""
    folder = tmp_path / "journals"
    folder.mkdir()
    names = [folder / "a", folder / "b"]
    names[0].touch()
    with Bell([str(folder)], [], hears=True) as bell:
        for nth in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 1):
            names[nth % 2].rename(names[1 - nth % 2])
        shutil.rmtree(folder)
        folder.mkdir()
        await rings(bell)
        while await bell.rung(0.05):
            pass
        (folder / "file").touch()
        await rings(bell)
        assert not bell.deaf


async def test_without_an_instance_or_a_watch_it_says_so_once_and_hears_when_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """EMFILE at the one, ENOSPC at the other, as long as others have them all; no descriptor of ours stays open meanwhile."""
    caplog.set_level(logging.INFO, logger="headrace_agent.bell")
    refused: dict[str, int] = {"__init__": errno.EMFILE}

    def none_left(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if name in refused:
                raise OSError(refused[name], os.strerror(refused[name]))
            return real(*arguments, **named)

        return called

    INotify().close()  # which loads what it needs
    for name in ("__init__", "add_watch"):
        monkeypatch.setattr(INotify, name, none_left(name, getattr(INotify, name)))
    before = len(os.listdir("/proc/self/fd"))
    with Bell([str(tmp_path)], [], hears=True) as bell:
        bell.listen()
        refused = {"add_watch": errno.ENOSPC}
        bell.listen()
        assert (bell.deaf, len(caplog.records), len(os.listdir("/proc/self/fd"))) == (True, 1, before)
        refused = {}
        bell.listen()
        (tmp_path / "file").touch()
        await rings(bell)
        assert not bell.deaf


async def test_of_a_folder_that_was_moved_it_hears_nothing_more(tmp_path: Path) -> None:
    """As soon as it has listened again it hears of the one in its place, and that the other is not watched makes it not deaf."""
    folder, moved = tmp_path / "journals", tmp_path / "moved"
    folder.mkdir()
    with Bell([str(folder)], [], hears=True) as bell:
        folder.rename(moved)
        folder.mkdir()
        bell.listen()
        await bell.rung(0.05)  # the kernel says that it watches the other no more
        (moved / "file").touch()
        assert not await bell.rung(0.05)
        (folder / "file").touch()
        await rings(bell)
        assert not bell.deaf


@pytest.mark.parametrize("deaf", [False, True])
async def test_what_a_trainer_does_is_noticed_with_the_bell_and_without(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch, *, deaf: bool
) -> None:
    """A new journal, what it logs after a rest, and that somebody waits. With an ear, that is not the doing of the clock."""
    if deaf:
        monkeypatch.setattr(belling, "INotify", _no_instance)
    else:
        monkeypatch.setattr(tailing, "STEADY_S", LONG_S)
    async with FarEnd(nats_server.url, answering=False) as far, serve() as agent:
        await until(lambda: agent.tail._bell.deaf == deaf, "it listens, or cannot")
        writer = new_writer(home)
        log_points(writer, 10)
        await far.has_all(writer, "a new journal is found, and shipped")
        open(home.flush_request(writer.experiment), "w").close()
        await until(lambda: writer.source in far.flushed, "the question is passed on")
        writer.close(Outcome.SUCCEEDED)
        open(home.flush_request(writer.experiment), "w").close()
        await far.has_all(writer, "the end is shipped as well")


async def test_a_journal_that_appears_while_another_settles_is_shipped_as_soon(
    home: Home, nats_server: NatsServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rings meanwhile, and the look after that finds it: nobody waits for the next steady look."""
    monkeypatch.setattr(tailing, "STEADY_S", LONG_S)
    look, writers = Tail.look, list[JournalWriter]()

    def looked(tail: Tail, now_ns: int, **how: bool) -> None:
        look(tail, now_ns, **how)
        if not writers:
            writers.append(new_writer(home))
            log_points(writers[0], 10)

    monkeypatch.setattr(Tail, "look", looked)
    async with FarEnd(nats_server.url) as far, serve():
        await until(lambda: writers and far.watermark(writers[0].source) == writers[0].position, "it is shipped")
        writers[0].close(Outcome.SUCCEEDED)


async def test_however_much_appears_there_are_steady_looks(
    home: Home, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rings during each look, as with a thousand trainers that wait: what is to be synced is known all the same."""
    look, rounds = Tail.look, list[float]()

    def looked(tail: Tail, now_ns: int, **how: bool) -> None:
        look(tail, now_ns, **how)
        asyncio.get_running_loop().call_soon(tail._bell.ring)

    async def counted(_: Syncer, now_s: float) -> None:
        rounds.append(now_s)

    monkeypatch.setattr(Tail, "look", looked)
    monkeypatch.setattr(Syncer, "work", counted)
    async with serve():
        await until(lambda: len(rounds) >= 3, "what follows a steady look is done again and again")


def _no_instance(**_: object) -> None:
    raise OSError(24, "no inotify instance is left")


async def test_steady_sources_are_left_alone_between_two_steady_looks(
    home: Home, nats_server: NatsServer, serve: Serve
) -> None:
    """However often they log, and although another source rests, which is watched ten times a second."""
    async with FarEnd(nats_server.url) as far, serve() as agent:
        resting, writer = new_writer(home), new_writer(home)
        log_points(resting, 1)
        logging = asyncio.create_task(_log_often(writer))
        await until(lambda: far.watermark(writer.source) > 0 and len(agent.tail._rest) == 1, "one rests, one does not")
        looks, polls = agent.tail._looks, _polls(agent.tail.lanes[writer.source].source)
        await until(lambda: agent.tail._looks - looks >= len(polls) + 12, "a dozen looks without it")
        logging.cancel()
        resting.close(Outcome.SUCCEEDED)
        writer.close(Outcome.SUCCEEDED)
        await far.has_all(writer, "all arrived")


def _polls(source: Source) -> list[int]:
    """When the source is looked at from now on."""
    polls: list[int] = []
    poll = source.poll

    def counted(now_ns: int) -> None:
        polls.append(now_ns)
        poll(now_ns)

    source.poll = counted  # type: ignore[method-assign]
    return polls


async def _log_often(writer: JournalWriter) -> None:
    for step in range(10**9):
        log_points(writer, 5, 5 * step)
        await asyncio.sleep(0.02)
