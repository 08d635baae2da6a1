"""Where messages go: stream names and subjects. Every part of a subject is `[A-Za-z0-9_-]{1,64}`.

| stream      | subjects                                     | carries                                      | kept                 |
|-------------|----------------------------------------------|----------------------------------------------|----------------------|
| HR_EVENTS   | hr.v1.<site>.<token>.<experiment>.<source>   | EVENTS, LOST and DEAD frames                 | until committed      |
| HR_FILES    | hr.f1.<site>.<token>.<experiment>.<source>   | CHUNK frames                                 | until a piece holds  |
| HR_MARKS    | hr.w1.<site>.<source>, ...<source>.<file>    | watermarks, one a subject: the newest        | 30 days              |
| HR_LEASES   | hr.l1.<partition>                            | which collector has a partition              | seconds              |
|             | hr.l1.collector.<collector>                  | that a collector is alive                    | seconds              |
| (none)      | hr.c1.<site>.rewind.<source>                 | collector to agent: send again from here     | not                  |
| (none)      | hr.c1.<site>.abort.<experiment>              | operator to agents: end this experiment      | not                  |
| (none)      | hr.s1.<site>                                 | agent to collectors: signs of life           | not                  |
| (none)      | hr.o1.find                                   | operator to all agents: who has it?          | not                  |
| (none)      | hr.a1.<site>.<request>                       | agent to operator: what came of a request    | not                  |
| (none)      | hr.o1.close-gap.<experiment>                 | operator to collectors: wait no longer       | not                  |

The version is part of the subject: a new one is a new subject, so that old and new agents share a broker.
"""

from __future__ import annotations

from typing import Final

from headrace_proto.ids import token
from headrace_proto.limits import TOKENS

EVENTS_STREAM: Final = "HR_EVENTS"
FILES_STREAM: Final = "HR_FILES"
MARKS_STREAM: Final = "HR_MARKS"
LEASES_STREAM: Final = "HR_LEASES"
STREAMS: Final = (EVENTS_STREAM, FILES_STREAM, MARKS_STREAM, LEASES_STREAM)

EVENTS_PREFIX: Final = "hr.v1"
FILES_PREFIX: Final = "hr.f1"
MARKS_PREFIX: Final = "hr.w1"
LEASES_PREFIX: Final = "hr.l1"
CONTROL_PREFIX: Final = "hr.c1"
OPERATOR_PREFIX: Final = "hr.o1"
ANSWERS_PREFIX: Final = "hr.a1"
SIGNS_PREFIX: Final = "hr.s1"

DEFAULT_SITE: Final = "local"
PART: Final = r"^[A-Za-z0-9_-]{1,64}$"
"""What may stand between two dots of a subject. Ids are of this form by themselves; a site's name is somebody's choice."""


def events(site: str, experiment: str, source: str) -> str:
    """Where a source's batches go."""
    return f"{EVENTS_PREFIX}.{site}.{token(experiment)}.{experiment}.{source}"


def files(site: str, experiment: str, source: str) -> str:
    """Where the chunks of a source's files go."""
    return f"{FILES_PREFIX}.{site}.{token(experiment)}.{experiment}.{source}"


def mark(site: str, source: str, file: str | None = None) -> str:
    """Where a source's watermark is published, or that of one of its files."""
    return f"{MARKS_PREFIX}.{site}.{source}" + (f".{file}" if file else "")


def marks_of_site(site: str) -> str:
    """What an agent subscribes to."""
    return f"{MARKS_PREFIX}.{site}.>"


def rewind(site: str, source: str) -> str:
    """Where a collector asks for a source to be sent again."""
    return f"{CONTROL_PREFIX}.{site}.rewind.{source}"


def rewinds(site: str) -> str:
    """What an agent subscribes to; of site `*`, what collectors may ask for."""
    return f"{CONTROL_PREFIX}.{site}.rewind.*"


def abort(site: str, experiment: str) -> str:
    """Where the agents of a site are asked to end an experiment; `*` for any."""
    return f"{CONTROL_PREFIX}.{site}.abort.{experiment}"


def control_of_site(site: str) -> str:
    """All that is asked of the agents of a site."""
    return f"{CONTROL_PREFIX}.{site}.>"


def sign(site: str) -> str:
    """Where the agents of a site say that they are there; of `*`, those of any."""
    return f"{SIGNS_PREFIX}.{site}"


FIND: Final = f"{OPERATOR_PREFIX}.find"
"""Where the agents of all sites are asked whether they have an experiment. It is named by a digest (`messages.Find`): whoever knows
an experiment's id could write to it, and a site is not to learn another's."""


def answer(site: str, request: str) -> str:
    """Where an agent answers a request of an operator, whose id is `request`.

    The site stands in the subject, where the broker vouches for it. Not the request's own reply subject: that is another account's.
    """
    return f"{ANSWERS_PREFIX}.{site}.{request}"


def answers_of_site(site: str) -> str:
    """Where the agents of a site answer."""
    return f"{ANSWERS_PREFIX}.{site}.*"


def close_gap(experiment: str) -> str:
    """Where collectors are asked not to wait for what is missing of an experiment; `*` for all of them."""
    return f"{OPERATOR_PREFIX}.close-gap.{experiment}"


def lease(partition: int) -> str:
    """Where the lease of a partition lies."""
    return f"{LEASES_PREFIX}.{partition}"


def collector(name: str) -> str:
    """Where a collector says that it is alive; `*` for all of them."""
    return f"{LEASES_PREFIX}.collector.{name}"


def partition_tokens(partition: int, partitions: int) -> list[int]:
    """The tokens of a partition: every `partitions`-th of the 256, so that their number may change without clients."""
    return list(range(partition, TOKENS, partitions))


def partition_filters(prefix: str, partition: int, partitions: int) -> list[str]:
    """The `filter_subjects` of a partition's consumer on the stream of `prefix`."""
    return [f"{prefix}.*.{number}.>" for number in partition_tokens(partition, partitions)]
