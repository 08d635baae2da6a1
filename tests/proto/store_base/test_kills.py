"""Writers of a local store, killed: at every system call that they make, and as processes in the middle of a race."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_proto.store.local import LocalStore
from tests.waiting import wait_until

_EACH_CALL = '''
import builtins, io, json, os, signal, sys
from headrace_proto.store.local import LocalStore

root, deed = sys.argv[1:]
OLD, NEW = b"o" * 700, b"n" * 900

def counted(call, when):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

class Unbuffered:
    """A file whose every write reaches the kernel at once, so that a kill between two leaves what was written."""
    def __init__(self, path, mode, when):
        self.raw = io.FileIO(path, mode.replace("b", ""))
        self.write = counted(self.raw.write, when)
    def writelines(self, blocks):
        for block in blocks:
            for first in range(0, len(block), 300):
                self.write(block[first : first + 300])
    def __enter__(self): return self
    def __exit__(self, *_): self.raw.close()
    def flush(self): pass
    def fileno(self): return self.raw.fileno()

def act(store):
    if deed == "create": store.create("a/b/c", NEW)
    elif deed == "put": store.put("a/b/c", NEW)
    elif deed == "put_stream": store.put_stream("a/b/c", (NEW[n : n + 100] for n in range(0, 900, 100)))
    elif deed == "delete": store.delete(["a/b/c"])

report = []
for old in (False, True):
    for when in ("before", "after"):
        for number in range(1, 200):
            folder = f"{root}/{old}-{when}-{number}"
            if old:
                LocalStore(folder).put("a/b/c", OLD)
            pid = os.fork()
            if pid == 0:
                left = number
                for name in ("link", "rename", "mkdir", "rmdir", "unlink", "fsync"):
                    setattr(os, name, counted(getattr(os, name), when))
                builtins.open = lambda path, mode="r": Unbuffered(path, mode, when)
                act(LocalStore(folder))
                os._exit(0)
            killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
            report.append([folder, old, killed])
            if not killed:
                break
print(json.dumps(report))
'''


# -- Fault 18: all of an object or nothing of it is under its name ---------------------------------------------------


@pytest.mark.parametrize("deed", ["create", "put", "put_stream", "delete"])
def test_a_writer_killed_at_any_call_leaves_all_or_nothing(tmp_path: Path, deed: str) -> None:
    """SIGKILL before and after each system call of a write: under the name is the old object or the new one, or none where
    none was or it was deleted, never a part; nothing else is listed, and the next writer is not hindered."""
    finished = subprocess.run(
        [sys.executable, "-c", _EACH_CALL, str(tmp_path), deed], capture_output=True, check=True, timeout=120
    )
    report = json.loads(finished.stdout)
    assert sum(killed for _, _, killed in report) > (4 if deed == "delete" else 20)
    old, new = b"o" * 700, b"n" * 900
    for folder, was_there, _ in report:
        store = LocalStore(folder)
        found = store.read("a/b/c") if store.names("a/b") else None
        possible = {old if was_there else None}
        possible |= {None} if deed == "delete" else set() if deed == "create" and was_there else {new}
        assert found in possible
        assert [name for name in store.names("") if not name.startswith("_")] in ([], ["a"])
        assert store.create("a/b/c", b"next") is (found is None)
        store.put("a/b/c", b"last")
        assert store.read("a/b/c") == b"last"


_RACE = """
import sys
from headrace_proto.store.local import LocalStore
store, own = LocalStore(sys.argv[1]), sys.argv[2].encode() * 50_000
print("ready", flush=True)
sys.stdin.read(1)
won = [n for n in range(40) if store.create(f"commits/{n}", own)]
print(won, flush=True)
"""


def test_processes_that_race_for_commits_have_one_winner_each(tmp_path: Path) -> None:
    """Four processes create the same 40 objects at once, one of them is killed on the way: each object is one process's, whole."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(tmp_path / "store"), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in "abcd"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"x")
        racer.stdin.flush()
    store = LocalStore(tmp_path / "store")
    wait_until(lambda: len(store.names("commits")) >= 10, "ten objects are created")
    racers[0].send_signal(signal.SIGKILL)
    won = [json.loads(racer.communicate(timeout=60)[0] or b"[]") for racer in racers[1:]]
    racers[0].communicate(timeout=60)
    for number in range(40):
        data = store.read(f"commits/{number}")
        assert data in {name * 50_000 for name in (b"a", b"b", b"c", b"d")}
        winners = [name for name, own in zip("bcd", won, strict=True) if number in own]
        assert winners == ([] if data[:1] == b"a" else [data[:1].decode()])
