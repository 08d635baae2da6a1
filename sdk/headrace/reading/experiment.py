"""An experiment as it lies in a store."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headrace.editing import Edits
from headrace.reading import downloads, hardware, series
from headrace.reading.criteria import running_time
from headrace.reading.silence import silent_ones
from headrace_proto.errors import ArtifactNotFound, ChannelNotFound
from headrace_proto.names import SYSTEM_CHANNELS
from headrace_proto.store.catalog import CAPTURED_CHANNELS, row_of
from headrace_proto.store.commits import PART_KINDS
from headrace_proto.store.documents import file_place
from headrace_proto.store.plain import unplain

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from headrace.reading.progress import Progress
    from headrace.reading.series import Duplicates, Order
    from headrace_proto.store.backend import Store
    from headrace_proto.store.catalog import CatalogRow
    from headrace_proto.store.commits import Commit, PartKind
    from headrace_proto.store.documents import ExperimentDocument, FileGroup, FileRecord


STATE_FRESH_S: Final = 1.0
"""What was *running* is believed to be so for this long: a commit comes at most twice a second."""


class Channel(NamedTuple):
    """A channel and its last point, which is `x` (step) and `y` (value) as in Neptune."""

    name: str
    type: PartKind
    points: int
    x: float | None
    y: float | str | None
    """A number; the first characters of a text; an image's file."""
    time: datetime | None


