"""What `headrace up` becomes when it has read its flags and settings: the process that starts, watches and stops the parts.

    python -m headrace.command.supervisor HOME STORE NATS_PORT

It stays as long as they do, and imports nothing that it does not need for that.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress

from headrace.command.running import lock_file, record_file, run_folder, serving_pid, write_record
from headrace.command.stack import Stack, Stopped
from headrace.command.voice import Voice, shown
from headrace_proto.errors import AlreadyRunning, HeadraceError, HomeUnusable
from headrace_proto.home import HOME_VARIABLE, Home
from headrace_proto.journal import lock

USAGE = 2


def command(home: str, store: str, nats_port: int) -> list[str]:
    """The command line of a supervisor."""
    # -P: a module of the folder that somebody works in stands for none of ours
    return [sys.executable, "-P", "-m", __name__, home, store, str(nats_port)]


def main() -> int:
    """Supervise what the command line says; the exit code."""
    home, store, nats_port = sys.argv[1:]
    try:
        serve(Home(home), store, int(nats_port), Voice())
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:  # a disk that is full, a port that went
        print(f"headrace: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def serve(home: Home, store: str, nats_port: int, voice: Voice) -> None:
    """Hold the home's lock and run the parts until a signal. Raises `AlreadyRunning`, `StartFailed` and what a home raises."""
    home.make()
    held = _lock(home)
    stack = Stack(home, store, nats_port, lambda text: voice.say(voice.styled("note", text)))
    try:
        stack.start()
        write_record(home, stack.record())
        _greet(home, stack, voice)
        stack.serve()
        voice.say("stopping: the agent ships, the collector commits, then nats-server")
    except Stopped:
        pass
    finally:
        with suppress(FileNotFoundError):
            os.unlink(record_file(home))
        stack.stop()
        os.close(held)
    voice.say("stopped")


def _lock(home: Home) -> int:
    try:
        run_folder(home)
        held = lock.take(lock_file(home))
    except OSError as error:
        raise HomeUnusable(f"the home {home.root!r} cannot be used: {error.strerror}") from error
    if held is None:
        raise AlreadyRunning(
            f"`headrace up` runs for {home.root} already, as process {serving_pid(home)}: stop that one first, or name "
            f"another home with --home or {HOME_VARIABLE}"
        )
    return held


def _greet(home: Home, stack: Stack, voice: Voice) -> None:
    record = stack.record()
    voice.say(f"{voice.styled('good', 'up')}  home   {shown(home.root)}")
    voice.say(f"    store  {shown(record.store)}")
    voice.say(f"    nats   {record.nats}  process {stack.nats.pid}")
    voice.say(f"    agent  http://127.0.0.1:{record.agent_port}/metrics  process {stack.agent.pid}")
    voice.say(f"    collector  http://127.0.0.1:{record.collector_port}/metrics  process {stack.collector.pid}")
    voice.say(f"    logs   {shown(os.path.join(home.root, 'log'))}")
    if home.named != Home("~/.headrace").named:
        voice.say(f"trainers: {voice.styled('strong', f'export {HOME_VARIABLE}={shlex.quote(home.named)}')}")
    voice.say("Ctrl-C stops")


if __name__ == "__main__":
    sys.exit(main())
