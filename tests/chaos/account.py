"""Where what is missing was last seen: the journal, the stream, the store. What a person needs to begin with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

import nats
from nats.js.errors import Error as JetStreamError

from headrace_agent.marks import read_mark
from headrace_proto import subjects
from headrace_proto.errors import HeadraceError
from headrace_proto.journal import JournalReader
from tests.chaos.oracle import PROJECT, Findings, ranges
from tests.chaos.producers import Producer
from tests.path.stack import Stack

QUEUES = (subjects.EVENTS_STREAM, subjects.FILES_STREAM)
EMPTY_S = 15.0
Left = dict[str, dict[str, int]]


def left_in_streams(url: str) -> Left:
    """Messages by subject in each queue, once they had time to be acknowledged."""
    return asyncio.run(_left(url))


def account_for(findings: Findings, stack: Stack, producers: Sequence[Producer], left: Left) -> None:
    """Say where each lost call was last seen, and what the streams still hold."""
    for stream, by_subject in left.items():
        findings.expect(not by_subject, f"{stream} is not empty: {by_subject}")
    for producer in producers:
        lost = findings.lost_of.get(producer.number)
        names = producer.names
        if lost is not None and names is not None:
            source, experiment = names["source"], names["experiment"]
            waiting = {s: n for found in left.values() for s, n in found.items() if source in s}
            findings.say(
                f"source {producer.number} ({source}) lost {ranges(lost)}: {_journal(stack, source)}; the stream holds "
                f"{waiting or 'nothing of it'}; {_store(stack, experiment, source)}"
            )


async def _left(url: str) -> Left:
    client = await nats.connect(url)
    found: Left = {}
    try:
        js = client.jetstream()
        for stream in QUEUES:
            for _ in range(int(EMPTY_S * 10)):
                with suppress(JetStreamError):
                    info = await js.stream_info(stream, subjects_filter=">")
                    found[stream] = dict(info.state.subjects or {}) if info.state.messages else {}
                    if not found[stream]:
                        break
                await asyncio.sleep(0.1)
    finally:
        await client.close()
    return found


def _journal(stack: Stack, source: str) -> str:
    folder = stack.home.journal(source)
    try:
        reader = JournalReader(folder)
    except (HeadraceError, OSError):
        return "its journal is gone from the node"
    mark = read_mark(folder)
    said = (
        f"its journal holds [{reader.oldest}, {reader.end}), its agent keeps the mark {mark.position if mark else None}"
    )
    reader.close()
    return said


def _store(stack: Stack, experiment: str, source: str) -> str:
    commits = sorted((stack.store / PROJECT / "experiments" / experiment / "commits").glob("*.json"))
    if not commits:
        return "the store has no commit of the experiment"
    state = json.loads(commits[-1].read_text()).get("sources", {}).get(source)
    return (
        f"the store's newest commit {int(commits[-1].stem)} stands at {state['position'] if state else 'nothing of it'}"
    )
