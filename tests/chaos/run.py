"""A run: producers log, faults happen by schedule, then all is let drain and the store is judged."""

from __future__ import annotations

import heapq
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple, cast

from headrace_proto import subjects
from tests.chaos.account import account_for, left_in_streams
from tests.chaos.bucket import Bucket
from tests.chaos.damage import flip_a_byte
from tests.chaos.figures import Counters
from tests.chaos.links import Links
from tests.chaos.oracle import PROJECT, Findings, judge
from tests.chaos.producers import Producer
from tests.chaos.schedule import AGENT, BROKER, COLLECTORS, KILLS, LINKS, STORE, TRAINERS, Fault, schedule
from tests.faults.broker import roll_back, wipe
from tests.faults.http_proxy import HttpFault
from tests.path.stack import Stack, journal_ends
from tests.waiting import wait_until

LOOK_S: Final = 0.25
REMOTE_INTERVAL_S: Final = 1.0
TOLD_STALL_S: Final = 5.0
SETTLED_BYTES: Final = 64 * 1024
"""A journal's beginning, where its channels are defined, is left alone: what they cost to lose is not counted in calls."""
DRAIN_S: Final = 120.0
FSCK_S: Final = 300.0
FRESH_EVENTS: Final = 1_000


class Plan(NamedTuple):
    """What to do: `mean_s` between two faults, `per_s` calls a second of all producers together."""

    seconds: float
    seed: int
    lossy: bool = False
    remote: bool = False
    """On S3, as moto plays it, which fails too."""
    mean_s: float = 2.0
    per_s: float = 24_000.0


class Report(NamedTuple):
    """How it went."""

    plan: Plan
    faults: Counter[str]
    returned: int
    findings: Findings
    heal_s: float
    """From the last fault until everything that was logged up to then was stored and freed from the node."""
    stall_s: float
    """The longest time in which an experiment that was logged to had no new commit."""
    figures: dict[str, int]

    @property
    def kills(self) -> int:
        """Processes killed."""
        return kills_of(self.faults)


