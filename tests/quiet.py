"""How tests create experiments that record nothing but what is logged to them."""

from __future__ import annotations

from typing import Any, Final

QUIET: Final[dict[str, Any]] = {
    "upload_source_files": [],
    "git_info": False,
    "upload_stdout": False,
    "upload_stderr": False,
}
