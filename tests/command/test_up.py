"""`headrace up`: three real children, started, killed, restarted, stopped."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

import headrace as hr
from headrace.command.running import PARTS, Running, record_file, running
from headrace.reading import StoredProject
from headrace.service.nats_server import NatsServer
from headrace_proto.home import Home
from tests.command.conftest import Up, log_of
from tests.processes import is_alive
from tests.waiting import wait_until


def log_an_experiment(home: Home, value: float) -> str:
    """One experiment with one point, journaled and stopped."""
    project = hr.init("work/up", home=home.root)
    with project.create_experiment(
        upload_source_files=[], upload_stdout=False, upload_stderr=False, send_hardware_metrics=False
    ) as experiment:
        experiment.log_metric("value", 0, value)
    return str(experiment.internal_id)


def stored_values(store: str) -> dict[str, float]:
    """Internal id -> the last value, as the store has it."""
    return {row.experiment: row.metrics["value"] for row in StoredProject(store, "work/up").rows() if row.metrics}


class Story(NamedTuple):
    """An `up` from its start to its stop, and what could be seen of it."""

    home: Home
    there: Running
    first: Up
    second: Up
    pids: list[int]
    served: list[bool]
    mapped: str
    served_after_second: bool
    second_said: str
    said: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Start an `up`, start a second one beside it, stop the first."""
    home = Home(tmp_path_factory.mktemp("story"))
    first = Up(home)
    there = first.ready()
    pids = [first.pid(part) for part in PARTS]
    served = [is_alive(pid) for pid in pids]
    mapped = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in [there.pid, *pids])
    second = Up(home)
    second_said = second.ended()
    after = running(home) == there
    return Story(home, there, first, second, pids, served, mapped, after, second_said, first.stop())


def test_up_serves_until_it_is_stopped_and_leaves_nothing_behind(story: Story) -> None:
    """All parts run and have pid files; after SIGTERM no process, pid file or record is left, and the exit code is 0."""
    assert story.served == [True, True, True]
    assert story.there.pid == story.first.process.pid
    assert story.first.process.returncode == 0
    assert "stopped" in story.said
    assert not any(is_alive(pid) for pid in story.pids)
    assert os.listdir(Path(story.home.root) / "run") == ["up.lock"]


def test_no_part_carries_what_it_has_no_use_for(story: Story) -> None:
    """Neither aiohttp, which nats-py would import, nor pandas and ways to S3, which Arrow would, are in a process that stays."""
    assert "/pyarrow/" in story.mapped
    for unused in ("/aiohttp/", "/multidict/", "/pandas/", "/libarrow_s3", "/pyarrow/_s3fs"):
        assert unused not in story.mapped


def test_second_up_names_the_first(story: Story) -> None:
    """A second `up` on the same home ends at once and says which process serves it; the first does not notice."""
    assert story.second.process.returncode == 2
    assert f"as process {story.first.process.pid}" in story.second_said
    assert story.served_after_second


def test_stop_goes_agent_collector_nats_server(story: Story) -> None:
    """The agent has ended before the collector has stopped, and the collector before nats-server begins to."""
    agent = re.findall(r"^(\S+)Z .*connection closed", log_of(story.home, "agent"), re.MULTILINE)[-1]
    collector = re.findall(r"^(\S+)Z .*: stopped", log_of(story.home, "collector"), re.MULTILINE)[-1]
    nats = re.findall(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d+).*Trapped", log_of(story.home, "nats-server"))[-1]
    offset = datetime.now().astimezone().utcoffset()
    assert offset is not None
    stopped = datetime.fromisoformat(collector)
    assert datetime.fromisoformat(agent) <= stopped
    assert stopped <= datetime.strptime(nats, "%Y/%m/%d %H:%M:%S.%f") - offset  # noqa: DTZ007 - nats logs local time


def test_what_was_logged_before_is_stored_by_a_later_up(up: Callable[..., Up], home: Home) -> None:
    """With nothing running a program logs and ends; the next `up` stores it."""
    first = log_an_experiment(home, 1.5)
    there = up().ready()
    wait_until(lambda: stored_values(there.store) == {first: 1.5}, "the store has it")


def test_every_part_comes_back_after_sigkill(up: Callable[..., Up], home: Home) -> None:
    """Each child is killed in turn, with nats-server coming back on its port and files, and events still reach the store."""
    served = up()
    there = served.ready()
    wanted = {}
    for value, part in enumerate(PARTS):
        before = served.pid(part)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda part=part, before=before: served.pid(part) != before, f"{part} starts again")  # type: ignore[misc]
        wanted[log_an_experiment(home, value)] = float(value)
        wait_until(lambda: stored_values(there.store) == wanted, f"events pass after {part} was killed", 60)
    said = served.stop()
    for part in PARTS:
        assert f"{part} was ended by SIGKILL; it starts again in" in said


def test_killed_up_leaves_no_process_and_the_next_one_starts(up: Callable[..., Up], home: Home) -> None:
    """After SIGKILL of `up` its children end by themselves, its record misleads nobody, and another `up` serves."""
    first = up()
    first.ready()
    pids = [first.pid(part) for part in PARTS]
    first.process.kill()
    first.process.wait()
    assert Path(record_file(home)).exists()
    assert running(home) is None
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the children have ended")
    assert up().ready().pid != first.process.pid


def test_part_that_cannot_start_ends_up_with_its_words(up: Callable[..., Up], home: Home) -> None:
    """When the collector refuses its store, `up` says why, ends with code 2, and leaves no process."""
    served = up("--store", "nowhere://bucket")
    said = served.ended()
    assert served.process.returncode == 2
    assert "collector" in said
    assert "nowhere" in said
    assert "Traceback" not in said
    assert os.listdir(Path(home.root) / "run") == ["up.lock"]


def test_taken_port_is_named_with_the_remedy(up: Callable[..., Up], nats_server: NatsServer) -> None:
    """When something listens on --nats-port, `up` says which port, and how to choose another."""
    served = up("--nats-port", str(nats_server.port))
    said = served.ended()
    assert f"port {nats_server.port} " in said
    assert "--nats-port" in said
    assert served.process.returncode == 2


def test_signal_during_the_start_stops_it(up: Callable[..., Up], home: Home) -> None:
    """Whoever presses Ctrl-C before all parts have answered is not kept waiting for them."""
    served = up()
    wait_until(Path(home.pid_file("nats-server")).exists, "nats-server starts")
    assert "Traceback" not in served.stop()
    assert served.process.returncode == 0
    assert os.listdir(Path(home.root) / "run") == ["up.lock"]


def test_port_and_store_of_the_settings_file_are_used(up: Callable[..., Up], home: Home, tmp_path: Path) -> None:
    """The table [up] of the home's settings file says where to store."""
    Path(home.settings_file).write_text(f'[up]\nstore = "{tmp_path}/elsewhere"\n')
    assert up().ready().store == f"{tmp_path}/elsewhere"


@pytest.mark.parametrize(
    ("text", "words"),
    [("[up]\nstoer = 'x'\n", "'stoer'"), ("[up]\nnats_port = 'x'\n", "'nats_port'"), ("[up\n", "cannot be read")],
)
def test_mistakes_in_the_settings_file_are_named(
    headrace: Callable[..., object], home: Home, refused: Callable[..., str], text: str, words: str
) -> None:
    """A wrong key or value is one line that names it and the file."""
    Path(home.settings_file).write_text(text)
    line = refused("up", "--home", home.root)
    assert words in line
    assert "headrace.toml" in line
