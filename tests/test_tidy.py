"""Rules of the house that no linter knows. Each names what to do instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from headrace.service.settings import ENV_PREFIX
from headrace_agent.settings import AgentSettings
from headrace_collector.settings import CollectorSettings

ROOT = Path(__file__).parent.parent
PACKAGES = {"sdk": "headrace", "agent": "headrace_agent", "collector": "headrace_collector", "proto": "headrace_proto"}
FOLDERS = (*PACKAGES, "tests", "deploy")
SETTINGS_PAGE = ROOT / "deploy" / "README.md"

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

BANNED_CALLS = {
    "yaml.load": "yaml.safe_load",
    "os.system": "subprocess.run with a list",
    "tempfile.mktemp": "tempfile.mkdtemp",
    "os.fork": "subprocess or multiprocessing",
    "signal.alarm": "a timeout of what is waited for",
    "eval": "a parser of what is meant",
    "exec": "a function",
    "__import__": "importlib.import_module with a name of ours",
    "yaml.unsafe_load": "yaml.safe_load",
    "yaml.full_load": "yaml.safe_load",
    "torch.load": "opaque bytes: nothing here looks into a checkpoint",
    "joblib.load": "JSON, msgpack, npz",
    "pd.read_pickle": "Parquet",
    "shutil.unpack_archive": "nothing here unpacks: archives are written, with checked names",
}
BANNED_IMPORTS = dict.fromkeys(
    ("pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib"),
    "loading it runs code: JSON, msgpack, npz",
)
"""In the code. Tests may pickle a handle to see that it can be."""
CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.process_time", "perf_counter", "monotonic"}
ELAPSED = {"elapsed", "elapsed_s", "took", "took_s", "duration_s"}


@cache
def sources(*folders: str) -> list[Path]:
    """The Python files below the folders."""
    return sorted(
        path for folder in folders for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts
    )


@cache
def texts() -> list[Path]:
    """Every file of the project that people read."""
    kinds = (".py", ".md", ".toml", ".txt", ".yaml", ".conf", ".service", "")
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    found += [path for path in ROOT.iterdir() if path.suffix in kinds and not path.name.startswith(".")]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line else "")


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression that is one, else ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return f"{start}.{node.attr}"
    return ""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def none_of(found: list[str], rule: str) -> None:
    assert not found, f"{rule}:\n" + "\n".join(found)


def test_no_banned_call() -> None:
    """Calls that have a better replacement are not made."""
    found = [
        f"{shown(path, call.lineno)} {name}: use {BANNED_CALLS[name]}"
        for path in sources(*PACKAGES, "deploy")
        for name, call in calls(path)
        if name in BANNED_CALLS
    ]
    none_of(found, "banned calls")


def test_no_command_line_is_put_together_for_a_shell() -> None:
    """No command line is put together for a shell."""
    found = [
        shown(path, call.lineno)
        for path in sources(*FOLDERS)
        for _, call in calls(path)
        if any(word.arg == "shell" and getattr(word.value, "value", None) is True for word in call.keywords)
    ]
    none_of(found, "shell=True: give subprocess a list")


def test_nats_py_is_imported_in_one_place() -> None:
    """An import of it anywhere else would bring aiohttp into an agent: 12 MiB."""
    found = [
        f"{shown(path, line)} {name}: import it from headrace.service.nats_py"
        for path in sources(*PACKAGES)
        for line, name in imports(path)
        if name.partition(".")[0] == "nats" and path.name != "nats_py.py"
    ]
    none_of(found, "imports of nats-py")


def test_code_imports_nothing_that_runs_what_it_loads() -> None:
    """Neither stored nor sent bytes are ever unpickled."""
    found = []
    for path in sources(*PACKAGES, "deploy"):
        for line, name in imports(path):
            if name.partition(".")[0] in BANNED_IMPORTS:
                found.append(f"{shown(path, line)} {name}: {BANNED_IMPORTS[name.partition('.')[0]]}")
    none_of(found, "banned imports")


def test_arrays_are_never_pickled() -> None:
    """NumPy's files are read and written with `allow_pickle=False`, wherever that is a choice."""
    choice = {
        f"{module}.{name}" for module in ("np", "numpy") for name in ("load", "save", "savez", "savez_compressed")
    }
    found = [
        shown(path, call.lineno)
        for path in sources(*PACKAGES, "deploy")
        for name, call in calls(path)
        if name in choice
        and not any(
            word.arg == "allow_pickle" and getattr(word.value, "value", None) is False for word in call.keywords
        )
    ]
    none_of(found, "arrays that may be pickled: allow_pickle=False")


