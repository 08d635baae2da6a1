"""The old script is run by tests, never collected: it says `import neptune`."""

from __future__ import annotations

collect_ignore = ["old_script.py"]
