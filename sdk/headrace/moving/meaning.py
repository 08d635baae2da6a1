"""What a run's single values mean to an experiment, and what its things are called here. Pure.

| in Neptune                                         | in Headrace                                                                |
|----------------------------------------------------|----------------------------------------------------------------------------|
| `sys/id` (`SAN-7`), else the run id if it is such  | the short id, if project and number are free in the store                  |
| run id (Neptune 3: your own, `sys/custom_run_id`)  | `key`: `create_experiment(key=...)` of the same project goes on with it    |
| `sys/name`, `description`, `owner`, `hostname`     | name, description, owner, hostname                                         |
| `sys/creation_time`; `sys/running_time`            | created; finished, so much later (else the time of the last point)         |
| `sys/failed`, `sys/state`                          | failed, aborted (also what still ran when it was exported), else succeeded |
| `sys/tags`, `sys/group_tags`                       | tags                                                                       |
| other `sys/...`                                    | the fact `neptune`                                                         |
| `source_code/entrypoint`                           | entrypoint                                                                 |
| `properties/NAME` (string)                         | property NAME                                                              |
| `parameters/NAME` and any other float, int, bool,  | parameter NAME, or the whole path; a datetime as ISO 8601, a string_set as |
| string, datetime, string_set                       | a list, a string of more than 16 KiB as the artifact PATH.txt              |
| float_series                                       | numeric channel; steps with their fractions                                |
| string_series                                      | text channel                                                               |
| histogram_series                                   | text channel of JSON: {"type", "edges", "values"}                          |
| file, file_set, artifact                           | artifact of that path; below `source_code/` a source file                  |
| file_series                                        | channel of images; of other files: artifacts PATH/STEP.SUFFIX              |

`logs/NAME`, `parameters/NAME`, `properties/NAME` and `artifacts/NAME` are where Neptune 2 showed what the old API called NAME: they
are called NAME again, unless the run has something else of that name. What looks like a secret is masked (`headrace.secrets`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeGuard

from headrace.definition import UNTITLED, Definition
from headrace.moving.contents import Contents
from headrace.moving.export import Run
from headrace.secrets import masked, masked_text
from headrace.values import parameter_size
from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.events import Outcome
from headrace_proto.limits import FACT_BYTES_MAX
from headrace_proto.names import PART_BYTES_MAX, PROPERTY_BYTES_MAX
from headrace_proto.store.times import us_of

_ID: Final = re.compile(r"[A-Z][A-Z0-9]*-[1-9][0-9]*")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f#?\\]|%2e|%2f", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LIVE_STATES: Final = frozenset({"running", "active"})
PARAMETERS: Final = "parameters/"
PROPERTIES: Final = "properties/"
SERIES: Final = "logs/"
ARTIFACTS: Final = "artifacts/"
SOURCES: Final = "source_code/"
_ENTRYPOINT: Final = "source_code/entrypoint"


class Meaning(NamedTuple):
    """A run as an experiment."""

    wanted_id: str
    definition: Definition
    entrypoint: str | None
    neptune: dict[str, Any]
    """What Neptune said about itself, as a fact."""
    texts: dict[str, str]
    """Parameters that are too large to be one, by the artifact that they become."""
    outcome: str
    detail: str | None
    created_us: int
    ended_us: int
    masked: int
    """Values in which something was masked."""


def meaning_of(run: Run, contents: Contents) -> Meaning:
    """What the run's values mean."""
    values = dict(contents.values)
    system = {path[4:]: values.pop(path) for path in list(values) if path.startswith("sys/")}
    entrypoint = values.pop(_ENTRYPOINT, None)
    properties = {
        path: value for path, value in values.items() if path.startswith(PROPERTIES) and isinstance(value, str)
    }
    kept, texts = _parameters({path: value for path, value in values.items() if path not in properties})
    shown = _masked_all(kept, PARAMETERS)
    shown_properties = _masked_all(properties, PROPERTIES)
    created_us = _created_us(system, contents)
    outcome, detail = _outcome(system)
    definition = Definition(
        name=_text(system.get("name")) or UNTITLED,
        description=_text(system.get("description")),
        params=shown,
        properties={name: str(value) for name, value in shown_properties.items()},
        tags=tuple(dict.fromkeys([*_listed(system.get("tags")), *_listed(system.get("group_tags"))])),
        author=_text(system.get("owner")) or None,
        hostname=_text(system.get("hostname")),
        key=run.run_id,
        created_ns=created_us * 1000,
    )
    return Meaning(
        wanted_id=next(filter(is_neptune_id, (system.get("id"), run.run_id)), ""),
        definition=definition,
        entrypoint=entrypoint if isinstance(entrypoint, str) else None,
        neptune=_fact({f"sys/{name}": plain(value) for name, value in system.items()}),
        texts={artifact_name(f"{path}.txt"): masked_text(text) for path, text in texts.items()},
        outcome=outcome,
        detail=detail,
        created_us=created_us,
        ended_us=_ended_us(system, contents, created_us),
        masked=_differences(kept, shown, PARAMETERS) + _differences(properties, shown_properties, PROPERTIES),
    )


