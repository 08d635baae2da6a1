"""Reads of what only the store has: series, hardware, files. They wait a little for what this process has just logged."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from headrace import waiting
from headrace.live.life import Life
from headrace_proto.errors import ExperimentNotFound, HeadraceError, MissingExtra, StaleRead
from headrace_proto.events import Role
from headrace_proto.journal import machine
from headrace_proto.warning import warn

_REFRESHES_MAX: Final = 3
"""Looks of one `refresh`, where other threads go on logging."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    import pandas as pd

    from headrace.reading import StoredExperiment
    from headrace.reading.progress import Progress
    from headrace.waiting import Receipt


class Reads(Life):
    """The calls that read back. Each waits at most HEADRACE_READ_S (5 s), and not at all when no agent serves this home."""

    _reader: StoredExperiment | None = None
    _read_by = 0

    def stored(self) -> StoredExperiment:
        """The experiment as the store has it now, after a short wait for what this process has logged.

        Warns with `StaleRead`, and the positions, when that is not all there yet.

        Raises:
            ExperimentNotFound: the store has nothing of it yet.
            MissingExtra: reading needs `pip install 'headrace[read]'`.
        """
        import headrace.reading  # noqa: F401 - first of all: without the extra there is nothing to wait for

        receipt, why = self._catch_up()
        if not receipt.reached:
            warn(f"read {receipt.stored} of {receipt.journaled} bytes logged by this process{why}", StaleRead)
        return self._stored_now()

    def _catch_up(self) -> tuple[Receipt, str]:
        """Wait, bounded, until the store has what this process has logged; how far that came, and why no further."""
        answered = self.origin.direct or waiting.agent_serves(self.origin.home)
        receipt = self.wait("stored", waiting.read_bound_s() if answered else 0.0)
        return receipt, "" if answered else ": no agent serves this home"

    def _stored_now(self) -> StoredExperiment:
        from headrace.reading import StoredExperiment
        from headrace_proto.store.backend import open_store

        if self._reader is None or self._read_by != os.getpid():  # a store's connections are their process's own
            store = open_store(self.origin.store, writable=False)
            self._reader = StoredExperiment(store, self.origin.project, self.internal_id)
            self._read_by = os.getpid()
        else:
            self._reader.refresh()
        return self._reader

    def refresh(self) -> None:
        """Take up what other processes and edits have said: name, description, parameters, properties, tags, channels' last values.

        Waits as every read does. Where the store does not have all that this process has said (or it goes on saying more, in
        another thread), nothing is taken up, with a `StaleRead` warning.
        """
        for _ in range(_REFRESHES_MAX):
            positions = self._writer.positions()
            settled = self._settled()
            if settled is None:
                break
            if positions != self._writer.positions():
                continue
            stamps, document = settled.commit.stamps.params, settled.record
            params = settled.params
            fixed = {name: value for name, value in params.items() if name in stamps and stamps[name].definition}
            self._known.name, self._known.description = document.name, document.description
            self._known.learn(
                fixed=fixed,
                added={name: value for name, value in params.items() if name not in fixed},
                properties=document.properties,
                tags=dict.fromkeys(document.tags),
                elsewhere=settled.get_logs(),
            )
            return
        warn("what others have said is not known here: the store does not have all that this process logged", StaleRead)

    @property
    def state(self) -> str:
        """`running`, `succeeded`, `failed` or `aborted`, as all its processes and the agents have said: the store's word.

        Looks at the store each time; once this process has ended it, after a wait as of every read. Where the store does not know
        yet that this process began (or has ended) it, or cannot be read, the answer is this process's own: `running`, or how it
        ended.
        """
        own: str = self._ended.outcome if self._ended else "running"
        try:
            import headrace.reading  # noqa: F401 - as in `stored`

            if self.ended:
                self._catch_up()
            document = self._stored_now().record
        except (HeadraceError, OSError, ImportError):  # nothing is stored, or nothing can be read
            return own
        here = document.sources.get(self.source)
        decides = self.origin.facts.role in (Role.OWNER, Role.RANK)
        heard = not decides or (here is not None and (here.state != "open" or not self.ended))
        return document.state if heard else own

    # -- Facts and series ------------------------------------------------------------------------------------------------

    def get_system_properties(self) -> dict[str, Any]:
        """What Headrace itself knows of the experiment; see `headrace.reading.StoredExperiment.get_system_properties`.

        While nothing of it is stored, what this process knows: then all sizes are 0.
        """
        try:
            return self.stored().get_system_properties()
        except ExperimentNotFound:
            return self._system_properties()

    def _system_properties(self) -> dict[str, Any]:
        known = self._known
        created = datetime.fromtimestamp(known.created_ns / 1e9, UTC) if known.created_ns is not None else None
        return {
            "id": self.id,
            "name": known.name,
            "created": created,
            "finished": None,
            "running_time": (datetime.now(UTC) - created).total_seconds() if created else None,
            "owner": known.author or machine.user_name(),
            **dict.fromkeys(("storage_size", "channels_size", "size"), 0),
            "tags": list(known.tags),
            "notes": known.description,
            "description": known.description,
            "hostname": known.hostname or machine.host_name(),
        }

    def get_numeric_channels_values(self, *channel_names: str) -> pd.DataFrame:
        """The points of numeric channels, of all processes: a column `x` of steps, and one for each channel."""
        return self.stored().get_numeric_channels_values(*channel_names)

    def get_channel(self, name: str, **how: Any) -> pd.DataFrame:
        """The points of one channel; see `headrace.reading.StoredExperiment.get_channel`."""
        return self.stored().get_channel(name, **how)

    def get_hardware_utilization(self) -> pd.DataFrame:
        """CPU, memory and GPU use of the nodes that ran the experiment."""
        return self.stored().get_hardware_utilization()

    # -- Files -----------------------------------------------------------------------------------------------------------

    def download_artifact(self, path: str, destination_dir: str | None = None, *, progress: Progress = None) -> str:
        """Download one artifact; see `headrace.reading.StoredExperiment.download_artifact`."""
        return self.stored().download_artifact(path, destination_dir, progress=progress)

    def download_artifacts(
        self, path: str | None = None, destination_dir: str | None = None, *, progress: Progress = None
    ) -> str:
        """Download artifacts as a ZIP archive; see `headrace.reading.StoredExperiment.download_artifacts`."""
        return self.stored().download_artifacts(path, destination_dir, progress=progress)

    def download_sources(
        self, path: str | None = None, destination_dir: str | None = None, *, progress: Progress = None
    ) -> str:
        """Download source files as a ZIP archive; see `headrace.reading.StoredExperiment.download_sources`."""
        return self.stored().download_sources(path, destination_dir, progress=progress)

    def _settled(self) -> StoredExperiment | None:
        try:
            receipt, _ = self._catch_up()
            return self._stored_now() if receipt.reached else None
        except (ExperimentNotFound, MissingExtra, OSError):  # no part for reading, or a store that does not answer
            return None
