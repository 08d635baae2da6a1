"""What `headrace doctor` looks at. Each check is a function that yields findings; none changes anything but the store, where it
creates and deletes one small object, because that is the only way to know."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from enum import StrEnum
from importlib.util import find_spec
from typing import Final, NamedTuple

from headrace import __version__
from headrace.command import positions
from headrace.command.console import size
from headrace.command.probes import Broker, healthz
from headrace.command.running import Running
from headrace_proto import filesystem
from headrace_proto.errors import HeadraceError
from headrace_proto.home import HOME_VARIABLE, Home
from headrace_proto.journal import lock, machine

PYTHON_MIN: Final = (3, 11)
EXTRAS: Final = {
    "read": ("fsspec", "numpy", "pandas", "pyarrow", "pydantic"),
    "agent": ("nats", "prometheus_client", "psutil", "pynvml", "waitress", "zstandard"),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
    "credentials": ("nkeys",),
    "websocket": ("aiohttp",),
}
"""Extra -> the modules that it brings. Only what is needed for what the user does has to be there."""
SPACE_LOW: Final = 1024 * 1024 * 1024
PROGRAM_VARIABLES: Final = (
    "STORE",
    "PROJECT",
    "EXPERIMENT",
    "ATTEMPT",
    "STOP_S",
    "READ_S",
    "COPY_MAX",
    "SECRETS",
    "CAPTURE",
)
UP_VARIABLES: Final = ("NATS_PORT", "SYNC_S", "QUOTA")
"""Without HEADRACE_: what programs read, and of what only parts read, what people set for `headrace up`."""


class Verdict(StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    NOTE = "note"  # works, but somebody should know
    BAD = "bad"


class Finding(NamedTuple):
    """What a check found, and what to do about it."""

    what: str
    verdict: Verdict
    says: str
    remedy: str = ""


def every_check(home: Home, store: str, nats: Broker, there: Running | None) -> Iterator[Finding]:
    """All findings, from the ground up."""
    for what, findings in (
        ("version", python()),
        ("extras", extras()),
        ("environment", variables()),
        ("home", folder(home)),
        ("journals", journals(home)),
        ("store", store_reachable(store)),
        ("broker", stream(nats)),
        ("agent", agent(home, there)),
        ("collector", collector(there)),
    ):
        try:
            yield from findings
        except OSError as error:  # of a home that the first check of it has named already, mostly
            yield Finding(what, Verdict.BAD, f"it cannot be looked at: {error}", "see what is bad above")


def python() -> Iterator[Finding]:
    """The interpreter, and ourselves."""
    version = platform.python_version()
    says = f"headrace {__version__}, Python {version}, {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON_MIN:
        yield Finding("version", Verdict.BAD, says, "use Python 3.11 or newer")
    elif sys.platform != "linux" or sys.byteorder != "little":
        yield Finding("version", Verdict.NOTE, says, "reading works here; logging needs little-endian Linux")
    else:
        yield Finding("version", Verdict.GOOD, says)


def extras() -> Iterator[Finding]:
    """Which optional parts are installed."""
    missing = {extra: [module for module in modules if find_spec(module) is None] for extra, modules in EXTRAS.items()}
    whole = [extra for extra, modules in missing.items() if not modules]
    yield Finding("extras", Verdict.GOOD, f"installed: {', '.join(whole) or 'none'}")
    for extra, modules in missing.items():
        if modules and len(modules) < len(EXTRAS[extra]):
            says = f"{extra} lacks {', '.join(modules)}"
            yield Finding("extras", Verdict.NOTE, says, f"pip install 'headrace[{extra}]'")


def variables() -> Iterator[Finding]:
    """HEADRACE_ variables that nothing reads are mostly misspelt."""
    from headrace.service.settings import ENV_PREFIX, known_variables

    known = known_variables() | {f"{ENV_PREFIX}{name}" for name in (*PROGRAM_VARIABLES, *UP_VARIABLES)}
    for name in sorted(os.environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            yield Finding(
                "environment", Verdict.NOTE, f"{name} is set", "only agent or collector may read it: is it misspelt?"
            )


def folder(home: Home) -> Iterator[Finding]:
    """The home: whether a trainer can write there, and on what kind of disk."""
    try:
        home.make()
    except HeadraceError as error:
        yield Finding("home", Verdict.BAD, str(error), f"name a folder of your own with --home or {HOME_VARIABLE}")
        return
    free = shutil.disk_usage(home.root).free
    says = f"{home.root} on {home.kind or 'an unknown file system'}, {size(free)} free"
    if home.is_shared:
        remedy = f"logging is slower there, and each host needs an agent: better set {HOME_VARIABLE} to a folder on a local disk"
        yield Finding("home", Verdict.NOTE, f"{says}; a network file system", remedy)
        yield from _other_hosts(home)
    elif free < SPACE_LOW:
        yield Finding("home", Verdict.NOTE, says, "a full disk drops events (they are counted): make room")
    elif not filesystem.can_be_mapped(home.kind):
        remedy = "its blocks cannot be reserved, so logging is slower and needs room at the end: better use ext4 or xfs"
        yield Finding("home", Verdict.NOTE, says, remedy)
    else:
        yield Finding("home", Verdict.GOOD, says)
    if os.path.exists(home.quota_marker):
        remedy = "start an agent so that the store frees it, or raise HEADRACE_QUOTA"
        yield Finding("quota", Verdict.BAD, "the quota is reached: programs drop events and count them", remedy)


def _other_hosts(home: Home) -> Iterator[Finding]:
    """Hosts that share the home, with journals that no agent ships."""
    folder = os.path.dirname(home.root)
    for host in sorted(os.listdir(folder)):
        there = Home(os.path.join(folder, host))
        if there.root == home.root or not os.path.isdir(there.journals) or not positions.sources(there):
            continue
        if lock.holder(there.agent_lock) is None:
            remedy = (
                f"start an agent on {host}; if there will be none, `headrace agent --home {there.root}` here ships them"
            )
            yield Finding(
                "home", Verdict.NOTE, f"journals of {host} wait in {there.root}, and no agent serves it", remedy
            )


def journals(home: Home) -> Iterator[Finding]:
    """What waits in the journals, and what is wrong with any."""
    found, unreadable = positions.positions(home)
    lag, files = sum(position.lag for position in found), sum(position.files for position in found)
    live = sum(position.alive for position in found)
    says = f"{len(found)} sources, {live} of them live; {size(lag)} and {files} files wait for the store"
    yield Finding("journals", Verdict.GOOD, says)
    for journal in unreadable:
        remedy = "its bytes are kept: a newer release may read them; else move the folder away"
        yield Finding("journals", Verdict.BAD, f"{home.journal(journal.source)}: {journal.reason}", remedy)
    damaged = os.path.dirname(home.damaged("any", 0, 0))
    count = len(os.listdir(damaged)) if os.path.isdir(damaged) else 0
    if count:
        remedy = "the experiments show the ranges as lost; check this machine's disk and memory"
        yield Finding("journals", Verdict.BAD, f"{count} damaged ranges are set aside in {damaged}", remedy)
    strangers = {position.host for position in found} - {machine.host_name()}
    for host in sorted(strangers):
        yield Finding(
            "journals", Verdict.NOTE, f"some were written on {host}", "an agent ships them; it cannot see them end"
        )


def store_reachable(url: str) -> Iterator[Finding]:
    """Whether the store answers, and can create an object only if it is absent."""
    try:
        from headrace_proto.store.backend import open_store, store_id
        from headrace_proto.store.claims import projects

        store = open_store(url, writable=True)
        says = f"{store.url} (id {store_id(store)[:8]}), {len(projects(store))} projects"
        yield Finding("store", Verdict.GOOD, f"{says}; creates only what is absent")
    except (HeadraceError, OSError, ImportError) as error:
        remedy = (
            "correct --store or HEADRACE_STORE, or its credentials; until then what is logged waits in the journals"
        )
        yield Finding("store", Verdict.BAD, f"{url}: {error}", remedy)


def stream(asked: Broker) -> Iterator[Finding]:
    """Whether the broker answers, and its streams lose nothing."""
    if asked.problem:
        remedy = (
            "start one with `headrace up`, or name yours with --nats; until then what is logged waits in the journals"
        )
        yield Finding("broker", Verdict.NOTE, f"{asked.url}: {asked.problem}", remedy)
        return
    yield Finding("broker", Verdict.GOOD, f"{asked.url}, nats-server {asked.version}")
    for found in asked.streams:
        if found.problem:
            missing = found.messages < 0
            remedy = "" if missing else "see `nats stream edit`"
            yield Finding("stream", Verdict.NOTE if missing else Verdict.BAD, f"{found.name}: {found.problem}", remedy)
        elif found.bytes_max > 0 and found.bytes > 0.9 * found.bytes_max:
            says = f"{found.name} is full ({size(found.bytes)}): agents wait, journals grow"
            yield Finding("stream", Verdict.NOTE, says, "collectors are down or slow: start more, or `headrace status`")


def agent(home: Home, there: Running | None) -> Iterator[Finding]:
    """Whether somebody ships this home."""
    holder = lock.holder(home.agent_lock)
    if holder is None:
        remedy = "`headrace up`, or `headrace agent --nats URL`; until then what is logged waits in the journals"
        yield Finding("agent", Verdict.NOTE, "none serves this home", remedy)
        return
    yield from _answer("agent", there.agent_port if there else None, f"process {holder} serves this home")


def collector(there: Running | None) -> Iterator[Finding]:
    """Whether the collector of `headrace up` is well; one that runs elsewhere is seen by `headrace status` there."""
    if there is not None:
        yield from _answer("collector", there.collector_port, "run by `headrace up`")


def _answer(part: str, port: int | None, otherwise: str) -> Iterator[Finding]:
    answer = healthz(port) if port is not None else None
    if port is None:
        yield Finding(part, Verdict.GOOD, otherwise)
    elif answer is None:
        remedy = f"it is being started again; log/{part}.log in the home says why it ended"
        yield Finding(part, Verdict.BAD, f"it does not answer on port {port}", remedy)
    elif not answer.ok:
        reasons = "; ".join(map(str, answer.facts.get("reasons", []))) or "it says that it is not well"
        yield Finding(part, Verdict.BAD, reasons, f"log/{part}.log in the home says more")
    else:
        yield Finding(part, Verdict.GOOD, otherwise)
