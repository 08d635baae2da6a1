"""`python -m headrace_collector`: `headrace collector` alone; what reads flags is loaded if there are any."""

from __future__ import annotations

import sys

from headrace.service.haste import in_haste


def main() -> None:
    """Run the collector of the command line, or of variables and file alone, as a worker does."""
    with in_haste():
        from headrace_collector.serving import PARENT, serve

    match sys.argv[1:]:
        case []:
            serve()
        case [flag, parent] if flag == PARENT:
            serve(parent=int(parent))
        case _:
            with in_haste():
                from headrace_collector.command import main as run
            run()


if __name__ == "__main__":
    main()
