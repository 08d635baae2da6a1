"""`python -m headrace_collector`: the command `headrace collector` without the rest of it."""

from headrace_collector.command import main

if __name__ == "__main__":
    main()
