"""Who may do what on the broker: the least that each role needs. `headrace deploy nats-config` writes it, deploy/nats shows it, and
the tests run the whole path with it.

All of Headrace's streams lie in one account. Each site has an account of its own, into which its subjects and no others are
imported. An account, not a list of permissions alone, because a message's *reply* subject is nobody's permission: JetStream
acknowledges to it. An agent that shares the streams' account could name another site's mark, or a lease, as its reply, and the
acknowledgement would be stored there (tried with nats-server 2.15.1). Through an import the reply is the server's own.

A role's inbox is `_INBOX.<its client's name>`: whoever may hear all of `_INBOX.>` hears what collectors pull, which is everything.
A site is the unit of trust: its agents, which share one key, can hear each other.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace_proto import subjects

ACCOUNT: Final = "HEADRACE"
COLLECTOR_NAME: Final = "headrace-collector"
OPERATOR_NAME: Final = "headrace-operator"
"""What the commands of people connect as: `status`, `doctor`, ..."""

_QUEUES: Final = (subjects.EVENTS_STREAM, subjects.FILES_STREAM)
_API: Final = "$JS.API"


class Rights(NamedTuple):
    """The subjects that a role may publish to and subscribe to. Whatever is not listed is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


class Import(NamedTuple):
    """A subject of the streams' account that a site's account sees. A service is asked, a stream is heard."""

    kind: str  # "service" or "stream"
    subject: str


def agent_name(site: str) -> str:
    """What the agents of a site connect as."""
    return f"headrace-agent-{site}"


def site_account(site: str) -> str:
    """The account of a site."""
    return f"{ACCOUNT}-{site}"


def agent(site: str) -> Rights:
    """Ship frames and chunks of its site, hear and answer its marks and requests, and ask for the newest mark of one source."""
    asked, heard = (
        tuple(subject for kind, subject in imports(site) if kind == wanted) for wanted in ("service", "stream")
    )
    return Rights(publish=asked, subscribe=(*heard, _inbox(agent_name(site))))


def imports(site: str) -> tuple[Import, ...]:
    """What the account of a site sees of the streams' account."""
    return (
        Import("service", f"{subjects.EVENTS_PREFIX}.{site}.>"),
        Import("service", f"{subjects.FILES_PREFIX}.{site}.>"),
        Import("service", f"{_API}.DIRECT.GET.{subjects.MARKS_STREAM}.{subjects.marks_of_site(site)}"),
        Import("stream", subjects.marks_of_site(site)),
        Import("stream", subjects.control_of_site(site)),
        Import("stream", subjects.FIND),
        Import("service", subjects.answers_of_site(site)),
        Import("service", subjects.sign(site)),
    )


def collector() -> Rights:
    """Make and read the streams, pull and acknowledge frames, tell marks and requests, hold leases. No word of an event."""
    return Rights(
        publish=(
            f"{subjects.MARKS_PREFIX}.>",
            subjects.rewinds("*"),
            f"{subjects.LEASES_PREFIX}.>",
            *(f"{_API}.STREAM.{verb}.{stream}" for stream in subjects.STREAMS for verb in ("INFO", "CREATE")),
            *(f"{_API}.CONSUMER.{verb}.{queue}" for queue in _QUEUES for verb in ("LIST", "NAMES")),
            *(f"{_API}.CONSUMER.{verb}.{queue}.>" for queue in _QUEUES for verb in ("CREATE", "INFO", "DELETE")),
            *(f"{_API}.CONSUMER.DURABLE.CREATE.{queue}.>" for queue in _QUEUES),
            *(f"{_API}.CONSUMER.MSG.NEXT.{queue}.>" for queue in _QUEUES),
            *(f"$JS.ACK.{queue}.>" for queue in _QUEUES),
            *(f"{_API}.DIRECT.GET.{stream}.>" for stream in (subjects.MARKS_STREAM, subjects.LEASES_STREAM)),
            *(f"{_API}.STREAM.MSG.GET.{stream}" for stream in (subjects.MARKS_STREAM, subjects.LEASES_STREAM)),
            f"{_API}.STREAM.PURGE.{subjects.LEASES_STREAM}",
            _inbox(OPERATOR_NAME),  # answers to people
        ),
        subscribe=(
            f"{subjects.LEASES_PREFIX}.>",
            subjects.close_gap("*"),
            subjects.sign("*"),
            _inbox(COLLECTOR_NAME),
        ),
    )


def operator() -> Rights:
    """Look at the streams, read marks and leases, find an experiment's agents and ask them to rewind or to end it, ask collectors
    to close a gap. Reads nobody's events."""
    return Rights(
        publish=(
            subjects.FIND,
            subjects.close_gap("*"),
            subjects.rewinds("*"),
            subjects.abort("*", "*"),
            *(f"{_API}.STREAM.INFO.{stream}" for stream in subjects.STREAMS),
            *(f"{_API}.CONSUMER.{verb}.{queue}" for queue in _QUEUES for verb in ("LIST", "NAMES")),
            *(f"{_API}.CONSUMER.INFO.{queue}.>" for queue in _QUEUES),
            *(f"{_API}.DIRECT.GET.{stream}.>" for stream in (subjects.MARKS_STREAM, subjects.LEASES_STREAM)),
            *(f"{_API}.STREAM.MSG.GET.{stream}" for stream in (subjects.MARKS_STREAM, subjects.LEASES_STREAM)),
        ),
        subscribe=(
            f"{subjects.MARKS_PREFIX}.>",
            f"{subjects.LEASES_PREFIX}.>",
            f"{subjects.ANSWERS_PREFIX}.>",
            _inbox(OPERATOR_NAME),
        ),
    )


def _inbox(name: str) -> str:
    return f"_INBOX.{name}.>"