def test_nothing_unpacks_an_archive() -> None:
    """No archive is ever unpacked: a member's name could lead anywhere. ZIP archives are only written, names checked."""
    found = [
        f"{shown(path, call.lineno)} {name}"
        for path in sources(*PACKAGES, "deploy")
        for name, call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("extractall", "extract", "unpack_archive")
    ]
    found += [
        f"{shown(path, line)} {name}"
        for path in sources(*PACKAGES, "deploy")
        for line, name in imports(path)
        if name.partition(".")[0] == "tarfile"
    ]
    none_of(found, "archives that are unpacked")


def test_tests_wait_on_conditions() -> None:
    """No test sleeps for a time and hopes. What measures may (benchmarks), and so may the one helper that polls."""
    found = [
        shown(path, call.lineno)
        for path in sources("tests")
        if "benchmarks" not in path.parts
        for name, call in calls(path)
        if name in ("time.sleep", "sleep")
    ]
    none_of(found, "time.sleep in tests: tests.waiting.wait_until")


def test_tests_assert_no_times() -> None:
    """Whether a test passes does not depend on how busy the machine is: figures belong to the benchmarks."""
    found = [
        shown(path, node.lineno)
        for path in sources("tests")
        if "benchmarks" not in path.parts and path != Path(__file__)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Assert)
        and any(
            dotted(part) in CLOCKS | ELAPSED
            for part in ast.walk(node.test)
            if isinstance(part, (ast.Name, ast.Attribute))
        )
    ]
    none_of(found, "timed assertions: measure in tests/benchmarks")


def test_every_test_has_its_promise() -> None:
    """Each test says in a docstring what it holds the code to."""
    found = [
        f"{shown(path, node.lineno)} {node.name}"
        for path in sources("tests")
        if path.name.startswith("test_")
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    none_of(found, "tests without a docstring")


def test_no_file_is_too_long() -> None:
    """Files stay short enough to be read."""
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*FOLDERS)}
    found = [f"{name}: {length} lines" for name, length in lengths.items() if length > FILE_LINES_MAX]
    none_of(found, f"files of more than {FILE_LINES_MAX} lines: one noun a file")


def test_no_function_is_too_long() -> None:
    """A function does one thing."""
    found = [
        f"{shown(path, node.lineno)} {node.name}: {length} lines"
        for path in sources(*FOLDERS)
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
        and length - len((ast.get_docstring(node) or "").splitlines()) > FUNCTION_LINES_MAX
    ]
    none_of(found, f"functions of more than {FUNCTION_LINES_MAX} lines")


def test_nothing_is_left_for_later() -> None:
    """What is not done is an issue, not a note in the code."""
    later = re.compile("|".join(rf"\b{word}{rest}\b" for word, rest in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"))))
    found = [
        shown(path, number)
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if later.search(line)
    ]
    none_of(found, "notes for later")


def test_nothing_names_a_machine() -> None:
    """No path of somebody's machine is written down."""
    machine = re.compile(r"(?<![\w.}])/(?:home|root|Users|tmp|work|mnt)/\w")
    found = [
        f"{shown(path, number)} {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    none_of(found, "absolute paths")


def test_constraints_name_versions_only() -> None:
    """The pinned versions name no host, no path and no option."""
    for path in (ROOT / "constraints.txt", ROOT / "tests" / "benchmarks" / "peers" / "constraints.txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        none_of(
            [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line)], "constraints"
        )
        assert len(lines) > 100


def test_code_folders_hold_one_typed_package_each() -> None:
    """Each code folder holds its package and nothing else to import (an editable install puts the folder on sys.path)."""
    for folder, package in PACKAGES.items():
        inside = {
            path.name for path in (ROOT / folder).iterdir() if path.suffix != ".md" and path.name != "__pycache__"
        }
        assert inside == {package}
        assert (ROOT / folder / package / "py.typed").exists()


def test_every_folder_of_code_is_a_package() -> None:
    """Packages have an `__init__`: installers, type checkers and pytest agree on what is what."""
    folders = {path.parent for path in sources(*PACKAGES, "tests")} - {ROOT / folder for folder in PACKAGES}
    none_of([shown(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()], "no __init__.py")


def test_every_variable_and_setting_is_documented() -> None:
    """Each HEADRACE_ variable that the code reads is on the page of the settings, and each setting of a part."""
    page = SETTINGS_PAGE.read_text(encoding="utf-8")
    read = {
        name
        for path in sources(*PACKAGES)
        for name in re.findall(rf"{ENV_PREFIX}[A-Z][A-Z_]*[A-Z]", path.read_text("utf-8"))
    }
    fields = {*AgentSettings.model_fields, *CollectorSettings.model_fields}
    read |= {f"{ENV_PREFIX}{field.upper()}" for field in fields}
    none_of(sorted(name for name in read if f"`{name}`" not in page), f"not documented in {shown(SETTINGS_PAGE)}")


@pytest.mark.parametrize("page", sorted(path for path in texts() if path.suffix == ".md"), ids=shown)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link on a page names a file that is there."""
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    none_of([link for link in links if not (page.parent / link).exists()], f"dead links of {shown(page)}")
