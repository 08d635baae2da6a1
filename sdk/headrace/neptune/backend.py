"""What the old client's backends are here: names that say where projects are found. None of them talks to a server."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from headrace.neptune.exceptions import InvalidNeptuneBackend
from headrace.session import Session

BACKEND_VARIABLE: Final = "NEPTUNE_BACKEND"
_logger = logging.getLogger("neptune.backend")
_told: set[str] = set()


class Backend:
    """Experiments are logged to HEADRACE_HOME and read from HEADRACE_STORE, or as a `headrace.Session` says."""

    def __init__(self, api_token: str | None = None, proxies: Any = None, *, session: Session | None = None) -> None:
        for name, given in (("api_token", api_token), ("proxies", proxies)):
            if given is not None:
                _tell(name, f"{name} is not needed and was not kept: nothing is sent to Neptune's servers")
        self.session: Final = session or Session()


class HostedNeptuneBackend(Backend):
    """What the old client used unless it was told otherwise."""


class OfflineBackend(Backend):
    """The old client's way of storing nothing. Here experiments are stored all the same: nobody has to be online for it."""

    def __init__(self) -> None:
        super().__init__()


def backend_of(given: Any, api_token: str | None = None, proxies: Any = None) -> Backend:
    """The backend that is meant. Raises `InvalidNeptuneBackend` when NEPTUNE_BACKEND names another than 'offline'."""
    if isinstance(given, Backend):
        return given
    if given is not None:
        _tell("backend", f"backend={given!r:.80} is not asked for anything: experiments go to HEADRACE_HOME")
    elif os.environ.get(BACKEND_VARIABLE, "offline") != "offline":
        raise InvalidNeptuneBackend(os.environ[BACKEND_VARIABLE])
    return HostedNeptuneBackend(api_token, proxies)


def _tell(what: str, message: str) -> None:
    """Once in a process."""
    if what not in _told:
        _told.add(what)
        _logger.warning(message)
