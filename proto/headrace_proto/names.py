"""What things may be called, and how a name becomes a path. Every rule is checked where the name is given, in the trainer,
and again where it becomes a path, in the collector: what comes over a network is hostile until checked."""

from __future__ import annotations

import unicodedata

from headrace_proto.errors import InvalidName

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

CHANNEL_NAME_BYTES_MAX: Final = 1024
"""As Neptune's attribute paths."""
PART_BYTES_MAX: Final = 255
"""A part of a path: the limit of ext4, xfs, APFS and NTFS."""
PATH_BYTES_MAX: Final = 900
"""A whole artifact path: S3 takes keys of 1,024 bytes, of which the experiment's folder needs some."""
TAG_CHARACTERS_MAX: Final = 255
PROPERTY_BYTES_MAX: Final = 16 * 1024
"""Name or value of a property or parameter: it is part of every commit of its experiment."""

SYSTEM_CHANNELS: Final = "system/"
"""What the names of hardware's channels begin with: they are shown by `get_hardware_utilization`, in no list, and no digest of an
experiment has them, because what the hardware did is of the machine, not of the program."""

FORMAT_FILE: Final = "FORMAT.md"
"""In the root of each store, beside the workspaces: how to read it without Headrace."""

_PROJECT_PART_MAX: Final = 64


def _text(what: str, value: Any, bytes_max: int) -> str:
    if not isinstance(value, str):
        raise InvalidName(f"{what} must be a str, not {value!r} of type {type(value).__name__}")
    if not value.strip():
        raise InvalidName(f"{what} is empty: give it at least one visible character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{what} {value!r} has a lone surrogate: decode it with errors='replace' first") from None
    if size > bytes_max:
        raise InvalidName(f"{what} {value[:40]!r}... has {size} bytes; at most {bytes_max} are kept")
    if any(unicodedata.category(c) == "Cc" for c in value):
        raise InvalidName(f"{what} {value!r} has a control character: remove it")
    return value


def project_name(value: Any) -> str:
    """`workspace/name`, each part of letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit.

    No workspace is called as the store's own file is: its folder could not be made.
    """
    if not isinstance(value, str) or not _is_project(value):
        raise InvalidName(
            f"project {value!r} must be 'workspace/name', each of letters, digits, '.', '_', '-' (at most 64, a letter or "
            "digit first), for example 'vision/digits'"
        )
    if value.partition("/")[0].lower() == FORMAT_FILE.lower():
        raise InvalidName(
            f"project {value!r}: {FORMAT_FILE!r} is a file of each store: give the workspace another name"
        )
    return value


def _is_project(value: str) -> bool:
    workspace, slash, name = value.partition("/")
    return bool(slash) and all(
        part[:1].isalnum() and _is_word(part, "._-", _PROJECT_PART_MAX) for part in (workspace, name)
    )


def _is_word(text: str, others: str, characters_max: int) -> bool:
    """Whether there is something, and only ASCII letters, digits and `others`. (By hand: a trainer's import pays for no `re`.)"""
    return 0 < len(text) <= characters_max and text.isascii() and all(c.isalnum() or c in others for c in text)


def channel_name(value: Any) -> str:
    """Any text without control characters, at most CHANNEL_NAME_BYTES_MAX bytes."""
    return _text("channel name", value, CHANNEL_NAME_BYTES_MAX)


def tag(value: Any) -> str:
    """Neptune's rule: letters, digits and '-', at most TAG_CHARACTERS_MAX of them."""
    if not isinstance(value, str) or not _is_word(value, "-", TAG_CHARACTERS_MAX):
        raise InvalidName(
            f"tag {value!r} may have only letters, digits and '-', 1 to {TAG_CHARACTERS_MAX} of them: rename it, or keep it "
            "as a property"
        )
    return value


def stored_tag(value: Any) -> str:
    """The store's rule, wider than the call's: other vocabularies and imported experiments have tags of any text."""
    return _text("tag", value, 4 * TAG_CHARACTERS_MAX)


def key(value: Any, what: str = "property") -> str:
    """The name of a property or parameter."""
    return _text(f"{what} name", value, CHANNEL_NAME_BYTES_MAX)


def artifact_path(value: Any) -> str:
    """A relative path with '/' between its parts, NFC, that cannot leave the experiment's folder on any system."""
    text = unicodedata.normalize("NFC", _text("artifact path", value, PATH_BYTES_MAX))
    reason = _path_fault(text)
    if reason:
        raise InvalidName(f"artifact path {value!r} {reason}")
    return text


def _path_fault(text: str) -> str | None:
    if text.startswith("/") or (text[:1].isascii() and text[:1].isalpha() and text[1:2] == ":"):
        return "is absolute: give one relative to the experiment"
    if "\\" in text:
        return "has a backslash: separate folders with '/'"
    for part in text.split("/"):
        if part in ("", ".", ".."):
            return f"has the part {part!r}: remove it"
        if any(c in "#?" for c in part) or "%2e" in part.lower() or "%2f" in part.lower():
            return f"has '#', '?', '%2e' or '%2f' in {part!r}, which stores read as something else: rename it"
        if len(part.encode()) > PART_BYTES_MAX:
            return f"has a part of more than {PART_BYTES_MAX} bytes: shorten {part[:40]!r}..."
    return None


def path_part(name: str) -> str:
    """A part of a path that means `name` and nothing else: readable, safe on every system, and unique.

    >>> path_part("loss"), path_part("val/misread digits")
    ('loss', 'val%2Fmisread%20digits')
    """
    from hashlib import sha256
    from urllib.parse import quote

    quoted = quote(name, safe="")
    if quoted in (".", ".."):
        quoted = quoted.replace(".", "%2E")
    if len(quoted) <= 128:
        return quoted
    return f"{quoted[:95]}-{sha256(name.encode()).hexdigest()[:32]}"
