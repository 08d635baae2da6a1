"""`make demo`: the main job on real input. Trains under `headrace run`, then shows what was stored, all of it below .demo/.

Arguments are the training script's (`--epochs N`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.tree import Tree

from headrace.reading import StoredExperiment, StoredProject

FOLDER = Path(".demo").resolve()
STORE = FOLDER / "store"
PROJECT = "vision/digits"
SCRIPT = Path(__file__).with_name("train_digits.py")
HEADRACE = (sys.executable, "-m", "headrace.command")


def main() -> None:
    """Train, then look: leaderboard, curves, files."""
    began_s = time.monotonic()
    console = Console()
    work = FOLDER / "work"
    work.mkdir(parents=True, exist_ok=True)
    os.environ["HEADRACE_HOME"] = str(FOLDER / "home")
    os.environ["HEADRACE_STORE"] = str(STORE)

    console.rule("training under `headrace run`: nats-server, agent and collector beside it, for the time")
    known = {experiment.internal_id for experiment in StoredProject(str(STORE), PROJECT)}
    subprocess.run([*HEADRACE, "run", "--", sys.executable, str(SCRIPT), *sys.argv[1:]], cwd=work, check=True)
    made = [one for one in StoredProject(str(STORE), PROJECT) if one.internal_id not in known]

    show(console, "ls", PROJECT, "--sort=-test/accuracy")
    ids = ",".join(one.id for one in made)
    show(console, "plot", ids, "test/loss", "--log", "--height", "16")
    best = max(made, key=lambda one: one.metrics["test/accuracy"])
    console.rule(f"the files of {best.id}, the best: open them with anything")
    console.print(tree(best))
    console.print(f"\nfrom training to files in {time.monotonic() - began_s:.1f} s. Look further; no server is needed:")
    headrace = os.path.relpath(Path(sys.executable).with_name("headrace"))
    console.print(f"  export HEADRACE_STORE={os.path.relpath(STORE)}")
    console.print(f"  {headrace} show {best.id}")
    console.print(f"  {headrace} plot {ids} train/loss", soft_wrap=True)
    console.print(f"  less {os.path.relpath(best.url)}/experiment.json", soft_wrap=True)


def show(console: Console, *arguments: str) -> None:
    """Run a command of headrace's as a reader would."""
    console.rule(f"headrace {' '.join(arguments)}")
    subprocess.run([*HEADRACE, *arguments], check=True)


def tree(experiment: StoredExperiment) -> Tree:
    """The files of an experiment: those that its document names, which is how to read a store (others may be leftovers)."""
    root = Path(experiment.url)
    document = json.loads((root / "experiment.json").read_text())
    named = [path for parts in document["parts"].values() for path in parts]
    named += [f"artifacts/{path}" for path in document["artifacts"]] + [
        f"sources/{path}" for path in document["source_files"]
    ]
    named += [str(path.relative_to(root)) for path in root.glob("images/*/*.png")]
    shown = Tree(os.path.relpath(root))
    branches: dict[str, Tree] = {"": shown}
    for path in sorted([*named, "experiment.json"], key=lambda path: path.rpartition("/")[::2]):
        folder, _, name = path.rpartition("/")
        label = f"{name}  [dim]{decimal((root / path).stat().st_size)}[/]"
        if folder not in branches:
            branches[folder] = shown.add(folder)
        branches[folder].add(label)
    return shown


if __name__ == "__main__":
    main()
