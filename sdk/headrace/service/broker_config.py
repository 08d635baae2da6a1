"""A nats-server's configuration for Headrace: the server, and the accounts of collectors, operators and sites.

`headrace deploy nats-config` writes it; deploy/nats is the same with names for keys. Rights are in `rights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from headrace.service import rights
from headrace.service.rights import Rights

ACCOUNTS_FILE: Final = "accounts.conf"
SERVER_FILE: Final = "nats-server.conf"

_SERVER: Final = """\
# One of Headrace's nats-servers. NATS_NAME, in the environment, differs on each. Try it: nats-server -t -c {file}

server_name: $NATS_NAME
listen: "0.0.0.0:4222"
http: "127.0.0.1:8222"            # monitoring, for this node only

jetstream {{
  store_dir: "/var/lib/nats"
  max_file_store: 100GB           # below the disk's real size: a broker whose disk is full does not answer at all
  sync_interval: always           # the default lets two minutes pass; the journals would heal that, at the price of a re-send
}}
"""
_TLS: Final = """
# Agents and collectors use tls://host:4222, with HEADRACE_TLS_CA and, because of `verify`, HEADRACE_TLS_CERT and HEADRACE_TLS_KEY.
tls {
  cert_file: "/etc/nats/server.pem" # its names are those that the URLs use
  key_file: "/etc/nats/server.key"
  ca_file: "/etc/nats/ca.pem"
  verify: true                    # clients show a certificate of this authority, too
}
"""
_CLUSTER: Final = """
cluster {{
  name: headrace
  listen: "0.0.0.0:6222"
  routes: [
{routes}
  ]
  # whoever can open a route is one of the servers and may do anything: never without a certificate
  tls {{ cert_file: "/etc/nats/server.pem", key_file: "/etc/nats/server.key", ca_file: "/etc/nats/ca.pem", verify: true }}
}}
"""
_ACCOUNTS: Final = """\
# Who may do what: one account for the streams, and one for each site, which sees its own subjects and nothing else. Written by
# `headrace deploy nats-config`. Each key is public; the seed to it is in a client's file (--credentials).

"""


class Keys(NamedTuple):
    """Public keys of nkeys. A key may also be `$NAME`: the server then takes it from its environment."""

    collector: str
    operator: str
    sites: Mapping[str, str]  # site -> its agents'


def server(hosts: Sequence[str] = (), *, tls: bool = True) -> str:
    """`nats-server.conf`, of one server, or of each of several. Its accounts are in a file beside it."""
    routes = "\n".join(f'    "nats://{host}:6222"' for host in hosts) if len(hosts) > 1 else ""
    parts = [_SERVER.format(file=SERVER_FILE), _TLS if tls else "", _CLUSTER.format(routes=routes) if routes else ""]
    return "".join([*parts, f"\ninclude {ACCOUNTS_FILE}\n"])


def accounts(keys: Keys) -> str:
    """`accounts.conf`."""
    exports = [(site, seen) for site in keys.sites for seen in rights.imports(site)]
    lines = [
        "accounts {",
        f"  {rights.ACCOUNT} {{",
        "    jetstream: enabled",
        "    users: [",
        *_user(keys.collector, rights.collector()),
        *_user(keys.operator, rights.operator()),
        "    ]",
        "    exports: [",
        *(
            f'      {{{kind}: "{subject}", accounts: ["{rights.site_account(site)}"]}}'
            for site, (kind, subject) in exports
        ),
        "    ]",
        "  }",
    ]
    for site, key in keys.sites.items():
        seen = rights.imports(site)
        lines += [
            f'  "{rights.site_account(site)}" {{',
            "    users: [",
            *_user(key, rights.agent(site)),
            "    ]",
            "    imports: [",
            *(f'      {{{kind}: {{account: {rights.ACCOUNT}, subject: "{subject}"}}}}' for kind, subject in seen),
            "    ]",
            "  }",
        ]
    return _ACCOUNTS + "\n".join([*lines, "}", ""])


def _user(key: str, may: Rights) -> list[str]:
    listed: list[str] = []
    for verb, subjects in may._asdict().items():
        listed += [f"          {verb}: [", *(f'            "{subject}"' for subject in subjects), "          ]"]
    return ["      {", f"        nkey: {key}", "        permissions: {", *listed, "        }", "      }"]
