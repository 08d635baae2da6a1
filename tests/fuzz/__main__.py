"""`python -m tests.fuzz TARGET|all --seconds 60 --seed 1 --save FOLDER`: fuzz for as long as you like.

A finding is written to FOLDER. Mend what it shows, then put the file into tests/fuzz/corpus/<target>/ under a name that says what
it was: from then on `make test` runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from pathlib import Path

from tests.fuzz.fuzzer import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """The exit status is 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="as printed by another run")
    parser.add_argument("--save", type=Path, default=None, help="where findings are written")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    found = False
    for name in TARGETS if options.target == "all" else [options.target]:
        tried, finding = fuzz(name, seed, seconds=options.seconds)
        print(
            f"{name:10} seed {seed}: {tried:,} inputs, {'nothing found' if finding is None else finding.what}",
            flush=True,
        )
        if finding is None:
            continue
        found = True
        digest = hashlib.sha256(finding.data).hexdigest()[:12]
        print(f"{len(finding.data)} bytes, sha256 {digest}: {finding.data[:200]!r}")
        if options.save is not None:
            options.save.mkdir(parents=True, exist_ok=True)
            path = options.save / f"{name}-{digest}.bin"
            path.write_bytes(finding.data)
            print(f"kept as {path}; mend it, then move it to tests/fuzz/corpus/{name}/")
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
