"""`headrace deploy`: what a cluster needs before its first agent. So far: the broker's configuration and its keys."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final

import typer

from headrace.command.console import out, plain
from headrace.service import broker_config, rights
from headrace.service.broker_config import ACCOUNTS_FILE, SERVER_FILE, Keys
from headrace_proto.errors import ConfigError, MissingExtra
from headrace_proto.home import FILE_MODE, FOLDER_MODE
from headrace_proto.subjects import PART

PUBLIC_MODE: Final = 0o644
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

deploy = typer.Typer(no_args_is_help=True, help="Write what a cluster needs before its first agent.")


@deploy.callback()
def _deploy() -> None:
    """A sub-command has to be named, also while there is one."""


@deploy.command("nats-config")
def nats_config(
    folder: Annotated[Path, typer.Option("--out", help="The folder to write to. Nothing there is ever replaced.")],
    site: Annotated[list[str], typer.Option(help="A site, whose agents share a key; once for each.")],
    server: Annotated[
        list[str] | None, typer.Option(help="A server's host name; once for each of a cluster.", show_default=False)
    ] = None,
    tls: Annotated[bool, typer.Option(help="With TLS, of clients too. A cluster is never without.")] = True,
) -> None:
    """Write a nats-server's configuration, and a key for each role, with the least rights that each needs."""
    hosts = server or []
    _check(site, hosts, tls)
    texts = {SERVER_FILE: broker_config.server(hosts, tls=tls)}
    seeds = {
        "collector": "collector.nk",
        "operator": "operator.nk",
        **{f"agent {name}": f"agent-{name}.nk" for name in site},
    }
    keys = {role: _key(folder / file) for role, file in seeds.items()}
    sites = {name: keys[f"agent {name}"].public for name in site}
    texts[ACCOUNTS_FILE] = broker_config.accounts(Keys(keys["collector"].public, keys["operator"].public, sites))
    _refuse_to_replace(folder, texts)
    os.makedirs(folder, mode=FOLDER_MODE, exist_ok=True)
    for role, file in seeds.items():
        if keys[role].new:
            _write(folder / file, keys[role].seed, FILE_MODE)
    for file, text in texts.items():
        if not (folder / file).exists():
            _write(folder / file, text.encode(), PUBLIC_MODE)
    _tell(folder, seeds, hosts, tls)


class _Key:
    """An nkey: the seed is the client's secret, the public half stands in the server's configuration."""

    def __init__(self, seed: bytes, *, new: bool) -> None:
        import nkeys

        self.seed = seed
        self.new = new
        self.public = nkeys.from_seed(seed).public_key.decode()


def _key(path: Path) -> _Key:
    """The key of a file that is there, or a new one: a site can be added without new keys for the others."""
    try:
        import nkeys
    except ImportError:
        raise MissingExtra.named("`headrace deploy nats-config`", "credentials") from None
    if not path.exists():
        return _Key(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER), new=True)
    try:
        return _Key(path.read_bytes().strip(), new=False)
    except (OSError, nkeys.NkeysError, ValueError) as error:
        raise ConfigError(
            f"{str(path)!r} is there and holds no nkey's seed ({type(error).__name__}): move it away"
        ) from None


def _check(sites: list[str], hosts: list[str], tls: bool) -> None:
    for name in sites:
        if not re.fullmatch(PART, name):
            raise ConfigError(f"--site {name!r} must be 1 to 64 letters, digits, '_' or '-': it is part of subjects")
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ConfigError(f"--server {host!r} is no host name")
    if len(set(sites)) < len(sites) or len(set(hosts)) < len(hosts):
        raise ConfigError("a --site or --server is named twice")
    if len(hosts) > 1 and not tls:
        raise ConfigError(
            "a cluster without TLS would let anyone who reaches it be one of its servers: leave out --no-tls"
        )


def _refuse_to_replace(folder: Path, texts: dict[str, str]) -> None:
    for file, text in texts.items():
        path = folder / file
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{str(path)!r} is there already, and differs: move it away to have it written anew (keys that are there stay)"
            )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there. One that somebody has just made is never replaced, nor a link followed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)


def _tell(folder: Path, seeds: dict[str, str], hosts: list[str], tls: bool) -> None:
    console = out()

    def line(text: str) -> None:
        console.print(plain(text), soft_wrap=True)

    scheme, names = "tls" if tls else "nats", hosts or ["host"]
    line(
        f"{folder / SERVER_FILE}, {folder / ACCOUNTS_FILE}: for each nats-server, side by side; NATS_NAME in its environment"
    )
    if tls:
        line("/etc/nats/server.pem, server.key, ca.pem: there, too; the certificate's names are those of the URLs")
    for role, file in seeds.items():
        part = "headrace collector" if role == "collector" else "headrace status, doctor" if role == "operator" else ""
        part = part or f"headrace agent --site {role.partition(' ')[2]}"
        line(f"{folder / file}: secret; to where `{part}` runs, 0600, as HEADRACE_CREDENTIALS")
    line(f"HEADRACE_NATS={','.join(f'{scheme}://{name}:4222' for name in names)}")
    if tls:
        line(
            "HEADRACE_TLS_CA, HEADRACE_TLS_CERT, HEADRACE_TLS_KEY: the authority of the servers, and each client's certificate"
        )
    line(f"The streams are in the account {rights.ACCOUNT}; the first collector makes them")
