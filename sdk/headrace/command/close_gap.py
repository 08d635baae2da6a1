"""`headrace close-gap ID`: what nobody will send any more is not waited for any longer.

A source whose node and journal are gone may have left batches in the stream above others that never came. Collectors wait a day
for those; this command says that nobody will send them. What is given up is shown as lost, and is stored all the same should it
come after all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace.command.asking import NobodyAnswers, asking
from headrace.command.console import out, plain, print_json
from headrace.command.find import find_experiment, open_for_reading
from headrace.command.options import HomeOption, IdArgument, JsonOption, NatsOption, ProjectOption, StoreOption
from headrace.command.probes import Access, access
from headrace.command.running import running
from headrace.command.settings import UpSettings
from headrace.service.secrets import masked
from headrace.service.settings import load_settings
from headrace_proto import messages, subjects
from headrace_proto.home import Home
from headrace_proto.ids import is_id
from headrace_proto.messages import CloseGap, GapsClosed

if TYPE_CHECKING:
    from headrace.service.nats_py import Msg

ANSWER_S: Final = 15.0
"""A collector answers when a commit says so, or after 10 s."""
MORE_S: Final = 0.3
"""After the first answer: two collectors may hold an experiment for a moment."""


def close_gap(
    experiment: IdArgument,
    source: Annotated[str | None, typer.Option(help="Of this source only.")] = None,
    nats: NatsOption = None,
    project: ProjectOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Wait no longer for what is missing of an experiment: store what came after it, and show the gap as lost."""
    settings = load_settings(UpSettings, "up", None, home=home, nats=nats)
    where = Home(settings.home)
    there = running(where)
    if not is_id(experiment):
        experiment = find_experiment(open_for_reading(store, where), experiment, project).internal_id
    broker = access(settings, there, chosen=nats is not None)
    answers = asyncio.run(_ask(broker, CloseGap(experiment, source or "")))
    if json:
        print_json([answer._asdict() for answer in answers])
    else:
        _print(answers)
    if not all(answer.stored for answer in answers):
        raise typer.Exit(1)


async def _ask(broker: Access, request: CloseGap) -> list[GapsClosed]:
    """What each collector that holds the experiment answers. Raises `NobodyAnswers`."""
    from headrace.service.nats_py import Header

    found: list[GapsClosed] = []
    answers: asyncio.Queue[Msg] = asyncio.Queue()
    async with asking(broker) as (client, heard):
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=answers.put)
        await client.publish(subjects.close_gap(request.experiment), messages.encode(request), inbox)
        while (message := await _next(answers, MORE_S if found else ANSWER_S)) is not None:
            if message.headers and message.headers.get(Header.STATUS) == "503":
                raise NobodyAnswers(f"no collector is connected to {masked(broker.url)}: start one, or see --nats")
            answer = messages.decode(GapsClosed, message.data)
            found += [answer] if answer else []
    if not found:
        raise NobodyAnswers(
            f"no collector holds the experiment {request.experiment} at this moment ({'; '.join(heard) or 'no answer'} "
            f"within {ANSWER_S:.0f} s): try again, and see the collectors' /healthz if that does not help"
        )
    return found


async def _next(answers: asyncio.Queue[Msg], limit_s: float) -> Msg | None:
    try:
        async with asyncio.timeout(limit_s):
            return await answers.get()
    except TimeoutError:
        return None


def _print(answers: list[GapsClosed]) -> None:
    console = out()
    for answer in answers:
        who = f"collector {answer.collector[:8]}"
        if not answer.gaps:
            console.print(f"{plain(who)}: nothing of {plain(answer.experiment)} waits above a gap", soft_wrap=True)
        for source, first, end in answer.gaps:
            console.print(
                f"{plain(who)}: gave up [{first}, {end}) of source {plain(source)}", soft_wrap=True, markup=False
            )
        if answer.gaps and answer.stored:
            console.print(f"{plain(who)}: stored what had waited above: {answer.waiting} batches", soft_wrap=True)
        elif not answer.stored:
            console.print(f"{plain(who)}: no commit says so yet: its store is out of order", soft_wrap=True)
