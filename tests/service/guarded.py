"""A real nats-server with the accounts that we write, over TLS in both directions, and a way in for each role."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nkeys
from nats.aio.client import Client

from headrace.service import rights
from headrace.service.broker import connect
from headrace.service.broker_config import Keys, accounts
from headrace.service.nats_server import NatsServer
from tests.service.authority import Authority

SITES = ("hall-3", "hall-4")
NAMES = {
    "collector": rights.COLLECTOR_NAME,
    "operator": rights.OPERATOR_NAME,
    **{site: rights.agent_name(site) for site in SITES},
}
"""Role -> what its client is called. A site's name stands for its agents."""


class Guarded:
    """The server, and a key and a certificate for each role."""

    def __init__(self, start: Callable[..., NatsServer], folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        self._folder = folder
        public = {role: self._make_key(role) for role in NAMES}
        sites = {site: public[site] for site in SITES}
        config = accounts(Keys(public["collector"], public["operator"], sites))
        self.server = start("guarded", extra=f"{self.authority.server(verify=True)}\n{config}")
        self.url = self.server.url.replace("nats://", "tls://")
        self.heard: dict[str, list[str]] = {role: [] for role in NAMES}
        self._clients: list[Client] = []

    def _make_key(self, role: str) -> str:
        pair = nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        self.key(role).write_bytes(pair.seed)
        return str(pair.public_key.decode())

    def key(self, role: str) -> Path:
        """The file with a role's seed."""
        return self._folder / f"{role}.nk"

    def environment(self, role: str) -> dict[str, str]:
        """What a process of this role is told."""
        tls = self.authority.issue(role)
        return {
            **os.environ,
            "HEADRACE_NATS": self.url,
            "HEADRACE_CREDENTIALS": str(self.key(role)),
            "HEADRACE_TLS_CA": str(tls.ca),
            "HEADRACE_TLS_CERT": str(tls.cert),
            "HEADRACE_TLS_KEY": str(tls.key),
        }

    async def client(self, role: str, name: str | None = None) -> Client:
        """A client with the role's key; closed by `close`."""
        client = await connect(
            self.url,
            name=name or NAMES[role],
            credentials=str(self.key(role)),
            tls=self.authority.issue(role),
            on_event=self.heard[role].append,
        )
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
