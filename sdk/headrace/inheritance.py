"""What a process tells the processes that it starts, so that they can join its experiment.

HEADRACE_EXPERIMENT names the experiment: its id, its project, its owner's source, its home, its store, and "direct" or nothing,
with '|' between them. `create_experiment` sets it for the children of a process; only `attach` reads it.
"""

from __future__ import annotations

import os

from headrace_proto.ids import is_id
from headrace_proto.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from headrace.live.handle import Origin

VARIABLE: Final = "HEADRACE_EXPERIMENT"


class Inherited(Record):
    """What HEADRACE_EXPERIMENT says."""

    experiment: str
    project: str
    source: str
    home: str
    store: str
    direct: str

    @classmethod
    def of(cls, origin: Origin, source: str) -> Inherited:
        """What the children of a process are told that logs to `origin`."""
        return cls(
            origin.experiment,
            origin.project,
            source,
            origin.home.named,
            origin.store,
            "direct" if origin.direct else "",
        )

    def __str__(self) -> str:
        return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in self)


def inherited() -> Inherited | None:
    """The experiment that this process inherits, if it does."""
    parts = os.environ.get(VARIABLE, "").split("|")
    if len(parts) != len(Inherited._fields) or not is_id(parts[0]):
        return None
    return Inherited(*(part.replace("%7C", "|").replace("%25", "%") for part in parts))
