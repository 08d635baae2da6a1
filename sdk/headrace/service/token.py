"""The word that opens /metrics and /healthz where others than this machine can ask for them."""

from __future__ import annotations

import ipaddress
import os
import secrets
from typing import TYPE_CHECKING, Final

from headrace_proto.errors import ConfigError
from headrace_proto.home import FILE_MODE, FOLDER_MODE

if TYPE_CHECKING:
    from headrace.service.settings import ServiceSettings

FILE: Final = "metrics_token"
"""In the home: made by whichever part needs it first."""
BYTES: Final = 32
LENGTH_MIN: Final = 16
_FILE_MAX: Final = 4096
_OTHERS: Final = 0o077


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def metrics_token(settings: ServiceSettings) -> str | None:
    """What must be shown to read a part's figures; None if nothing need be. Raises `ConfigError`.

    It is in the file that was named, else, on any interface but the loopback, in one that is made in the home.
    """
    if settings.metrics_token_file is not None:
        return _read(os.fspath(settings.metrics_token_file), ours=False)
    if settings.metrics_open or is_loopback(settings.metrics_host):
        return None
    path = os.path.join(settings.home, FILE)
    try:
        os.makedirs(settings.home, mode=FOLDER_MODE, exist_ok=True)
        _make(path)
    except OSError as error:
        raise ConfigError(
            f"the token of metrics_host {settings.metrics_host!r} cannot be made at {path!r}: {error.strerror}. Name a file "
            "with metrics_token_file, or listen on 127.0.0.1"
        ) from error
    return _read(path, ours=True)


def _make(path: str) -> None:
    """Put a new token in place, whole, unless there is one: of two parts that start together one makes it."""
    if os.path.lexists(path):
        return
    temporary = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(BYTES) + "\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        os.unlink(temporary)


def _read(path: str, *, ours: bool) -> str:
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if ours else 0)
        with open(path, encoding="ascii", opener=lambda name, _: os.open(name, flags)) as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(_FILE_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token's file {path!r} cannot be read: {error}") from error
    if ours and mode & _OTHERS:
        raise ConfigError(f"the token's file {path!r} can be read by others: chmod 600 it, and delete it if they have")
    if len(token) < LENGTH_MIN or not token.isprintable() or " " in token:
        raise ConfigError(f"the token's file {path!r} must hold one word of at least {LENGTH_MIN} characters")
    return token
