"""Certificates for a test: an authority that is made for it, and what it issues, as PEM files."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import trustme

from headrace.service.tls import Tls

HOST = "127.0.0.1"
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class Authority:
    """Issues to servers and clients. Files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, host: str = HOST, *, expired: bool = False) -> Tls:
        """A certificate and its key, with this authority beside them."""
        leaf = self._ca.issue_cert(host, not_before=LONG_AGO, not_after=LONG_AGO + dt.timedelta(1) if expired else None)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return Tls(self.ca, str(cert), str(key))

    def server(self, name: str = "server", host: str = HOST, *, expired: bool = False, verify: bool = False) -> str:
        """The block of a nats-server's configuration; with `verify` it wants clients' certificates of this authority."""
        _, cert, key = self.issue(name, host, expired=expired)
        return f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{self.ca}", verify: {str(verify).lower()} }}'
