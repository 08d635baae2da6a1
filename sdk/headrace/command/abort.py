"""`headrace abort ID`: end an experiment's processes, wherever they run, from wherever the broker can be reached.

Two questions. *Who has it?* goes to all agents, with a digest of the id: agents of other sites learn nothing. *End it* goes to the
sites that have answered. An internal id and a short one (`DIG-7`) are known to the agents themselves, so neither needs the store;
it is asked for the beginning of an id only, and what it knows when nobody answers.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from headrace.command.asking import NobodyAnswers, asking
from headrace.command.console import out, print_json, when
from headrace.command.find import find_experiment, open_for_reading
from headrace.command.options import HomeOption, IdArgument, JsonOption, NatsOption, ProjectOption, StoreOption
from headrace.command.probes import Access, access
from headrace.command.running import running
from headrace.command.settings import UpSettings
from headrace.secrets import masked_text
from headrace.service.secrets import masked
from headrace.service.settings import load_settings
from headrace_proto import messages, subjects
from headrace_proto.abort import BY_CHARACTERS_MAX, REASON_CHARACTERS_MAX
from headrace_proto.errors import ExperimentNotFound, HeadraceError, InvalidValue
from headrace_proto.home import Home
from headrace_proto.ids import is_id, random_id
from headrace_proto.journal import machine
from headrace_proto.messages import Abort, Find, SourceAnswer, SourceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.nats_py import Client, Msg

FIND_S: Final = 3.0
"""For the first agent to answer: each does so at once, however many experiments it has."""
MORE_S: Final = 1.0
"""After the last that answered that question."""
ANSWER_S: Final = 10.0
"""For an agent to say what it does about a source, and beyond the time that it then names."""
_SHORT_ID: Final = re.compile(r"[A-Z0-9]{1,16}-[1-9][0-9]*")
_DONE: Final = frozenset({SourceState.ENDED, SourceState.KILLED, SourceState.CALLED})
_WAITS: Final = frozenset({SourceState.ALIVE, SourceState.ASKED})


class Heard(NamedTuple):
    """The last word on one source."""

    site: str
    answer: SourceAnswer


def abort(
    experiment: IdArgument,
    reason: Annotated[str, typer.Option(help="Why; kept with the experiment.")] = "",
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds from SIGTERM to SIGKILL; else as each agent is set (5).")
    ] = None,
    nats: NatsOption = None,
    project: ProjectOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """End an experiment: its abort_callback if it has one, else SIGTERM to its processes and their children, then SIGKILL."""
    if len(reason) > REASON_CHARACTERS_MAX:
        raise InvalidValue(f"the reason has {len(reason)} characters: at most {REASON_CHARACTERS_MAX} are kept")
    settings = load_settings(UpSettings, "up", None, home=home, nats=nats)
    where = Home(settings.home)
    broker = access(settings, running(where), chosen=nats is not None)
    wanted = experiment
    if project is not None or not (is_id(experiment) or _SHORT_ID.fullmatch(experiment)):
        wanted = find_experiment(open_for_reading(store, where), experiment, project).internal_id

    def tell(heard: Heard) -> None:
        if not json:
            out().print(_line(heard), soft_wrap=True, markup=False, highlight=False)

    try:
        answers = asyncio.run(_Asking(broker, masked_text(reason), -1.0 if grace is None else grace, tell).run(wanted))
    except NobodyAnswers as error:
        raise NobodyAnswers(f"{error}{_stored(wanted, store, where)}") from None
    if json:
        print_json([{"site": heard.site, **heard.answer._asdict()} for heard in answers])
    states = {heard.answer.state for heard in answers}
    if not states & _DONE or states - _DONE - {SourceState.GONE}:
        raise typer.Exit(1)


class _Asking:
    """One call of the command: what was asked, and what has been heard of each source."""

    def __init__(self, broker: Access, reason: str, grace_s: float, tell: Callable[[Heard], None]) -> None:
        self._broker = broker
        self._reason = reason
        self._grace_s = grace_s
        self._tell = tell
        self._request = random_id()
        self._heard: dict[tuple[str, str], Heard] = {}
        self._asked: set[str] = set()
        self._until: dict[tuple[str, str], float] = {}
        self._all_found_s = 0.0  # by then whoever has it has said so
        self._experiment = ""  # once it is known which one is meant, the others' answers are nobody's
        self._news = asyncio.Event()

    async def run(self, wanted: str) -> list[Heard]:
        """Find and end the experiment; the last word on each source. Raises `NobodyAnswers`, `ExperimentNotFound`."""
        async with asking(self._broker) as (client, _):
            await client.subscribe(subjects.answer("*", self._request), cb=self._on_answer)
            self._experiment = wanted if is_id(wanted) else ""
            await self._find(client, wanted)
            experiment = self._the_one(wanted)
            await self._end(client, experiment)
        return list(self._heard.values())

    async def _on_answer(self, message: Msg) -> None:
        answer = messages.decode(SourceAnswer, message.data)
        if answer is None or answer.request != self._request or self._experiment not in ("", answer.experiment):
            return
        heard = Heard(message.subject.split(".")[2], answer)  # the site as the broker vouches for it
        place = heard.site, answer.source
        now_s = asyncio.get_running_loop().time()
        if place not in self._heard:
            self._all_found_s = now_s + MORE_S
        if place not in self._heard or self._heard[place].answer.state in _WAITS:
            self._heard[place] = heard
            self._until[place] = now_s + ANSWER_S + answer.wait_s
            if answer.state != SourceState.ALIVE:
                self._tell(heard)
        self._news.set()

    async def _find(self, client: Client, wanted: str) -> None:
        request = Find(self._request, messages.digest_of(wanted))
        await client.publish(subjects.FIND, messages.encode(request))
        limit_s = FIND_S
        while await self._hears(limit_s) and not self._experiment:  # of a short id there may be several
            limit_s = MORE_S
        if not self._heard:
            raise NobodyAnswers(
                f"no agent that {masked(self._broker.url)} reaches knows the experiment {wanted!r}: its processes log where no "
                "agent runs, or theirs is down or away from the broker; or it ended, and is stored"
            )

    async def _hears(self, limit_s: float) -> bool:
        """Whether anything is heard within the time."""
        try:
            async with asyncio.timeout(limit_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def _the_one(self, wanted: str) -> str:
        """The experiment that all agents mean. Those of one broker may serve several stores, each with its DIG-7."""
        found = {heard.answer.experiment for heard in self._heard.values()}
        if len(found) > 1:
            raise ExperimentNotFound(
                f"{wanted!r} is {len(found)} experiments to the agents: give the internal id of one: {', '.join(sorted(found))}"
            )
        return found.pop()

    async def _end(self, client: Client, experiment: str) -> None:
        by = f"{machine.user_name()}@{os.uname().nodename}"[:BY_CHARACTERS_MAX]
        request = messages.encode(Abort(self._request, experiment, by, self._reason, self._grace_s))
        self._experiment = experiment
        loop = asyncio.get_running_loop()
        while True:
            waiting = [place for place, heard in self._heard.items() if heard.answer.state in _WAITS]
            for site in {site for site, _ in waiting} - self._asked:  # also one whose agents answer late
                self._asked.add(site)
                await client.publish(subjects.abort(site, experiment), request)
            left_s = max(self._all_found_s, *(self._until[place] for place in waiting), 0.0) - loop.time()
            if left_s <= 0 or not await self._hears(left_s):
                break
        for place, heard in self._heard.items():
            if heard.answer.state in _WAITS:
                silent = heard.answer._replace(state="silent", text="its agent has not said what became of it")
                self._heard[place] = heard._replace(answer=silent)
                self._tell(self._heard[place])


def _line(heard: Heard) -> str:
    answer = heard.answer
    who = f"rank {answer.rank}" if answer.rank >= 0 else answer.role
    return f"{heard.site}/{answer.host} process {answer.pid} ({who}, source {answer.source[:8]}): {answer.state}, {answer.text}"


def _stored(wanted: str, store: str | None, home: Home) -> str:
    """What the store says of an experiment that no agent knows; nothing when it cannot be read."""
    with suppress(HeadraceError, OSError, ImportError):
        found = find_experiment(open_for_reading(store, home), wanted, None)
        found.refresh()
        if found.finished_at:
            return f". In the store it is {found.state}, since {when(found.finished_at)}"
        hosts = sorted(
            {source.host for source in found.record.sources.values() if source.state == "open" and source.host}
        )
        return f". In the store it is {found.state}, on {', '.join(hosts)}, last heard {when(found.row.seen_at)}"
    return ""
