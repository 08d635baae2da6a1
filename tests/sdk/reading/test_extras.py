"""What reading needs is loaded when something is read, and named when it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["pandas", "pyarrow", "pydantic", "fsspec"])
def test_a_missing_package_is_told(package: str) -> None:
    """Without one of the extra's packages the import says which pip command installs it."""
    finished = _run(f"import sys; sys.modules[{package!r}] = None; import headrace.reading")
    assert "MissingExtra" in finished.stderr
    assert "pip install 'headrace[read]'" in finished.stderr


def test_lists_do_without_pandas() -> None:
    """Importing the readers loads no pandas: the command's lists need none, and it takes half a second."""
    finished = _run("import sys, headrace.reading; sys.exit('pandas' in sys.modules)")
    assert finished.returncode == 0, finished.stderr
