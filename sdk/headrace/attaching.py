"""Joining an experiment that another process, or this one, has begun."""

from __future__ import annotations

import copyreg
from contextlib import suppress

from headrace.experiment import Experiment, alive, running
from headrace.identity import attaching_facts, header_of, headers
from headrace.inheritance import VARIABLE, inherited
from headrace.live.handle import Origin
from headrace.live.known import Known, known_from_journal
from headrace_proto.errors import ExperimentNotFound, MissingExtra
from headrace_proto.events import Role
from headrace_proto.home import Home, store_url
from headrace_proto.ids import derived_id, is_id
from headrace_proto.names import project_name
from headrace_proto.status import read_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from headrace_proto.journal import Header


def attach(
    internal_id: str | None = None, *, owner: bool = False, rank: int | None = None, label: str | None = None
) -> Experiment:
    """Join an experiment, as one more of its processes.

    Args:
        internal_id: The experiment, by its internal id, short id (`DIG-7`) or key; by default the one that HEADRACE_EXPERIMENT
            names, as `create_experiment` sets it for child processes. One that this node's home does not know is joined through
            `Project.attach`.
        owner: Take it over: its state is *running* again, and from now on this process decides it.
        rank: This process's number in a distributed run; its failure is then the experiment's.
        label: A name by which readers tell this process's points from others'.

    Raises:
        ExperimentNotFound: no id was given and none is inherited, or the home does not know it.
    """
    given = inherited()
    if given is not None and (
        internal_id is None or _is_called(Home(given.home), given.project, given.experiment, internal_id)
    ):
        return attach_to(
            Home(given.home),
            given.project,
            given.experiment,
            given.source,
            owner=owner,
            rank=rank,
            label=label,
            store=given.store,
            direct=given.direct == "direct",
        )
    if internal_id is None:
        raise ExperimentNotFound(
            f"no experiment to attach to: give its internal_id, or set {VARIABLE} as create_experiment does"
        )
    here = next(
        (one for one in alive() if _is_called(one.origin.home, one.project, one.internal_id, internal_id)), None
    )
    if here is not None:
        origin = here.origin
        return attach_to(
            origin.home,
            origin.project,
            here.internal_id,
            owner=owner,
            rank=rank,
            label=label,
            store=origin.store,
            direct=origin.direct,
            on_error=origin.on_error,
        )
    home = Home()
    header = _known_here(home, internal_id)
    if header is None:
        raise ExperimentNotFound(
            f"{home!r} knows no experiment {internal_id!r:.80}: attach through its project, init('workspace/name').attach(...)"
        )
    return attach_to(home, header.project, header.experiment, None, owner=owner, rank=rank, label=label)


def attach_to(
    home: Home,
    project: str,
    experiment: str,
    source: str | None = None,
    *,
    owner: bool = False,
    rank: int | None = None,
    label: str | None = None,
    store: str | None = None,
    direct: bool = False,
    on_error: str = "raise",
) -> Experiment:
    """Join the experiment of `project`; what `source`, its owner, has said of it is known from the beginning."""
    if not is_id(str(experiment)):
        experiment = _internal_id(home, project, experiment, store_url(store, home))
    here = running(experiment)
    if here is not None and not owner and rank is None and label is None:
        return here
    header = header_of(home, source) if source else _owner(home, experiment)
    facts = attaching_facts(owner, rank, label, header)
    known = known_from_journal(home, header.source) if header else Known()
    origin = Origin(home, project_name(project), experiment, facts, store_url(store, home), direct, on_error)
    return Experiment(origin, known)


def _known_here(home: Home, wanted: str, project: str | None = None) -> Header | None:
    """A journal of this home that is of the experiment with this id or key."""
    found = (header for header in headers(home) if project in (None, header.project))
    return next((header for header in found if _is_called(home, header.project, header.experiment, wanted)), None)


def _is_called(home: Home, project: str, experiment: str, wanted: Any) -> bool:
    """Whether this is the experiment's internal id, the short one that the agent was told, or its key."""
    if is_id(str(wanted)) or not isinstance(wanted, str) or not wanted:
        return bool(experiment == wanted)
    status = read_status(home.status(experiment))
    return (status is not None and wanted == status.short_id) or experiment == derived_id(project, wanted)


def _internal_id(home: Home, project: str, wanted: Any, store: str) -> str:
    """The experiment of `project` with this short id or key, as this home knows it, or the store."""
    here = _known_here(home, wanted, project_name(project))
    if here is not None:
        return here.experiment
    if isinstance(wanted, str) and wanted:
        # no part for reading, or a store that does not answer
        with suppress(ExperimentNotFound, MissingExtra, OSError):
            from headrace.reading import StoredProject

            return StoredProject(store, project).get_experiment(wanted).internal_id
    raise ExperimentNotFound(
        f"{wanted!r:.80} is no internal id (32 hexadecimal digits, `Experiment.internal_id`), and neither this home nor the store "
        f"knows an experiment of {project} with that short id or key"
    )


def _owner(home: Home, experiment: str) -> Header | None:
    owners = [one for one in headers(home) if one.experiment == experiment and one.role == Role.OWNER]
    return max(owners, key=lambda header: header.created_ns, default=None)


def reattach(
    home: str, project: str, experiment: str, source: str, store: str, direct: bool, on_error: str
) -> Experiment:
    """What a pickled handle becomes: itself in the process that pickled it, one more source in another."""
    return attach_to(Home(home), project, experiment, source, store=store, direct=direct, on_error=on_error)


def _reduce(experiment: Experiment) -> tuple[Any, ...]:
    origin = experiment.origin
    return reattach, (
        origin.home.named,
        origin.project,
        experiment.internal_id,
        experiment.source,
        origin.store,
        *origin[5:],
    )


copyreg.pickle(Experiment, _reduce)  # here, because only attaching knows how a handle comes back
