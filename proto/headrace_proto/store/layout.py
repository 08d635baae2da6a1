"""Where everything lies in a store: every path, relative to the store's root, and nothing else.

    FORMAT.md                                    how to read this store without Headrace
    _headrace/store.json                         {"format": 1, "id": ..., "created_at": ...}
    _headrace/signs.json                         when the agents were last heard, and of which experiments (`signs`)
    _headrace/keys/<KEY>.json                    which project has the key (`claims`)
    _headrace/temporary/, _headrace/probes/      files without a name yet; what a store was tried with
    _headrace/quarantine/<token>/<time>-<nonce>  what could not be decoded (.bin), and what is known of it (.json)
    <workspace>/<project>/
        project.json                             name, id, key
        ids/<n>.json                             which experiment is <KEY>-<n> (`claims`)
        catalog/<shard>/                         one row an experiment (`catalog`)
        notebooks/<id>/                          a notebook's record and checkpoints (`notebooks`)
        experiments/<experiment>/
            experiment.json                      the newest document, for people and tools
            commits/<20 digits>.json             the truth; the highest number is the newest
            side/<commit>-<nonce>.json           what no longer fits a commit; named by commits
            channels/part-<commit>-<nonce>.parquet
            texts/part-<commit>-<nonce>.parquet  and texts/<channel>/<file>, texts too long for a row
            images/index-<commit>-<nonce>.parquet  and images/<channel>/<file>
            artifacts/<path as logged>           and artifacts/.uploads/, pieces of files on their way
            sources/<path as logged>
            again/<position>-<source>/           what was logged under the path of a file that was removed and swept

Names are checked here once more: what builds a path may have come over a network. Numbers have 20 digits, so that the order
of names is the order of numbers for ever (six digits would end after 11.6 days of a commit a second).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from headrace_proto import names
from headrace_proto.errors import InvalidName
from headrace_proto.ids import is_id
from headrace_proto.limits import TOKENS

STORE_FORMAT: Final = 1
"""Of the layout as a whole, in `_headrace/store.json`. Whoever opens a store of another refuses it with `FormatUnknown`."""

RESERVED: Final = "_headrace"
"""The folder of what belongs to no project. No workspace can be called so: their names begin with a letter or digit."""
FORMAT_FILE: Final = names.FORMAT_FILE
STORE_FILE: Final = f"{RESERVED}/store.json"
SIGNS_FILE: Final = f"{RESERVED}/signs.json"
PROBES: Final = f"{RESERVED}/probes"
TEMPORARY: Final = f"{RESERVED}/temporary"
"""Files of a local store that have no name yet. In one place, so that nobody's glob over parts meets one."""
KEYS: Final = f"{RESERVED}/keys"
QUARANTINE: Final = f"{RESERVED}/quarantine"
UPLOADS: Final = ".uploads"

_DIGITS: Final = 20
_KEY: Final = re.compile(r"[A-Z0-9]{1,16}")
_NUMBERED: Final = re.compile(rf"([0-9]{{{_DIGITS}}})\.json")
_CLAIM: Final = re.compile(r"([1-9][0-9]{0,18})\.json")
_OFFSET: Final = re.compile(rf"[0-9]{{{_DIGITS}}}")
_NONCE: Final = re.compile(r"[0-9a-z]{1,32}")
_FILE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def _checked(pattern: re.Pattern[str], what: str, text: str) -> str:
    if not pattern.fullmatch(text):
        raise InvalidName(f"{what} {text!r} cannot be part of a path in the store")
    return text


def _id(what: str, text: str) -> str:
    if not is_id(text):
        raise InvalidName(f"{what} {text!r} is not 32 lower-case hex digits")
    return text


def digits(number: int) -> str:
    """A number as it stands in names: 20 digits, so that names sort as numbers do."""
    if not 0 <= number < 10**_DIGITS:
        raise ValueError(f"{number} does not fit {_DIGITS} digits")
    return f"{number:0{_DIGITS}d}"


def file_name(text: str) -> str:
    """`text`, a file's name in a spool (and so in the store); else `InvalidName`. Never hidden, never a folder."""
    return _checked(_FILE, "file", text)


