"""Exports as neptune-exporter writes them: its schema, its folders, a row group for each batch, part 0 in place last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TIME: Any = pa.timestamp("ms", tz="UTC")
SCHEMA = pa.schema(
    [
        ("project_id", pa.string()),
        ("run_id", pa.string()),
        ("attribute_path", pa.string()),
        ("attribute_type", pa.string()),
        ("step", pa.decimal128(18, 6)),
        ("timestamp", TIME),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("string_value", pa.string()),
        ("bool_value", pa.bool_()),
        ("datetime_value", TIME),
        ("string_set_value", pa.list_(pa.string())),
        ("file_value", pa.struct([("path", pa.string())])),
        (
            "histogram_value",
            pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]),
        ),
    ]
)
BEGAN = datetime(2025, 3, 1, 12, tzinfo=UTC)
BEGAN_MS = int(BEGAN.timestamp() * 1000)
_COLUMNS = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
    "float_series": "float_value",
    "string_series": "string_value",
    "histogram_series": "histogram_value",
}


def single(path: str, kind: str, value: Any) -> dict[str, Any]:
    """A row of a single value. Of types that the exporter does not have, a row with no value at all."""
    if kind in ("file", "file_set", "artifact"):
        return {"attribute_path": path, "attribute_type": kind, "file_value": {"path": value}}
    return {"attribute_path": path, "attribute_type": kind, **({_COLUMNS[kind]: value} if kind in _COLUMNS else {})}


def point(path: str, kind: str, step: str | None, value: Any, at_ms: int | None = 0) -> dict[str, Any]:
    """A row of a series, `at_ms` after the beginning."""
    time = None if at_ms is None else datetime.fromtimestamp((BEGAN_MS + at_ms) / 1000, UTC)
    row: dict[str, Any] = {"attribute_path": path, "attribute_type": kind, "timestamp": time}
    row["step"] = None if step is None else Decimal(step)
    return {**row, **({"file_value": {"path": value}} if kind == "file_series" else {_COLUMNS[kind]: value})}


class Exporter:
    """Writes an export below a folder: `data` and `files`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.files = folder / "data", folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)

    def file(self, project: str, run: str, name: str, content: bytes) -> str:
        """A downloaded file; what `file_value.path` says of it."""
        path = self.files / project / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path.relative_to(self.files))

    def run(self, project: str, run: str, *batches: Sequence[dict[str, Any]] | pa.Table, parts: int = 1) -> list[Path]:
        """A run of these batches, each a row group, spread over some parts."""
        tables = [one if isinstance(one, pa.Table) else rows(project, run, one) for one in batches]
        folder = self.data / safe(project)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{safe(run)}_part_{number}.parquet" for number in range(parts)]
        for number, path in enumerate(paths):
            with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
                for table in tables[number::parts]:
                    writer.write_table(table)
        return paths


def safe(part: str) -> str:
    """A name as the exporter makes it safe for a file system."""
    shown = "".join(one if one.isalnum() or one in "_-" else "_" for one in part)
    return f"{shown}-{blake2b(part.encode(), digest_size=8).hexdigest()}"


def rows(project: str, run: str, given: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of a run."""
    return pa.Table.from_pylist([{"project_id": project, "run_id": run, **row} for row in given], schema=SCHEMA)


def metrics(project: str, run: str, channels: Sequence[str], steps: int, seed: int = 0) -> pa.Table:
    """Metrics of noise, channel by channel, with a step every tenth: quick to make."""
    count = len(channels) * steps
    micro = np.tile(np.arange(steps, dtype=np.int64) * 100_000, len(channels))
    words = np.zeros((count, 2), np.int64)
    words[:, 0] = micro
    decimals = pa.Array.from_buffers(pa.decimal128(18, 6), count, [None, pa.py_buffer(words.tobytes())])
    codes: Any = pa.array(np.repeat(np.arange(len(channels), dtype=np.int32), steps))
    names = pa.DictionaryArray.from_arrays(codes, pa.array(list(channels))).cast(pa.string())
    columns: dict[str, Any] = {
        "project_id": pa.repeat(project, count),
        "run_id": pa.repeat(run, count),
        "attribute_path": names,
        "attribute_type": pa.repeat("float_series", count),
        "step": decimals,
        "timestamp": pa.array(BEGAN_MS + np.tile(np.arange(steps, dtype=np.int64) * 50, len(channels))).cast(TIME),
        "float_value": pa.array(np.random.default_rng(seed).normal(size=count)),
    }
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)