class Chaos:
    """One run in `folder`, which is left as it is at the end. `tell` hears a line now and then."""

    def __init__(self, folder: Path, plan: Plan, tell: Callable[[str], None] = lambda line: None) -> None:
        self._plan = plan
        self._tell = tell
        self._dice = random.Random(plan.seed + 1)
        self._folder = folder
        self._bucket = Bucket(plan.seed) if plan.remote else None
        self._counters = {name: Counters(folder / f"{name}.log") for name in LINKS}
        self._producers: list[Producer] = []
        self._working: dict[str, Producer] = {}
        self._keys = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._faults: Counter[str] = Counter()
        self._stopped: set[str] = set()
        self._busy: set[str] = set()  # who is in the middle of a fault
        self._commits: dict[str, tuple[str, float]] = {}
        self._stall_s = 0.0
        self._looked_s = 0.0

    def run(self) -> Report:
        """Everything, to the verdict."""
        with ExitStack() as open_parts:
            if self._bucket:
                open_parts.enter_context(self._bucket)
                self._stack = Stack(self._folder, store_url=self._bucket.url, environment=self._bucket.environment)
            else:
                self._stack = Stack(self._folder)
            open_parts.enter_context(self._stack)
            self._links = open_parts.enter_context(Links(self._stack.nats.url, LINKS))
            open_parts.enter_context(closing(self))
            return self._run()

    def _run(self) -> Report:
        self._stack.nats.start()
        for name in LINKS:
            self._start(name)
        for name in LINKS:
            wait_until(self._counters[name].look, f"the {name} is up")
        for name in TRAINERS:
            self._start(name)
        self._make_faults()
        healed_s = self._drain()
        left = left_in_streams(self._stack.nats.url)
        for name in LINKS:
            self._counters[name].look()
        statuses = {name: self._stack.stop(name) for name in LINKS}  # what is judged must rest
        if self._bucket:
            self._bucket.download(self._stack.store)
        findings = judge(self._stack.store, self._producers)
        account_for(findings, self._stack, self._producers, left)
        findings.expect(not any(statuses.values()), f"not every part stopped in peace: {statuses}")
        self._check_emptiness(findings)
        self._ask_fsck(findings)
        returned = sum(producer.returned for producer in self._producers)
        return Report(self._plan, self._faults, returned, findings, healed_s, self._stall_s, self._sum_figures())

    def close(self) -> None:
        """Leave no trainer behind, however this ends."""
        for producer in self._producers:
            if producer.alive:
                producer.kill()

    # -- Faults --------------------------------------------------------------------------------------------------------

    def _make_faults(self) -> None:
        plan, began = self._plan, time.monotonic()
        for fault in schedule(plan.seed, plan.seconds, plan.mean_s, lossy=plan.lossy, remote=plan.remote):
            self._at(began + fault.at_s, partial(self._begin, fault, began + fault.at_s + fault.for_s))
        self._at(began + plan.seconds, lambda: None)
        pause = Event()
        while self._due:
            due = self._due[0][0]
            if due <= time.monotonic():
                heapq.heappop(self._due)[2]()
            else:
                self._look()
                pause.wait(min(max(due - time.monotonic(), 0.0), LOOK_S))

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), action))

    def _begin(self, fault: Fault, until_s: float) -> None:
        group = fault.target.partition("-")[0] if fault.target != BROKER else BROKER
        link = "link of " if fault.what in ("cut", "deaf", "silent") else ""
        self._faults[f"{link}{group}: {fault.what}"] += 1
        self._tell(f"{link}{fault.target}: {fault.what}, for {fault.for_s:.1f} s")
        self._busy.add(fault.target)
        make = self._faulty_link if link else self._faulty_store if fault.target == STORE else self._faulty_process
        end = make(fault)
        # by plan, whatever is late: the next fault of this part counts on its end
        self._at(until_s, partial(self._end, fault.target, end))

    def _end(self, target: str, end: Callable[[], None]) -> None:
        end()
        self._busy.discard(target)

    def _faulty_link(self, fault: Fault) -> Callable[[], None]:
        if fault.what == "cut":
            self._links.cut(fault.target)
            return lambda: None
        self._links.break_(fault.target, fault.what)
        return lambda: self._links.mend(fault.target, fault.what)

    def _faulty_store(self, fault: Fault) -> Callable[[], None]:
        assert self._bucket is not None
        self._bucket.proxy.begin(cast(HttpFault, fault.what))
        return self._bucket.proxy.end

    def _faulty_process(self, fault: Fault) -> Callable[[], None]:
        target = fault.target
        if fault.what == "stop":
            self._signal(target, signal.SIGSTOP)
            return lambda: self._signal(target, signal.SIGCONT)
        if target in TRAINERS:
            producer = self._working[target]
            producer.kill() if fault.what == "kill" else producer.tell_to_stop()
        elif target == BROKER:
            self._stack.nats.kill()
            if fault.what != "kill":
                self._lose(fault.what)
        else:
            self._counters[target].look()
            self._stack.kill(target)
            self._counters[target].died()
            if fault.what == "damage":
                return partial(self._damage, journal_ends(self._stack.home))
        return lambda: self._start(target)

    def _damage(self, ends: dict[str, int]) -> None:
        """The agent was dead since the journals had these `ends`: kill a trainer, and flip a byte of what it wrote since then."""
        for slot in sorted(set(TRAINERS) - self._busy):
            producer = self._working[slot]
            first = ends.get((producer.names or {}).get("source", ""), 0)
            if first > SETTLED_BYTES:
                producer.kill()
                source = (producer.names or {})["source"]
                end = journal_ends(self._stack.home)[source]
                producer.damage = flip_a_byte(self._stack.home, source, first, end, self._dice)
                self._tell(f"{slot} is killed, and the byte at {producer.damage} of its journal flips")
                self._start(slot)
                break
        self._start(AGENT)

    def _lose(self, what: str) -> None:
        """What the broker, which is down, had acknowledged: all of it, or the newest of some streams, events always among them."""
        if what == "lose all":
            wipe(self._stack.nats)
            return
        for stream in subjects.STREAMS:
            if stream == subjects.EVENTS_STREAM or self._dice.random() < 0.5:
                with suppress(ValueError):  # it has no block yet
                    roll_back(self._stack.nats, stream, self._dice.uniform(0.5, 0.99))

    def _signal(self, target: str, number: signal.Signals) -> None:
        if target in TRAINERS:
            producer = self._working[target]
            producer.pause() if number == signal.SIGSTOP else producer.resume()
        elif target == BROKER:
            assert self._stack.nats.pid is not None
            os.kill(self._stack.nats.pid, number)
        else:
            self._stack.signal(target, number)
        (self._stopped.add if number == signal.SIGSTOP else self._stopped.discard)(target)

    def _start(self, target: str) -> None:
        if target in TRAINERS:
            self._start_trainer(target)
        elif target == BROKER:
            self._stack.nats.start()
        else:
            flags = ["--nats", self._links.url(target)]
            if target == AGENT:
                self._stack.start_agent(*flags)
            else:
                interval = ["--commit-interval", str(REMOTE_INTERVAL_S)] if self._bucket else []
                self._stack.start_collector(target, *flags, *interval)

    def _start_trainer(self, slot: str) -> None:
        """A successor: of the same experiment, or of a new one."""
        before = self._working.get(slot)
        goes_on = before is not None and self._dice.random() < 0.5
        key = before.key if before is not None and goes_on else f"run-{next(self._keys)}"
        if before is not None and not before.killed:
            before.finish()
        per_s = self._plan.per_s / len(TRAINERS)
        producer = Producer(self._folder, self._stack.environment, len(self._producers), key, per_s)
        self._producers.append(producer)
        self._working[slot] = producer

    # -- Looking -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """How far the store is, and what the parts count; a line now and then."""
        now = time.monotonic()
        for producer in self._working.values():
            names = None if self._bucket else producer.names  # listing a bucket for this would load it
            if names is None or producer.paused or not producer.alive:
                continue
            newest = _newest_commit(self._stack.store, names["experiment"])
            known, since = self._commits.get(producer.key, ("", now))
            self._stall_s = max(self._stall_s, now - since)
            if newest != known and now - since > TOLD_STALL_S:
                self._tell(f"{producer.key} had no new commit for {now - since:.1f} s")
            self._commits[producer.key] = (newest, now if newest != known else since)
        if now - self._looked_s > 1.0:
            self._looked_s = now
            for name in set(LINKS) - self._stopped:
                if name in self._stack.children:
                    self._counters[name].look()
            self._tell(self._line())

    def _line(self) -> str:
        returned = sum(producer.returned for producer in self._producers)
        faults = sum(self._faults.values())
        return (
            f"{returned:,} events, {faults} faults, {kills_of(self._faults)} kills, longest stall {self._stall_s:.1f} s"
        )

    def _sum_figures(self) -> dict[str, int]:
        agent = self._counters[AGENT]
        collectors = [self._counters[name] for name in COLLECTORS]
        return {
            "frames acknowledged by the stream": agent.total("headrace_agent_frames_total"),
            "frames re-sent for want of an acknowledgement": agent.total("headrace_agent_retries_total"),
            "rewinds": agent.total("headrace_agent_rewinds_total"),
            "frames that the store had already": sum(
                one.total("headrace_collector_duplicates_total") for one in collectors
            ),
            "commits lost to another collector": sum(
                one.total("headrace_collector_conflicts_total") for one in collectors
            ),
        }

    # -- The end -------------------------------------------------------------------------------------------------------

    def _drain(self) -> float:
        """The faults are over: fresh events must flow, and everything must arrive. How long it took."""
        began = time.monotonic()
        for producer in self._working.values():
            if not producer.killed:
                producer.finish()
        pause = Event()
        while not self._stack.drained() and time.monotonic() - began < DRAIN_S:
            self._look()
            pause.wait(0.05)
        healed_s = time.monotonic() - began
        self._tell(f"drained in {healed_s:.1f} s")
        fresh = Producer(self._folder, self._stack.environment, len(self._producers), "fresh", 0.0)
        self._producers.append(fresh)
        while fresh.returned < FRESH_EVENTS and fresh.alive:
            pause.wait(0.01)
        fresh.finish()
        began = time.monotonic()
        while not self._stack.drained() and time.monotonic() - began < DRAIN_S:
            pause.wait(0.05)
        return healed_s

    def _ask_fsck(self, findings: Findings) -> None:
        """A second opinion: what users check a store with finds nothing either."""
        command = [sys.executable, "-m", "headrace.command", "fsck", str(self._stack.store), "--digests"]
        done = subprocess.run(command, env=self._stack.environment, capture_output=True, text=True, timeout=FSCK_S)
        findings.expect(done.returncode == 0, f"headrace fsck says: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _check_emptiness(self, findings: Findings) -> None:
        """Nothing is left on the way."""
        home = self._stack.home
        left = [name for name in os.listdir(home.journals) if not name.startswith(".")]
        findings.expect(not left, f"journals are left on the node: {left}")
        spools = [path for path in Path(home.spools).rglob("*") if path.is_file()]
        findings.expect(not spools, f"spooled files are left on the node: {spools[:5]}")
        damaged = Path(home.root) / "damaged"
        set_aside = sorted(path.name.partition("-")[0] for path in damaged.iterdir()) if damaged.exists() else []
        wanted = sorted((one.names or {})["source"] for one in self._producers if one.damage is not None)
        findings.expect(set_aside == wanted, f"bytes of {set_aside} were set aside as damaged, not of {wanted}")


def kills_of(faults: Counter[str]) -> int:
    """How many faults were kills; each is called `who: what`."""
    return sum(number for fault, number in faults.items() if fault.partition(": ")[2] in KILLS)


def _newest_commit(store: Path, experiment: str) -> str:
    try:
        return max(os.listdir(store / PROJECT / "experiments" / experiment / "commits"), default="")
    except FileNotFoundError:
        return ""