def is_neptune_id(value: Any) -> TypeGuard[str]:
    """Whether this is an id that Neptune gave, `SAN-7`, and not one that a user chose."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def plain(value: Any) -> Any:
    """A single value as a parameter has it."""
    return value.isoformat() if isinstance(value, datetime) else value


def short_names(paths: Collection[str], namespace: str) -> dict[str, str]:
    """What each path is called here: without the namespace, where no other path is called so."""
    taken = {path for path in paths if not path.startswith(namespace)}
    return {path: _short(path, namespace, taken) for path in paths}


def _short(path: str, namespace: str, taken: Collection[str]) -> str:
    name = path.removeprefix(namespace)
    return clean(path if not name or name in taken else name)


def clean(name: str) -> str:
    """A name of a channel, parameter or property without what none may hold."""
    shown = _CONTROL.sub("_", name).strip() or "_"
    encoded = shown.encode("utf-8", "replace")
    if len(encoded) <= names.CHANNEL_NAME_BYTES_MAX:
        return encoded.decode()
    end = names.CHANNEL_NAME_BYTES_MAX - 17
    return f"{encoded[:end].decode(errors='ignore')}-{sha256(encoded).hexdigest()[:16]}"


def artifact_name(path: str) -> str:
    """A path that an artifact may have: the given one, or the nearest to it that is safe."""
    try:
        return names.artifact_path(path)
    except InvalidName:
        parts = [_UNSAFE.sub("_", part) for part in path.split("/") if part]
        safe = [_bounded(part if part not in (".", "..") else "_" * len(part)) for part in parts]
        joined = "/".join(safe).replace(":", "_") or "_"
        if len(joined.encode()) > names.PATH_BYTES_MAX:
            joined = f"{sha256(path.encode()).hexdigest()}/{safe[-1]}"
        return names.artifact_path(joined)


def _bounded(part: str) -> str:
    encoded = part.encode("utf-8", "replace")
    if len(encoded) <= PART_BYTES_MAX:
        return part
    return f"{encoded[: PART_BYTES_MAX - 20].decode(errors='ignore')}-{sha256(encoded).hexdigest()[:16]}"


def _parameters(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those that fit, and the texts of those that do not."""
    kept: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for path, value in values.items():
        shown = plain(value)
        if parameter_size(shown) <= PROPERTY_BYTES_MAX:
            kept[path] = shown
        else:
            texts[path] = shown if isinstance(shown, str) else "\n".join(map(str, shown))
    return kept, texts


def _masked_all(values: dict[str, Any], namespace: str) -> dict[str, Any]:
    called = short_names(values, namespace)
    return {called[path]: masked(called[path], value) for path, value in values.items()}


def _differences(values: dict[str, Any], shown: dict[str, Any], namespace: str) -> int:
    called = short_names(values, namespace)
    return sum(shown[called[path]] != value for path, value in values.items() if value == value)


def _text(value: Any) -> str:
    return masked_text(value)[: FACT_BYTES_MAX // 4] if isinstance(value, str) else ""


def _listed(value: Any) -> list[str]:
    return [clean(item) for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _created_us(system: dict[str, Any], contents: Contents) -> int:
    created = system.get("creation_time")
    if isinstance(created, datetime):
        return max(0, us_of(created))
    return contents.first_us or 0


def _ended_us(system: dict[str, Any], contents: Contents, created_us: int) -> int:
    running_s = system.get("running_time")
    if isinstance(running_s, int | float) and 0 <= running_s < 1e9:
        return created_us + round(running_s * 1e6)
    return max(created_us, contents.last_us or 0)


def _outcome(system: dict[str, Any]) -> tuple[str, str | None]:
    state = str(system.get("state") or "").lower()
    if system.get("failed") is True or state == "failed":
        return Outcome.FAILED, "it had failed in Neptune"
    if state == "aborted":
        return Outcome.ABORTED, None
    if state in _LIVE_STATES:
        return Outcome.ABORTED, "it was running when it was exported from Neptune"
    return Outcome.SUCCEEDED, None


def _fact(values: dict[str, Any]) -> dict[str, Any]:
    """As much as a fact may hold, the small ones first."""
    kept: dict[str, Any] = {}
    size = 0
    for name, value in sorted(values.items(), key=lambda item: parameter_size(item[1])):
        size += parameter_size(value) + len(name.encode()) + 16
        if size > FACT_BYTES_MAX // 2:
            break
        kept[name] = masked(name, value)
    return dict(sorted(kept.items()))
