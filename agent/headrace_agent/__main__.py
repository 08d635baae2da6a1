"""`python -m headrace_agent`: the command `headrace agent` without the rest of it."""

from headrace_agent.command import main

if __name__ == "__main__":
    main()
