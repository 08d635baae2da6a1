"""The files of TLS: whom we believe, and who we are. One context is made from them for each handshake.

Certificates live for days where a machine renews them, connections for months: what is read at the start would be old at the next
reconnection. So the files are read anew each time, and a renewed certificate needs no restart.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

from headrace_proto.errors import ConfigError


class Tls(NamedTuple):
    """PEM files. Without `ca` the system's authorities are believed; `cert` and `key` answer a broker that asks who we are."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @property
    def named(self) -> bool:
        """Whether any file was named: then nothing but TLS will do."""
        return any(self)

    def context(self) -> ssl.SSLContext:
        """A client's context, TLS 1.2 at least, that verifies certificate and host name. Raises `ConfigError`."""
        if (self.cert is None) != (self.key is None):
            raise ConfigError("tls_cert and tls_key belong together: name both files, or neither")
        for setting, path in (("tls_ca", self.ca), ("tls_cert", self.cert), ("tls_key", self.key)):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(f"{setting} is {path!r}, which does not exist or may not be read: correct it")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"tls_ca is {self.ca!r}, which holds no certificate in PEM: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(
                    f"tls_cert {self.cert!r} and tls_key {self.key!r} are no certificate with its unencrypted key: {error}"
                ) from error
        return context


def _no_password() -> str:
    raise ConfigError("the file of tls_key is encrypted: give it without a password, readable by this user only")
