"""`headrace close-gap`, and a node that comes back with what was given up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from nats.js.errors import NotFoundError

from headrace.service.broker import connect, ensure_streams
from headrace_proto import subjects
from headrace_proto.ids import random_id
from tests.path.stack import Stack, document, experiments, points, retry
from tests.waiting import wait_until


def headrace(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.command", *arguments]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=60)


async def make_streams(url: str) -> None:
    client = await connect(url, name="test", on_event=lambda text: None)
    await ensure_streams(client.jetstream())
    await client.close()


async def take_out(url: str, count: int) -> int:
    """Remove some messages from the middle of the stream of events, as bit rot does; how many it had."""
    client = await connect(url, name="test", on_event=lambda text: None)
    js = client.jetstream()
    last = (await js.stream_info(subjects.EVENTS_STREAM)).state.last_seq
    for sequence in range(last // 2, last // 2 + count):
        await js.delete_msg(subjects.EVENTS_STREAM, sequence)
    await client.close()
    return last


async def streamed(url: str) -> int:
    client = await connect(url, name="test", on_event=lambda text: None)
    try:
        return (await client.jetstream().stream_info(subjects.EVENTS_STREAM)).state.last_seq
    except NotFoundError:
        return 0
    finally:
        await client.close()


@pytest.mark.timeout(200)
def test_a_node_that_returns_fills_the_gap_that_was_closed_in_its_absence(tmp_path: Path) -> None:
    """Messages lost by the broker while their node was off are given up by command; the node's journal brings them after all."""
    with Stack(tmp_path) as stack:
        stack.nats.start()
        asyncio.run(make_streams(stack.nats.url))
        stack.start_agent()
        trainer = stack.start_trainer(seed=1, pace_s=1e-4)
        wait_until(lambda: asyncio.run(streamed(stack.nats.url)) >= 12, "batches are in the stream")
        trainer.kill()
        stack.kill("agent")
        asyncio.run(take_out(stack.nats.url, 2))
        stack.start_collector()
        wait_until(lambda: experiments(stack.store), "the beginning is stored")
        (experiment,) = experiments(stack.store)
        wait_until(lambda: _closed(stack, experiment), "the gap is closed")
        facts = document(stack.store, experiment)
        assert facts["notes"]["lost_bytes"] > 0
        assert len(points(stack.store, experiment, "v")) < trainer.returned
        stack.start_agent()
        stack.wait_drained()

        def complete() -> None:
            assert document(stack.store, experiment)["notes"]["lost_bytes"] == 0
            stored = points(stack.store, experiment, "v")
            assert stored == [(float(i), 1e7 + i) for i in range(len(stored))]
            assert trainer.returned <= len(stored) <= trainer.returned + 1

        wait_until(retry(complete), "every event whose call returned is stored, once")


def _closed(stack: Stack, experiment: str) -> bool:
    done = headrace(stack, "close-gap", experiment, "--nats", stack.nats.url)
    assert done.returncode == 0, done.stderr
    return "gave up" in done.stdout and "stored what had waited" in done.stdout


def test_close_gap_says_when_nobody_can_do_it(tmp_path: Path) -> None:
    """No broker, no collector, and an experiment of which nothing waits are told apart."""
    with Stack(tmp_path) as stack:
        stack.nats.start()
        alone = headrace(stack, "close-gap", random_id(), "--nats", stack.nats.url)
        assert (alone.returncode, "no collector is connected" in alone.stderr) == (2, True), alone.stderr
        stack.start_collector()
        wait_until(lambda: _answers(stack, random_id()), "a collector answers")


def _answers(stack: Stack, experiment: str) -> bool:
    done = headrace(stack, "close-gap", experiment, "--nats", stack.nats.url)
    return done.returncode == 0 and f"nothing of {experiment} waits above a gap" in done.stdout
