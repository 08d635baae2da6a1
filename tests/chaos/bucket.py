"""A store over the network that fails: S3 as moto plays it, behind a proxy that answers wrongly, late, in half or not at all."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import boto3  # type: ignore[import-untyped]

from tests.faults.http_proxy import HttpFault, HttpProxy
from tests.fixtures_s3 import s3_server

BUCKET: Final = "soak"
SHARE: Final = 0.5
"""Of the requests, while the store fails: enough for each retry to meet it again, and for some to pass."""
METHODS: Final[dict[str, tuple[str, ...]]] = {"409": ("PUT",), "half": ("GET",)}
"""Where a fault makes sense at some methods only."""


@dataclass
class FlakyStore(HttpProxy):
    """A proxy that fails by time instead of by request: between `begin` and `end`."""

    dice: random.Random = field(default_factory=random.Random)
    _fault: HttpFault | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def begin(self, fault: HttpFault) -> None:
        """Fail from now on."""
        self._over.clear()
        self._fault = fault

    def end(self) -> None:
        """Serve again; whoever was kept waiting is cut off."""
        self._fault = None
        self._over.set()

    def fault_of(self, method: str, path: str) -> HttpFault | None:
        """Whether this request fails."""
        fault = self._fault
        meant = fault is not None and method in METHODS.get(fault, (method,))
        return fault if meant and self.dice.random() < SHARE else None

    def wait_for_release(self) -> None:
        """Hold an answer back for as long as the fault lasts."""
        self._over.wait()


class Bucket:
    """`with Bucket(seed) as bucket`: a new bucket, and the environment in which everybody finds it behind the proxy."""

    def __init__(self, seed: int) -> None:
        self._server = s3_server()
        self._seed = seed
        self.url: Final = f"s3://{BUCKET}/runs"

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
        direct = self._server.__enter__()
        self.proxy = FlakyStore(direct, dice=random.Random(self._seed))
        self.proxy.__enter__()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        self.environment = {**keys, "AWS_ENDPOINT_URL": self.proxy.url}
        self._client = boto3.client(
            "s3",
            endpoint_url=direct,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.end()
        self.proxy.__exit__(kind, error, trace)
        self._server.__exit__(None, None, None)

    def download(self, to: Path) -> None:
        """All objects as files, past the proxy: a bucket is judged as a folder is."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="runs/"):
            for entry in page.get("Contents", ()):
                path = to / str(entry["Key"]).removeprefix("runs/")
                path.parent.mkdir(parents=True, exist_ok=True)
                self._client.download_file(BUCKET, entry["Key"], str(path))