class StoredExperiment(Edits):
    """One experiment of a store: for reading, and for changing what is stored (`headrace.editing`: each call is a commit).

    Attributes (`params`, `metrics`, ...) tell what was last seen: by the list that this came from, by the last method called, or by
    `refresh()`. Methods look at the newest commit first, and so does `state` of one that was running.
    """

    def __init__(
        self, store: Store, project: str, internal_id: str, *, row: CatalogRow | Callable[[], CatalogRow] | None = None
    ) -> None:
        super().__init__(store, project, internal_id)
        self._row = row  # in a long list they are made when they are asked for
        self._seen_s = time.monotonic()
        if row is None:
            self.refresh()

    def __repr__(self) -> str:
        return f"Experiment({self.id or self.internal_id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StoredExperiment):
            return NotImplemented
        return (self.store.url, self.project, self.internal_id) == (other.store.url, other.project, other.internal_id)

    def __hash__(self) -> int:
        return hash((self.store.url, self.project, self.internal_id))

    def __getstate__(self) -> dict[str, Any]:
        if callable(self._row):  # a row of a list goes alone: the list stays with whom it was given to
            self._row = self._row()
        return self.__dict__

    def refresh(self) -> None:
        """Look at the newest commit. Raises `ExperimentNotFound` if there is none."""
        self._newest()

    # -- What was last seen -------------------------------------------------------------------------------------------

    @property
    def row(self) -> CatalogRow:
        """What lists show of it."""
        if callable(self._row):
            self._row = self._row()
        if self._row is None or (self._snapshot.known is not None and self._snapshot.known.number > self._row.commit):
            self._row = row_of(self._snapshot.commit)
        return self._row

    @property
    def commit(self) -> Commit:
        """The commit last seen; the newest, if none was looked at yet."""
        return self._snapshot.commit

    @property
    def record(self) -> ExperimentDocument:
        """Its document, with its sources, its channels and what is missing."""
        return self._snapshot.commit.document

    @property
    def url(self) -> str:
        """Where its files lie."""
        return self.store.url_of(self._snapshot.folder)

    @property
    def id(self) -> str:
        """The short id, such as `DIG-7`."""
        return self.row.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.row.name

    @property
    def state(self) -> str:
        """`running`, `succeeded`, `failed` or `aborted`.

        One that was *running* a second ago is looked at again, so that `while experiment.state == "running"` comes to its end.
        """
        # seen by another machine's clock, and unpickled here, it may lie ahead
        fresh = 0 <= time.monotonic() - self._seen_s <= STATE_FRESH_S
        if self.row.state == "running" and not fresh:
            self.refresh()
        return self.row.state

    @property
    def responding(self) -> bool:
        """False when it is *running* and nothing was heard of its node for a minute. Looks at the store each time."""
        return not silent_ones([self.row], self.store)

    @property
    def owner(self) -> str:
        """Who made it."""
        return self.row.owner

    @property
    def description(self) -> str:
        """Its description."""
        return self.row.description

    @property
    def hostname(self) -> str:
        """Where it runs."""
        return self.row.hostname

    @property
    def created_at(self) -> datetime | None:
        """When it was made."""
        return self.row.created_at

    @property
    def finished_at(self) -> datetime | None:
        """When it ended; None while it runs."""
        return self.row.finished_at

    @property
    def tags(self) -> list[str]:
        """Its tags, sorted."""
        return list(self.row.tags)

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters."""
        return {name: unplain(value) for name, value in self.row.params.items()}

    @property
    def properties(self) -> dict[str, str]:
        """Its properties."""
        return dict(self.row.properties)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each numeric channel."""
        return dict(self.row.metrics)

    @property
    def channels(self) -> list[Channel]:
        """All channels, hardware and captured output too, in the order of their names."""
        document = self._snapshot.commit.document
        found = []
        for kind in PART_KINDS:
            for name, channel in getattr(document.channels, kind).items():
                last = channel.last
                shown = (last.step, unplain(last.value), last.time) if last else (None, None, None)
                found.append(Channel(name, kind, channel.count, *shown))
        return sorted(found, key=lambda channel: (channel.name, PART_KINDS.index(channel.type)))

    # -- Facts --------------------------------------------------------------------------------------------------------

    def get_system_properties(self) -> dict[str, Any]:
        """What Headrace itself knows of the experiment, under Neptune's names. Times of running in seconds, sizes in bytes."""
        commit = self._newest()
        document, row = commit.document, self.row
        running = running_time(document.created_at, document.finished_at, datetime.now(UTC))
        channels_size = sum(part.bytes for kind in PART_KINDS for part in commit.parts.of(kind))
        return {
            "id": document.id,
            "name": document.name,
            "created": document.created_at,
            "finished": document.finished_at,
            "running_time": None if running is None else running.total_seconds(),
            "owner": document.owner,
            "storage_size": row.size - channels_size,
            "channels_size": channels_size,
            "size": row.size,
            "tags": list(document.tags),
            "notes": document.description,
            "description": document.description,
            "hostname": document.hostname,
        }

    def get_parameters(self) -> dict[str, Any]:
        """The parameters, as they were given."""
        self._newest()
        return self.params

    def get_properties(self) -> dict[str, str]:
        """The properties."""
        self._newest()
        return self.properties

    def get_tags(self) -> list[str]:
        """The tags."""
        self._newest()
        return self.tags

    def get_logs(self) -> dict[str, float | str | None]:
        """The channels that the program logged, with their last values: a number, the beginning of a text, None for images.

        `channels` tells more of each, and has captured output and hardware too.
        """
        self._newest()
        logs: dict[str, float | str | None] = {}
        for channel in self.channels:
            if not channel.name.startswith(SYSTEM_CHANNELS) and channel.name not in CAPTURED_CHANNELS:
                value = None if channel.type == "image" else channel.y
                logs.setdefault(channel.name, value)  # of one name in several types, the numeric one comes first
        return logs

    get_channels = get_logs

    # -- Series -------------------------------------------------------------------------------------------------------

    def get_numeric_channels_values(self, *channel_names: str) -> pd.DataFrame:
        """Numeric channels side by side: `x` (the step), then a column of float64 a channel, in the order asked for.

        One row a step that any of them has, NaN where a channel has none; of several points of one step the last counts.
        Raises `ChannelNotFound`.
        """
        names = list(dict.fromkeys(channel_names))

        def read(commit: Commit) -> pd.DataFrame:
            for name in names:
                self._kind(commit, name, "numeric")
            return series.merged(series.points(self._snapshot, commit, "numeric", names))

        return self._snapshot.read(read)

    def get_channel(
        self,
        name: str,
        order: Order = "step",
        duplicates: Duplicates = "last",
        type: PartKind | None = None,
    ) -> pd.DataFrame:
        """One channel's points: `step`, `time` (UTC), `value`.

        A text's value is the text (NaN while a long one is on its way). An image's is the address of its file, beside `name`,
        `description` and `size`. Of several points of one step `duplicates` keeps the "last", the "first" or "all". `type`
        ("numeric", "text", "image") is needed only where one name has several. Raises `ChannelNotFound`.
        """
        series.checked(order, duplicates)

        def read(commit: Commit) -> pd.DataFrame:
            kind = self._kind(commit, name, type)
            table = series.points(self._snapshot, commit, kind, [name], duplicates)[name]
            return series.frame(self._snapshot, kind, table, order)

        return self._snapshot.read(read)

    def read_image(self, name: str, step: float | None = None) -> bytes:
        """The file of a channel's image: of the step given, or the last.

        Raises `ChannelNotFound`, and `ArtifactNotFound` while the image's bytes are on their way.
        """

        def read(commit: Commit) -> str:
            self._kind(commit, name, "image")
            table = series.points(self._snapshot, commit, "image", [name])[name]
            files: list[Any] = table["file"].to_pylist()
            at: list[Any] = table["step"].to_pylist()
            found = [file for file, there in zip(files, at, strict=True) if step is None or there == step]
            if not found:
                raise ChannelNotFound(f"the channel {name!r} of {self.id!r} has no image at step {step!r}")
            return self._snapshot.path(found[-1])

        path = self._snapshot.read(read)
        try:
            return self.store.read(path)
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"the bytes of {self.store.url_of(path)} are not in the store (yet)") from error

    def get_hardware_utilization(self) -> pd.DataFrame:
        """The node's hardware over the experiment's time, with Neptune's columns.

        `x_...` is in milliseconds from the experiment's start; `y_ram` and `y_gpu_mem_0` in GB, `y_cpu` and `y_gpu_util_0` in
        percent. Shorter columns end in NaN; without any reading the DataFrame is empty.
        """

        def read(commit: Commit) -> pd.DataFrame:
            names = list(hardware.shown(commit.document.channels.numeric))
            tables = series.points(self._snapshot, commit, "numeric", names, "all")
            return hardware.utilization(tables, commit.document.created_at)

        return self._snapshot.read(read)

    def part_urls(self, kind: PartKind = "numeric") -> list[str]:
        """The addresses of the Parquet files that hold the points now, for DuckDB and the like: a glob may find older ones."""
        return [self.store.url_of(self._snapshot.path(part.path)) for part in self._newest().parts.of(kind)]

    # -- Files --------------------------------------------------------------------------------------------------------

    @property
    def artifacts(self) -> dict[str, FileRecord]:
        """All artifacts by path, as of the newest commit."""
        return self._snapshot.read(self._snapshot.artifacts)

    @property
    def source_files(self) -> dict[str, FileRecord]:
        """All source files of the program by path, as of the newest commit."""
        return self._snapshot.read(self._snapshot.source_files)

    def artifacts_below(self, path: str) -> list[str]:
        """The artifact at `path`, or all in that folder. Raises `ArtifactNotFound` if there is none."""
        return list(downloads.below(self.artifacts, path))

    def download_artifact(self, path: str, destination_dir: str | None = None, *, progress: Progress = None) -> str:
        """Download one artifact into `destination_dir` (the working folder), under its own name; returns where it lies.

        The folder is made if need be. `progress` is told (bytes done, bytes in all); True shows it, and None does so on a terminal
        when there is much to download. Raises `ArtifactNotFound`, and `NotAFolder` when the destination is a file.
        """

        def read(commit: Commit) -> str:
            files = self._snapshot.artifacts(commit)
            if path not in files:
                raise downloads.absent(files, path)
            source = self._places("artifacts", files)[path]
            return downloads.download_file(self.store, source, path, files[path], destination_dir, progress)

        return self._snapshot.read(read)

    def download_artifacts(
        self, path: str | None = None, destination_dir: str | None = None, *, progress: Progress = None
    ) -> str:
        """Download a folder of artifacts, one of them, or all, as a ZIP archive; returns where it lies.

        It is called as the folder or the file is, `plots.zip`; of all, `DIG-7-artifacts.zip`. Otherwise as `download_artifact`.
        """
        name = path.strip("/").rpartition("/")[2] if path else f"{self.id or self.internal_id}-artifacts"

        def read(commit: Commit) -> str:
            files = downloads.below(self._snapshot.artifacts(commit), path)
            return downloads.download_archive(
                self.store, files, self._places("artifacts", files), name, destination_dir, progress
            )

        return self._snapshot.read(read)

    def download_sources(
        self, path: str | None = None, destination_dir: str | None = None, *, progress: Progress = None
    ) -> str:
        """Download a folder of the program's source files, one of them, or all, likewise; of all, `DIG-7-sources.zip`."""
        name = path.strip("/").rpartition("/")[2] if path else f"{self.id or self.internal_id}-sources"

        def read(commit: Commit) -> str:
            files = downloads.below(self._snapshot.source_files(commit), path)
            return downloads.download_archive(
                self.store, files, self._places("source_files", files), name, destination_dir, progress
            )

        return self._snapshot.read(read)

    # -- Inside -------------------------------------------------------------------------------------------------------

    def _newest(self) -> Commit:
        self._seen_s = time.monotonic()
        return self._snapshot.newest()

    def _places(self, group: FileGroup, files: dict[str, FileRecord]) -> dict[str, str]:
        """Where files lie, by path."""
        return {path: self._snapshot.path(file_place(group, path, record)) for path, record in files.items()}

    def _kind(self, commit: Commit, name: str, wanted: PartKind | None) -> PartKind:
        """The type of the channel `name`, or `ChannelNotFound` with what is there."""
        kinds = PART_KINDS if wanted is None else (wanted,)
        for kind in kinds:
            if name in series.channels_of(commit, kind):
                return kind
        there = sorted({known for kind in kinds for known in series.channels_of(commit, kind)})
        near = get_close_matches(name, there, cutoff=0.5) or there[:10]
        what = f"{wanted} channel" if wanted else "channel"
        raise ChannelNotFound(f"experiment {self.id!r} has no {what} {name!r}; it has {', '.join(near) or 'none'}")
