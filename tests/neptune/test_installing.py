"""`import neptune` itself: ours where it is asked for, never over the real one in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.neptune.installing import MODULES

LOGS = "import neptune\nneptune.init('a/b')\nneptune.create_experiment(upload_stdout=False)\nneptune.log_metric('loss', 0.5)\n"


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python, in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "HEADRACE_HOME": str(folder / "home"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder in which a real package `neptune` lies."""
    package = tmp_path / "site" / "neptune"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("real = True")
    return package.parent


def test_install_makes_every_old_import_ours(tmp_path: Path) -> None:
    """One class by either name, and a script beside it that imports the old one."""
    (tmp_path / "library.py").write_text("import neptune\nfrom neptune.exceptions import FileNotFound\n")
    imports = "\n".join(f"import neptune.{name}" for name in MODULES)
    done = python(
        tmp_path,
        "-c",
        "import headrace.neptune; headrace.neptune.install(); headrace.neptune.install()\n"
        f"{imports}\n"
        "import library, headrace.neptune.exceptions as ours\n"
        "from neptune.experiments import Experiment\n"
        "assert library.FileNotFound is ours.FileNotFound and library.neptune is headrace.neptune\n"
        "assert Experiment is headrace.neptune.experiments.Experiment\n",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_real_package_that_is_imported_is_never_replaced(tmp_path: Path, real: Path) -> None:
    """Half a program would talk to it: the error says where it lies."""
    done = python(tmp_path, "-c", "import neptune, headrace.neptune; headrace.neptune.install()", PYTHONPATH=str(real))
    assert done.returncode == 1
    assert f"NeptuneIsImported: neptune is imported already, from '{real}" in done.stderr


def test_a_real_package_that_is_installed_is_passed_over_aloud(tmp_path: Path, real: Path) -> None:
    """A warning names it."""
    done = python(
        tmp_path,
        "-c",
        "import headrace.neptune; headrace.neptune.install(); import neptune; assert not hasattr(neptune, 'real')",
        PYTHONPATH=str(real),
    )
    assert done.returncode == 0
    assert f"`import neptune` means headrace.neptune in this process, not the package at {real}" in done.stderr


def test_importing_ours_installs_nothing(tmp_path: Path) -> None:
    """`import headrace.neptune` alone leaves `import neptune` what it was; `import headrace` does not even load it."""
    done = python(
        tmp_path,
        "-c",
        "import sys, headrace\nassert 'headrace.neptune' not in sys.modules\n"
        "import headrace.neptune\nassert 'neptune' not in sys.modules\nimport neptune\n",
    )
    assert "ModuleNotFoundError: No module named 'neptune'" in done.stderr


def test_a_script_runs_under_our_name(tmp_path: Path) -> None:
    """With its arguments, its own folder to import from, its own name, its exit status, and its traceback."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "beside.py").write_text("HERE = 1\n")
    (folder / "train.py").write_text(
        f"{LOGS}import sys, beside\nassert __name__ == '__main__'\nprint(sys.argv)\n"
        "if sys.argv[2:]: raise ValueError('gone')\nsys.exit(3)\n"
    )
    done = python(tmp_path, "-m", "headrace.neptune", "scripts/train.py", "--lr=1")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[-1] == "['scripts/train.py', '--lr=1']"
    failed = python(tmp_path, "-m", "headrace.neptune", "scripts/train.py", "--lr=1", "more")
    assert failed.returncode == 1
    assert "ValueError: gone" in failed.stderr


def test_a_module_runs_under_our_name(tmp_path: Path) -> None:
    """As `python -m` itself would run it."""
    (tmp_path / "trainer.py").write_text(f"{LOGS}import sys\nprint(sys.argv[1:])\n")
    done = python(tmp_path, "-m", "headrace.neptune", "-m", "trainer", "--lr", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['--lr', '1']"


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_that_a_script_starts_import_ours_too(tmp_path: Path, real: Path, method: str) -> None:
    """However multiprocessing starts them, and though a real package is installed; of that the first process alone tells."""
    (tmp_path / "train.py").write_text(
        "import concurrent.futures, multiprocessing, neptune\nfrom neptune.exceptions import NoChannelValue\n"
        "def work(number):\n    return neptune.__name__, NoChannelValue.__module__\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context('{method}')\n"
        "    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:\n"
        "        print(list(pool.map(work, [1])))\n"
    )
    done = python(tmp_path, "-m", "headrace.neptune", "train.py", PYTHONPATH=str(real))
    assert done.stdout == "[('headrace.neptune', 'headrace.neptune.exceptions')]\n", done.stderr
    assert done.stderr.count("`import neptune` means") == 1


def test_nothing_to_run_says_how(tmp_path: Path) -> None:
    """One line."""
    done = python(tmp_path, "-m", "headrace.neptune")
    assert (done.returncode, done.stderr) == (
        *(1, "usage: python -m headrace.neptune [-m MODULE | SCRIPT] [ARGUMENTS ...]\n"),
    )
