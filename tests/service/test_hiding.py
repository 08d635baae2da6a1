"""What libraries load beside what we need, and how Arrow is loaded without it."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import os, sys
from headrace.service.hiding import load_arrow
before = dict(os.environ)
load_arrow()
import pyarrow as pa
hidden = sorted({"pandas", "pyarrow._s3fs"} & set(sys.modules))
print(hidden, pa.default_memory_pool().backend_name, os.environ == before, len(pa.table({"a": [1]}).to_pandas()))
"""


def test_arrow_comes_alone_and_takes_nothing_away() -> None:
    """Neither pandas nor ways to S3 come with it, it allocates as all do, and a DataFrame is made when one is asked for."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] system True 1"
