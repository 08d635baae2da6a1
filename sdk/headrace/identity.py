"""Who a process is to an experiment: owner or rank, of which attempt; and which experiment a key means."""

from __future__ import annotations

import os

from headrace_proto.errors import ExperimentExists, ExperimentNotFound, HeadraceError, InvalidValue
from headrace_proto.events import Role
from headrace_proto.ids import derived_id, random_id
from headrace_proto.journal import SourceFacts, machine
from headrace_proto.journal.layout import decode_head, segment_name, segment_numbers
from headrace_proto.limits import HEADER_BYTES
from headrace_proto.names import PROPERTY_BYTES_MAX
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final, Literal, TypeAlias

    from headrace_proto.home import Home
    from headrace_proto.journal import Header

    Resume: TypeAlias = Literal["allow", "never", "must"]

AUTO: Final = "auto"
_ATTEMPTS: Final = ("HEADRACE_ATTEMPT", "TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
_LABEL_CHARACTERS_MAX: Final = 255


class Identity(Record):
    """Which experiment, by which key, and what this process is to it."""

    experiment: str
    key: str | None
    facts: SourceFacts


def identify(project: str, key: str | None, rank: int | None, label: str | None, *, hardware: bool) -> Identity:
    """Who we are. Without a key the experiment is a new one, and this process its owner whatever its rank."""
    chosen = _checked_key(_key_of_environment() if key == AUTO else key)
    rank = _checked_rank(rank if rank is not None or chosen is None else _rank_of_environment())
    owner = chosen is None or rank in (None, 0)
    facts = SourceFacts(
        role=Role.OWNER if owner else Role.RANK,
        rank=rank,
        label=checked_label(label),
        attempt=attempt_of_environment(),
        hardware=hardware,
    )
    return Identity(random_id() if chosen is None else derived_id(project, chosen), chosen, facts)


def attaching_facts(owner: bool, rank: int | None, label: str | None, owned_by: Header | None) -> SourceFacts:
    """What a process is that joins an experiment, whose owner on this node is `owned_by`."""
    return SourceFacts(
        role=Role.OWNER if owner else Role.WORKER if rank is None else Role.RANK,
        rank=_checked_rank(rank),
        label=checked_label(label),
        attempt=attempt_of_environment(),
        parent=owned_by.source if owned_by else "",
        hardware=owned_by.hardware if owned_by else True,
    )


def checked_label(label: Any) -> str:
    """A source's label."""
    if label is None or (isinstance(label, str) and len(label) <= _LABEL_CHARACTERS_MAX):
        return label or ""
    raise InvalidValue(f"label must be a str of at most {_LABEL_CHARACTERS_MAX} characters, not {label!r:.80}")


def _checked_key(key: Any) -> str | None:
    if key is None or (isinstance(key, str) and 0 < len(key.encode("utf-8", "replace")) <= PROPERTY_BYTES_MAX):
        return key
    raise InvalidValue(f"key must be a str that is not empty, or 'auto', not {key!r:.80}")


def _checked_rank(rank: Any) -> int | None:
    if rank is None or (isinstance(rank, int) and rank >= 0):
        return rank
    raise InvalidValue(f"rank must be an int from 0 on, not {rank!r:.80}")


def attempt_of_environment() -> int:
    """How often the scheduler has restarted this run."""
    return next((number for name in _ATTEMPTS if (number := _number(name)) is not None), 0)


def _rank_of_environment() -> int | None:
    rank = _number("RANK")
    return rank if rank is not None else _number("SLURM_PROCID")


def _number(variable: str) -> int | None:
    given = os.environ.get(variable, "")
    return int(given) if given.isdecimal() else None


def _key_of_environment() -> str | None:
    """The key by which all ranks and restarts of one launch agree, or None outside of a known launcher."""
    environment = os.environ
    run = environment.get("TORCHELASTIC_RUN_ID")
    if run and run != "none":
        return f"torchelastic:{run}"
    if run:
        return _key_of_unnamed_launch()
    if "SLURM_JOB_ID" in environment:
        return f"slurm:{environment['SLURM_JOB_ID']}.{environment.get('SLURM_STEP_ID', '')}"
    return None


def _key_of_unnamed_launch() -> str:
    """torchrun without --rdzv-id calls every run 'none': on one node the launching process, which outlives restarts, is the run."""
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        raise InvalidValue(
            "key='auto' over several nodes needs a name for the run: torchrun --rdzv-id=NAME, or key=..."
        )
    parent = os.getppid()
    return f"torchelastic:{machine.boot_id()}:{machine.host_name()}:{parent}:{machine.process_start(parent)}"


def check_resume(resume: Resume, home: Home, project: str, identity: Identity, store: str, *, direct: bool) -> None:
    """Refuse what `resume` forbids: "never" an experiment that exists, "must" one that does not.

    Known here is what this node's home has seen and, with `direct=True` or a store on this machine, what the store holds. A store
    behind a network is not asked: a trainer does not wait for one.
    """
    if resume not in ("allow", "never", "must"):
        raise InvalidValue(f"resume must be 'allow', 'never' or 'must', not {resume!r:.80}")
    if resume == "allow" or identity.key is None or identity.facts.role != Role.OWNER:
        return
    exists = _exists(home, project, identity.experiment, store, direct=direct)
    if resume == "never" and exists:
        raise ExperimentExists(
            f"an experiment with the key {identity.key!r} exists in {project}: resume='allow' goes on with it"
        )
    if resume == "must" and not exists:
        raise ExperimentNotFound(
            f"no experiment with the key {identity.key!r} is known in {project} on this machine: resume='allow' begins it"
        )


def _exists(home: Home, project: str, experiment: str, store: str, *, direct: bool) -> bool:
    if os.path.exists(home.status(experiment)) or any(header.experiment == experiment for header in headers(home)):
        return True
    return store_at_hand(store, direct=direct) and _is_stored(store, project, experiment)


def store_at_hand(store: str, *, direct: bool) -> bool:
    """Whether a beginning may look at the store: it lies on this machine, or the process stores there by itself anyway."""
    return direct or ("://" not in store and os.path.isdir(store))


def _is_stored(store: str, project: str, experiment: str) -> bool:
    from headrace_proto.store.backend import open_store
    from headrace_proto.store.chain import Chain

    chain = Chain(open_store(store, writable=False), project, experiment)
    chain.load()
    return chain.head is not None and not chain.head.blank


def header_of(home: Home, source: str) -> Header | None:
    """The header of a source's journal; None when there is none that can be read."""
    folder = home.journal(source)
    try:
        with open(os.path.join(folder, segment_name(segment_numbers(folder)[0])), "rb", buffering=0) as file:
            return decode_head(file.read(HEADER_BYTES)).facts
    except (OSError, IndexError, HeadraceError):
        return None


def headers(home: Home) -> Iterator[Header]:
    """The headers of the journals in a home, in no order; journals that cannot be read are passed over."""
    try:
        sources = os.listdir(home.journals)
    except OSError:
        return
    yield from filter(None, (header_of(home, source) for source in sources))
