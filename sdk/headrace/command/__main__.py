"""`python -m headrace.command`: the command, for where its script is not on PATH."""

from __future__ import annotations

from headrace.command.main import main

main()
