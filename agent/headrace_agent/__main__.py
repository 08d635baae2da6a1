"""`python -m headrace_agent`: `headrace agent` without the rest of the command; what reads flags is loaded if there are any."""

from __future__ import annotations

import sys

from headrace.service.haste import in_haste


def main() -> None:
    """Run the agent of the command line, or of variables and file alone."""
    with in_haste():
        if sys.argv[1:]:
            from headrace_agent.command import main as run
        else:
            from headrace_agent.serving import serve as run
    run()


if __name__ == "__main__":
    main()
