"""Abort: people ask, over the broker, for an experiment to end; this ends those of its processes that run here, and says how.

A source is asked through a file beside its journal (`headrace_proto.abort`), so that its end is *aborted* in whatever way it comes:
by the program's own handler of SIGTERM, which the SDK then understands, or without a word, which this agent then understands.
Where its process waits for that file, because its user gave a callback, nothing else is done. All others get SIGTERM, their
children too, and after a grace SIGKILL; but only a process that is proven to be the one that writes the journal:

    the journal is of this boot, and its lock is held (or the journal mapped) still;
    the process with its pid, in its pid namespace, started when its header says, and belongs to this user.

What a request said is kept in the journal's folder, so that a new agent knows why a process ended while there was none.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from typing import Final, NamedTuple

from headrace_agent.processes import KILLED_S, Ended, Held, Program, parents_of, pid_here
from headrace_agent.source import Death, Source
from headrace_agent.tail import Tail
from headrace_agent.uplink import Uplink
from headrace_proto import abort, subjects
from headrace_proto.errors import HeadraceError
from headrace_proto.events import Role
from headrace_proto.journal import machine
from headrace_proto.messages import Abort, Find, SourceAnswer, SourceState, decode, digest_of, encode

CALLBACK_S: Final = 10.0
"""For a callback to come back, or to end the process. What it does then is its own affair."""
GRACE_S_MAX: Final = 3600.0
LOOK_S: Final = 0.05
TEXT_CHARACTERS_MAX: Final = 500
SOURCES_MAX: Final = 10_000
log = logging.getLogger(__name__)


class Target(NamedTuple):
    """One process, and the sources that it writes."""

    pid: int | None  # as it is called here; None in a pid namespace that cannot be seen
    start: int
    sources: tuple[Source, ...]

    @property
    def has_callback(self) -> bool:
        """Whether a thread of it waits to be asked."""
        return any(abort.is_expected(source.folder) for source in self.sources)


_Word = tuple[str, str]
"""A `SourceState`, and a text for people."""


class _Plan:
    """What is to be done about a process. `let_go` of it."""

    def __init__(self, target: Target, held: Held | None, above: list[int]) -> None:
        self.target: Final = target
        self.held = held
        self.fault = ""
        self._above: Final = above
        self.came_late: Final = self.is_gone()

    def leader(self, targets: Container[int | None]) -> int | None:
        """The nearest process above it that is to be ended as well."""
        return next((pid for pid in self._above if pid in targets), None)

    def is_gone(self) -> bool:
        """Whether there is no such process any more. One that waits for a request may be in a container that nobody here sees."""
        if self.held is None and not self.target.has_callback:
            return True
        return (self.held is not None and self.held.gone()) or all(
            _has_let_go(source) for source in self.target.sources
        )

    def let_go(self) -> None:
        """Hold it no longer."""
        if self.held is not None:
            self.held.close()
            self.held = None


class Aborter:
    """Hears requests and serves them, as long as `run` runs."""

    def __init__(self, tail: Tail, grace_s: float) -> None:
        self._tail = tail
        self._grace_s = grace_s
        self._site = ""
        self._uplink: Uplink | None = None
        self._heard: asyncio.Queue[Find | Abort] = asyncio.Queue()

    def listen(self, uplink: Uplink, site: str) -> None:
        """Subscribe to what operators ask."""
        self._uplink, self._site = uplink, site
        uplink.listen(subjects.FIND, self._hear_find)
        uplink.listen(subjects.abort(site, "*"), self._hear_abort)

    def _hear_find(self, _subject: str, data: bytes) -> None:
        self._hear(decode(Find, data))

    def _hear_abort(self, _subject: str, data: bytes) -> None:
        self._hear(decode(Abort, data))

    def _hear(self, request: Find | Abort | None) -> None:
        if request is not None and _is_token(request.request):
            self._heard.put_nowait(request)

    async def run(self) -> None:
        """Serve until cancelled. An abort that is under way then stays as it is: signals were sent, or a callback was asked."""
        async with asyncio.TaskGroup() as group:
            while True:
                request = await self._heard.get()
                group.create_task(self._answered(request))

    async def _answered(self, request: Find | Abort) -> None:
        try:
            if isinstance(request, Find):
                await self._find(request)
            else:
                await self._abort(request)
        except Exception:  # whatever is wrong with one request, shipping goes on
            log.exception("a request of an operator could not be served")

    # -- Who has it ------------------------------------------------------------------------------------------------------

    def _sources(self, wanted: Callable[[Source], bool]) -> list[Source]:
        found = (lane.source for lane in self._tail.lanes.values())
        return [source for source in found if source.header.role != Role.SYSTEM and wanted(source)][:SOURCES_MAX]

    async def _find(self, request: Find) -> None:
        by_id: dict[str, bool] = {}

        def fits(source: Source) -> bool:
            for name in (source.header.experiment, source.mark.short_id if source.mark else ""):
                if name not in by_id:
                    by_id[name] = bool(name) and digest_of(name) == request.digest
                if by_id[name]:
                    return True
            return False

        for source in self._sources(fits):
            await self._say(request.request, source, *_standing(source))

    async def _say(self, request: str, source: Source, state: str, text: str, wait_s: float = 0.0) -> None:
        header = source.header
        answer = SourceAnswer(
            request,
            header.experiment,
            header.source,
            state,
            text[:TEXT_CHARACTERS_MAX],
            source.mark.short_id if source.mark else "",
            header.host.partition("/")[0][: abort.BY_CHARACTERS_MAX],
            header.pid,
            header.role,
            -1 if header.rank is None else header.rank,
            wait_s,
        )
        if self._uplink is not None:
            await self._uplink.tell(subjects.answer(self._site, request), encode(answer))

    # -- The end ---------------------------------------------------------------------------------------------------------

    async def _abort(self, request: Abort) -> None:
        asked = abort.Request(
            request.request, request.by[: abort.BY_CHARACTERS_MAX], request.reason[: abort.REASON_CHARACTERS_MAX]
        )
        grace_s = self._grace_s if request.grace_s < 0 else min(request.grace_s, GRACE_S_MAX)
        targets = await self._targets(request)
        if targets:
            log.warning("experiment %s is %s; it has %d processes here", request.experiment, asked, len(targets))
        # all are asked before any ends: one's end may be another's
        plans = [self._plan(target, asked) for target in targets]
        called = {target.pid for target in targets if target.has_callback and target.pid is not None}
        ends: dict[int | None, asyncio.Task[_Word]] = {}

        async def end(plan: _Plan) -> _Word:
            leader = plan.leader(ends)
            try:
                word = await self._ended(plan, ends.get(leader), asked, called, grace_s)
            except Exception as error:  # whoever asked hears of it, and of all the other processes
                log.exception("process %s could not be ended", plan.target.pid)
                word = SourceState.REFUSED, f"it could not be ended: {error!r}"
            finally:
                plan.let_go()
            await self._say_all(plan.target, asked.id, *word)
            self._tail.rouse(lambda lane: lane.source in plan.target.sources)
            return word

        async with asyncio.TaskGroup() as group:
            for plan in plans:
                ends[plan.target.pid or -id(plan)] = group.create_task(end(plan))

    async def _targets(self, request: Abort) -> list[Target]:
        """The processes that can be ended. What is to be said of the others is said."""
        processes: dict[tuple[int, int, int], list[Source]] = defaultdict(list)
        for source in self._sources(lambda source: source.header.experiment == request.experiment):
            state, text = _standing(source)
            if state == SourceState.ALIVE:
                header = source.header
                processes[header.pid, header.pid_start, header.pid_namespace].append(source)
            else:
                await self._say(request.request, source, state, text)
        return [
            Target(pid_here(pid, start, namespace), start, tuple(sources))
            for (pid, start, namespace), sources in processes.items()
        ]

    def _plan(self, target: Target, asked: abort.Request) -> _Plan:
        """Hold the process, prove it, and from then on call its end an abort."""
        held = Held.of(target.pid, target.start) if target.pid is not None else None
        plan = _Plan(target, held, parents_of(target.pid) if target.pid is not None else [])
        if not plan.came_late:
            plan.fault = self._ask(target, asked)
        return plan

    async def _ended(
        self,
        plan: _Plan,
        leader: asyncio.Task[_Word] | None,
        asked: abort.Request,
        called: set[int],
        grace_s: float,
    ) -> _Word:
        """End a process: by its callback, with the process above it that is ended too, or by signals."""
        target = plan.target
        if plan.came_late:
            return SourceState.GONE, "its process ended just now"
        if target.has_callback:
            return (SourceState.REFUSED, plan.fault) if plan.fault else await self._call(target, asked)
        if leader is not None:
            await self._say_all(
                target, asked.id, SourceState.ASKED, "the process that started it is ended", grace_s + KILLED_S
            )
            state, text = await leader
            if state in (SourceState.CALLED, SourceState.REFUSED) or plan.is_gone():
                return state, f"with the process that started it: {text}"
        text = f"SIGTERM was sent; SIGKILL follows after {grace_s:g} s"
        await self._say_all(target, asked.id, SourceState.ASKED, text, grace_s + KILLED_S)
        held, plan.held = plan.held, None
        assert held is not None  # noqa: S101 - else it is gone
        return _told(await Program(held, called).end(grace_s))

    def _ask(self, target: Target, asked: abort.Request) -> str:
        """From now on the end of these sources is an abort. What is wrong with asking their process, if anything is."""
        fault = ""
        for source in target.sources:
            source.aborted = str(asked)
            try:
                abort.ask(source.folder, asked)
            except OSError as error:  # a full disk: what this agent sees of the end says all the same why it came
                fault = f"the request cannot be left with it: {error}"
                log.warning("source %s: %s", source.id, fault)
        return fault

    async def _say_all(self, target: Target, request: str, state: str, text: str, wait_s: float = 0.0) -> None:
        for source in target.sources:
            await self._say(request, source, state, text, wait_s)

    async def _call(self, target: Target, asked: abort.Request) -> tuple[str, str]:
        await self._say_all(target, asked.id, SourceState.ASKED, "its abort_callback was asked to run", CALLBACK_S)
        loop = asyncio.get_running_loop()
        until = loop.time() + CALLBACK_S
        while loop.time() < until:
            if all(self._has_ended(source) for source in target.sources):
                return SourceState.ENDED, "ended by its abort_callback"
            answer = _callbacks_answer(target.sources, asked.id)
            if answer is not None and answer.state == abort.RAISED:
                return SourceState.REFUSED, f"its abort_callback raised {answer.detail}; the process lives on"
            if answer is not None and answer.state == abort.RETURNED:
                return SourceState.CALLED, "its abort_callback has returned; the process ends when it likes"
            await asyncio.sleep(LOOK_S)
        if _callbacks_answer(target.sources, asked.id) is None:
            return SourceState.REFUSED, f"its abort_callback was not called within {CALLBACK_S:g} s; it may be yet"
        return SourceState.CALLED, f"its abort_callback runs for {CALLBACK_S:g} s now"

    def _has_ended(self, source: Source) -> bool:
        return source.closed or source.id not in self._tail.lanes or _has_let_go(source)


def _told(ended: Ended) -> tuple[str, str]:
    with_children = f", with {ended.children} children" if ended.children else ""
    if ended.left:
        return SourceState.REFUSED, f"{ended.left} of its processes live on even after SIGKILL: see the kernel's log"
    if ended.killed:
        return SourceState.KILLED, f"{ended.killed} by SIGKILL, after {ended.seconds:.1f} s{with_children}"
    return SourceState.ENDED, f"by SIGTERM, within {ended.seconds:.1f} s{with_children}"


def _callbacks_answer(sources: Iterable[Source], request: str) -> abort.Answer | None:
    return next((found for source in sources if (found := abort.answered(source.folder, request))), None)


# -- What is known of a source ---------------------------------------------------------------------------------------------


def _standing(source: Source) -> tuple[str, str]:
    """Whether a source's process can be ended from here, and else why not."""
    header = source.header
    if source.closed:
        return SourceState.GONE, "it had ended before"
    if source.death is not Death.UNPROVEN:
        return SourceState.GONE, "its process had died before"
    if source.outlived:
        if header.host == machine.host_name():
            return SourceState.GONE, "its process went when the machine was booted"
        return (
            SourceState.REFUSED,
            f"its journal was written on {header.host.partition('/')[0]}, and is only shipped from here",
        )
    if header.pid == os.getpid() and header.pid_namespace == machine.pid_namespace():
        return SourceState.REFUSED, "this agent runs inside that very process"
    try:
        if _has_let_go(source):
            return SourceState.GONE, "its process has died; that is being told to the store"
    except (HeadraceError, OSError) as error:
        return SourceState.REFUSED, f"its journal cannot be read: {error}"
    seen = pid_here(header.pid, header.pid_start, header.pid_namespace)
    if seen is None and not abort.is_expected(source.folder):
        return SourceState.REFUSED, (
            "its process is in a container whose processes the agent cannot see: let it (in Kubernetes shareProcessNamespace, or "
            "hostPID for an agent of its own pod), or give create_experiment an abort_callback"
        )
    return SourceState.ALIVE, ""


def _has_let_go(source: Source) -> bool:
    """Whether the source's process is gone. Not to be asked in the process that writes it: that would free its lock."""
    return source.wake().has_let_go()


def _is_token(request: str) -> bool:
    """Whether a request's id may stand in a subject."""
    return 0 < len(request) <= 64 and request.isascii() and request.replace("-", "").replace("_", "").isalnum()
