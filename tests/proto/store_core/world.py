"""A small world of collectors that share one store whose calls fail: what they leave behind must not depend on what failed.

Everything is decided by the seed: who acts next, what it does, which of its calls fails and how, who acts while an answer is slow.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from headrace.reading.series import points
from headrace.reading.snapshot import Snapshot
from headrace_proto.errors import CommitConflict, ExperimentNotFound
from headrace_proto.store import layout
from headrace_proto.store.catalog import read_rows
from headrace_proto.store.chain import Batch, Chain, FileDone
from headrace_proto.store.documents import file_place
from headrace_proto.store.sweeping import sweep
from headrace_proto.store.uploads import PiecesGone, Upload
from tests.proto.store_base.faults import FaultyStore, History, seeded
from tests.proto.store_core.script import NOW_NS, PROJECT, SECOND_NS, Source, chain_of, points_of, spooled
from tests.stores import head_of, list_newest

if TYPE_CHECKING:
    from headrace_proto.store.backend import Store

BATCHES = 6
FILE = bytes(range(256)) * 12
DIGEST = sha256(FILE).hexdigest()
EXPERIMENTS = ("e" * 32, "f" * 32)


def told(experiment: str) -> dict[str, list[Batch]]:
    """What the sources of an experiment have to say, batch by batch."""
    owner, rank = Source(f"{experiment[0]}a" * 16), Source(f"{experiment[0]}b" * 16, "rank", rank=1)
    owner.create("mlp", params={"lr": 0.1}, tags=["x"])
    spoken: dict[str, list[Batch]] = {owner.id: [], rank.id: []}
    for number in range(BATCHES):
        for step in range(3):
            owner.point("loss", number * 3 + step, 1.0 / (1 + step))
            rank.row({"a": step, "b": float("nan")}, number * 3 + step)
        owner.point("auto", None, number)
        rank.text("log", number, f"line {number}")
        owner.image("pictures", number, bytes([number]) * 40)
        owner.artifact(f"notes/{number}.txt", b"%d" % number)
        if number == 1:
            owner.artifact("model.bin", spooled(0, len(FILE), DIGEST))
        if number == BATCHES - 1:
            owner.close()
            rank.close()
        spoken[owner.id].append(owner.batch())
        spoken[rank.id].append(rank.batch())
    return spoken


TOLD = {experiment: told(experiment) for experiment in EXPERIMENTS}


@dataclass
class Client:
    """A collector: chains, uploads, the catalog; all of it gone when it dies."""

    store: FaultyStore
    chance: random.Random
    chains: dict[str, Chain] = field(default_factory=dict)
    acting: bool = False

    def act(self, now_ns: int) -> None:
        """Do something. What fails is left to a later act, of this client or of another."""
        if self.acting:
            return
        self.acting = True
        experiment = self.chance.choice(EXPERIMENTS)
        deeds = (self._commit, self._upload, self._compact, self._sweep, self._look, self._die)
        deed = self.chance.choices(deeds, (6, 2, 1, 1, 1, 1))
        try:
            deed[0](experiment, now_ns)
        except (OSError, CommitConflict, PiecesGone):
            pass
        finally:
            self.acting = False

    def _chain(self, experiment: str) -> Chain:
        if experiment not in self.chains:
            self.chains[experiment] = Chain(self.store, PROJECT, experiment).load()
        return self.chains[experiment]

    def _commit(self, experiment: str, now_ns: int) -> None:
        chain = self._chain(experiment)
        sources = [source for source in TOLD[experiment] if self.chance.random() < 0.7]
        batches: list[Batch] = []
        for source in sources:
            due = [batch for batch in TOLD[experiment][source] if batch.end > chain.watermark(source)]
            batches += due[: self.chance.randint(1, 3)]
        if batches:
            chain.commit(batches, now_ns=now_ns)
            list_newest(chain)

    def _upload(self, experiment: str, now_ns: int) -> None:
        chain = self._chain(experiment).load()
        for file in list(chain.head.pending.values()) if chain.head else []:
            upload = Upload(self.store, PROJECT, experiment, file.source, file.file, size=file.size, sha256=file.sha256)
            while not upload.complete:
                first = upload.received
                upload.add(first, FILE[first : first + 700])
            bad = upload.finish(file.path, lambda file=file: chain.awaits(file))  # type: ignore[misc]
            if not bad:
                chain.commit([], files_done=[FileDone(file.source, file.file)], now_ns=now_ns)
                upload.discard()

    def _compact(self, experiment: str, now_ns: int) -> None:
        self._chain(experiment).compact(now_ns=now_ns, final=self.chance.random() < 0.3)

    def _sweep(self, experiment: str, now_ns: int) -> None:
        sweep(self._chain(experiment), now_ns=now_ns, grace_s=0.0)

    def _look(self, experiment: str, now_ns: int) -> None:
        """A reader is shown every step once, whatever is merged, and never a commit without its parts."""
        snapshot = Snapshot(self.store, PROJECT, experiment)
        with suppress(ExperimentNotFound):  # nothing is stored yet, or an old listing says so
            found = snapshot.read(
                lambda commit: points(snapshot, commit, "numeric", list(commit.document.channels.numeric), "all")
            )
            for name, table in found.items():
                steps = table["step"].to_pylist()
                assert len(steps) == len(set(steps)) == snapshot.commit.document.channels.numeric[name].count

    def _die(self, experiment: str, now_ns: int) -> None:
        self.chains.clear()


def live(store: Store, seed: int, rate: float, clients: int = 2, acts: int = 60) -> list[FaultyStore]:
    """Let the clients act under faults, then let the faults end and all be stored. Their stores, which tell what failed."""
    history = History()
    chance = random.Random(seed)
    stores = [FaultyStore(store, plan=seeded(seed * 31 + n, rate), history=history) for n in range(clients)]
    group = [Client(own, random.Random(seed * 17 + n)) for n, own in enumerate(stores)]
    clock = iter(range(NOW_NS, NOW_NS + 10**6 * SECOND_NS, SECOND_NS))
    for own in stores:
        own.meanwhile = lambda: chance.choice(group).act(next(clock))
    for _ in range(acts):
        chance.choice(group).act(next(clock))
    for own in stores:
        own.heal()
    finish(group[0], clock)
    return stores


def finish(client: Client, clock: Any) -> None:
    """Store what is still to be stored; nothing fails any more."""
    client.chains.clear()
    for experiment in EXPERIMENTS:
        chain = client._chain(experiment)
        while due := [
            batch for own in TOLD[experiment].values() for batch in own if batch.end > chain.watermark(batch.source)
        ]:
            chain.commit(due, now_ns=next(clock))
        client._upload(experiment, next(clock))
        chain.compact(now_ns=next(clock), final=True)
        list_newest(chain)


def content(store: Store) -> dict[str, Any]:
    """All that the store has to say, but for what tells how it came there."""
    said: dict[str, Any] = {}
    rows = {row.experiment: row for row in read_rows(store, PROJECT)}
    for experiment in EXPERIMENTS:
        chain = chain_of(store, experiment)
        assert rows[experiment].commit == chain.number
        document = chain.document.model_dump()
        number = document.pop("id")
        files = {
            path: f"{chain.folder}/{file_place('artifacts', path, file)}" for path, file in chain.artifacts().items()
        }
        for file in document["artifacts"].values():
            del file["file"]
        said[experiment] = {
            "document": document,
            "points": [
                (name, step, time, repr(value)) for name, step, time, value in points_of(chain) if name != "auto"
            ],
            "auto": sorted(step for name, step, _, _ in points_of(chain) if name == "auto"),
            "texts": chain.read("text").to_pylist(),
            "images": chain.read("image").to_pylist(),
            "watermarks": {source: chain.watermark(source) for source in TOLD[experiment]},
            "pending": head_of(chain).pending,
            "files": {path: store.read(place) for path, place in files.items()},
            "row": rows[experiment].model_dump_json(exclude={"commit", "id", "size"}),
        }
        said.setdefault("numbers", []).append(number)
    assert len(set(said["numbers"])) == len(EXPERIMENTS)
    said["numbers"] = "distinct"
    said["quarantine"] = store.names(layout.QUARANTINE)
    return said
