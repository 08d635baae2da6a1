"""A stage for actors in threads of their own, of whom one acts at a time: each call of the store is a step, in an order given."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tests.proto.store_base.faults import Call, FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace_proto.store.backend import Store

STEPS_MAX = 50_000


class Actor:
    """A script over a store of its own, which stops before every call until it is told to go on."""

    def __init__(self, store: Store, script: Callable[[Store], None]) -> None:
        self.failure: BaseException | None = None
        self.done = False
        self.next: Call | None = None
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        self._store = FaultyStore(store, plan=self._wait)
        self._script = script
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._rests.acquire()

    def _run(self) -> None:
        try:
            self._script(self._store)
        except BaseException as error:
            self.failure = error
        finally:
            self.done = True
            self._rests.release()

    def _wait(self, call: Call) -> None:
        self.next = call
        self._rests.release()
        self._go.acquire()

    def step(self) -> None:
        """Let it make the call before which it waits, and go on to the next."""
        self._go.release()
        self._rests.acquire()


def play(actors: list[Actor], choices: Iterable[int]) -> None:
    """Let the actors step in the order chosen, then in turn, to their ends. Raises what any of them has died of."""
    for choice in choices:
        live = [actor for actor in actors if not actor.done]
        if live:
            live[choice % len(live)].step()
    for number in range(STEPS_MAX):
        live = [actor for actor in actors if not actor.done]
        if not live:
            break
        live[number % len(live)].step()
    for actor in actors:
        assert actor.done, "it never ends"
        if actor.failure:
            raise actor.failure