def nonce_of(*words: str) -> str:
    """A nonce that nobody can have who does not say the same words: no source can mean another's quarantined bytes."""
    return sha256("/".join(words).encode()).hexdigest()[:32]


# -- The store ----------------------------------------------------------------------------------------------------------


def key_file(key: str) -> str:
    """Which project has this key."""
    return f"{KEYS}/{_checked(_KEY, 'key', key)}.json"


def quarantine_file(token: int, time_ns: int, nonce: str, suffix: str) -> str:
    """Bytes that did not decode (`suffix` "bin"), or what is known of them ("json")."""
    if not 0 <= token < TOKENS or suffix not in ("bin", "json"):
        raise InvalidName(f"token {token!r} or suffix {suffix!r} cannot be part of a path in the store")
    return f"{QUARANTINE}/{token}/{digits(time_ns)}-{_checked(_NONCE, 'nonce', nonce)}.{suffix}"


# -- A project ----------------------------------------------------------------------------------------------------------


def notebooks_folder(project: str) -> str:
    """The folder of the project's notebooks."""
    return f"{project_folder(project)}/notebooks"


def notebook_id(text: str) -> str:
    """32 hex digits as a notebook's id, which looks as Neptune's: a UUID."""
    return "-".join(text[first:end] for first, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def is_notebook_id(text: str) -> bool:
    """Whether `text` is a notebook's id."""
    digits = text.replace("-", "")
    return is_id(digits) and notebook_id(digits) == text


def notebook_folder(project: str, notebook: str) -> str:
    """The folder of one notebook: its record, and its checkpoints."""
    if not is_notebook_id(notebook):
        raise InvalidName(f"notebook {notebook!r:.80} is no notebook's id")
    return f"{notebooks_folder(project)}/{notebook}"


def notebook_file(project: str, notebook: str) -> str:
    """A notebook's record."""
    return f"{notebook_folder(project, notebook)}/notebook.json"


def is_project(name: str) -> bool:
    """Whether `name` can be a project's: what else lies in a store's folders is not ours."""
    try:
        names.project_name(name)
    except InvalidName:
        return False
    return True


def project_folder(project: str) -> str:
    """The folder of a project `workspace/name`: its very name."""
    return names.project_name(project)


def project_file(project: str) -> str:
    """The project's record."""
    return f"{project_folder(project)}/project.json"


def claims_folder(project: str) -> str:
    """The folder of the numbers that the project has given away."""
    return f"{project_folder(project)}/ids"


def claim_file(project: str, number: int) -> str:
    """Which experiment has this number. Plain digits: `ids/7.json` is what a person looks for."""
    if number < 1:
        raise ValueError(f"an experiment's number is at least 1, not {number}")
    return f"{claims_folder(project)}/{number}.json"


def claim_number(name: str) -> int | None:
    """The number that the name of a claim means; None for any other name."""
    found = _CLAIM.fullmatch(name)
    return int(found[1]) if found else None


def shards_folder(project: str) -> str:
    """A project's catalog: a folder for each shard."""
    return f"{project_folder(project)}/catalog"


def catalog_folder(project: str, shard: int) -> str:
    """The folder of one shard of a project's catalog."""
    if not 0 <= shard < TOKENS:
        raise ValueError(f"shard {shard} is outside 0..{TOKENS - 1}")
    return f"{shards_folder(project)}/{shard:03d}"


def experiments_folder(project: str) -> str:
    """The folder of all experiments of a project."""
    return f"{project_folder(project)}/experiments"


# -- An experiment ------------------------------------------------------------------------------------------------------


def experiment_folder(project: str, experiment: str) -> str:
    """The folder of one experiment."""
    return f"{experiments_folder(project)}/{_id('experiment', experiment)}"


def document_file(project: str, experiment: str) -> str:
    """The newest document, for people and tools. Our own readers never use it: a paused writer may have put an older one."""
    return f"{experiment_folder(project, experiment)}/experiment.json"


def commits_folder(project: str, experiment: str) -> str:
    """The folder of commits."""
    return f"{experiment_folder(project, experiment)}/commits"


def commit_file(project: str, experiment: str, number: int) -> str:
    """One commit."""
    return f"{commits_folder(project, experiment)}/{digits(number)}.json"


def commit_number(name: str) -> int | None:
    """The number that the name of a commit means; None for any other name."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else None


def commit_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of the commits among `names`, ascending."""
    return sorted(number for name in names if (number := commit_number(name)) is not None)


def side_file(project: str, experiment: str, number: int, nonce: str) -> str:
    """What was moved out of the commits from `number` on. The nonce is its commit's, so that no other writer means it."""
    return f"{experiment_folder(project, experiment)}/side/{digits(number)}-{_checked(_NONCE, 'nonce', nonce)}.json"


def channel_part(project: str, experiment: str, commit: int, nonce: str) -> str:
    """A part of the numeric channels, written for the commit `commit`."""
    return _part(project, experiment, "channels/part", commit, nonce)


def text_part(project: str, experiment: str, commit: int, nonce: str) -> str:
    """A part of the text channels."""
    return _part(project, experiment, "texts/part", commit, nonce)


def image_part(project: str, experiment: str, commit: int, nonce: str) -> str:
    """A part of the index of images."""
    return _part(project, experiment, "images/index", commit, nonce)


def _part(project: str, experiment: str, stem: str, commit: int, nonce: str) -> str:
    folder = experiment_folder(project, experiment)
    return f"{folder}/{stem}-{digits(commit)}-{_checked(_NONCE, 'nonce', nonce)}.parquet"


def text_file(project: str, experiment: str, channel: str, file: str) -> str:
    """A text that is too long for a row of a part."""
    return f"{experiment_folder(project, experiment)}/texts/{_channel_folder(channel)}/{file_name(file)}"


def image_file(project: str, experiment: str, channel: str, file: str) -> str:
    """An image."""
    return f"{experiment_folder(project, experiment)}/images/{_channel_folder(channel)}/{file_name(file)}"


def _channel_folder(channel: str) -> str:
    return names.path_part(names.channel_name(channel))


def artifact_file(project: str, experiment: str, path: str) -> str:
    """An artifact, under the path that it was logged as."""
    checked = names.artifact_path(path)
    if checked == UPLOADS or checked.startswith(f"{UPLOADS}/"):
        raise InvalidName(f"artifact path {path!r} lies where pieces of files are gathered: rename it")
    return f"{experiment_folder(project, experiment)}/artifacts/{checked}"


def source_file(project: str, experiment: str, path: str) -> str:
    """A source file of the program."""
    return f"{experiment_folder(project, experiment)}/sources/{names.artifact_path(path)}"


def again_file(project: str, experiment: str, position: int, source: str, path: str) -> str:
    """An artifact or source file whose own place was swept: one that only its event can have."""
    folder = f"{experiment_folder(project, experiment)}/again/{digits(position)}-{_id('source', source)}"
    return f"{folder}/{names.artifact_path(path)}"


def upload_folder(project: str, experiment: str, source: str, file: str) -> str:
    """The pieces of one file that is on its way."""
    folder = f"{experiment_folder(project, experiment)}/artifacts/{UPLOADS}"
    return f"{folder}/{_id('source', source)}/{file_name(file)}"


def piece_file(project: str, experiment: str, source: str, file: str, offset: int) -> str:
    """The piece that begins at `offset`."""
    return f"{upload_folder(project, experiment, source, file)}/{digits(offset)}"


def piece_offset(name: str) -> int | None:
    """The offset that the name of a piece means; None for any other name."""
    return int(name) if _OFFSET.fullmatch(name) else None


def piece_offsets(names: Iterable[str]) -> list[int]:
    """The offsets of the pieces among `names`, ascending."""
    return sorted(offset for name in names if (offset := piece_offset(name)) is not None)


def checked_path(path: str) -> str:
    """`path`, if it can mean nothing but an object below the root; else `InvalidName`."""
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidName(f"{path!r} is no path in a store: parts, each with a name, separated by '/'")
    return path
