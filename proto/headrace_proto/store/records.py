"""The ground of everything that is written as JSON: immutable records, of one format, that refuse fields they do not know.

`format` is looked at before anything else: a document of another format raises `FormatUnknown` and is left as it is. This
module is apart from `documents` because a command that only lists would wait for twenty models that it never uses.
"""

from __future__ import annotations

from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from headrace_proto.errors import Corrupt, FormatUnknown

DOCUMENT_FORMAT: Final = 1

State = Literal["running", "succeeded", "failed", "aborted"]

FAULT_CHARACTERS_MAX: Final = 2_000
"""Of what pydantic says about a damaged document: it says something about every item."""


class Record(BaseModel):
    """The ground of all documents: immutable, so that a commit shares with its predecessor what did not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Record = TypeVar("_Record", bound=Record)


def parse(kind: type[_Record], data: bytes, what: str) -> _Record:
    """The document in `data`. Raises `FormatUnknown` on another format, `Corrupt` on anything that is no such document."""
    try:
        fields = from_json(data)
        version = fields["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"{what} is no document of Headrace: {error}") from error
    if version != DOCUMENT_FORMAT:
        raise FormatUnknown(f"{what} has format {version!r}; this release knows {DOCUMENT_FORMAT}: use a newer one")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise Corrupt(f"{what} is damaged: {str(error)[:FAULT_CHARACTERS_MAX]}") from error
