"""Changes of a stored experiment: the calls of a live one, each of them a commit instead of an event in a journal.

No agent and no broker: a call is turned into the same event, applied by the same function to the newest document, and committed
to the store, again when another writer was first. When it has returned, it is stored. `headrace.buffered()` gathers the changes
of a block into one commit an experiment.
"""

from __future__ import annotations

from headrace.editing.facts import FactEdits
from headrace.editing.files import FileEdits
from headrace.editing.life import LifeEdits
from headrace.editing.series import SeriesEdits

__all__ = ["Edits"]


class Edits(SeriesEdits, FactEdits, FileEdits, LifeEdits):
    """All calls that change a stored experiment."""
