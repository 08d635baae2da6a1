"""The command line: finds the commands, ours and those of installed parts, and turns errors into one line.

Parts add commands through entry points of the group `headrace.commands`, each a plain function with typer's annotations. The
SDK does not know them: that is how `headrace agent` is here without `headrace` importing the agent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Final

from headrace import __version__
from headrace.service.haste import in_haste
from headrace_proto.errors import HeadraceError, MissingExtra

try:
    import typer
except ImportError as lacking:  # a plain `pip install headrace` logs; the command is an extra
    sys.exit(f"headrace: the command lacks {lacking.name}: pip install 'headrace[all]'")

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "headrace.commands"
COMMANDS: Final = (
    "run",
    "up",
    "ls",
    "show",
    "verify",
    "fsck",
    "plot",
    "abort",
    "status",
    "ship",
    "doctor",
    "deploy",
    "close-gap",
    "import",
)
"""Ours, each a module of this package with a function (or, of several commands, a `typer.Typer`) of that name, `_` for `-`, and
`_` behind a word of Python's; in the order of the help page."""
USAGE: Final = 2
INTERRUPTED: Final = 130
_DEBUG: Final = "--debug"
_VERSION: Final = "--version"

Command = Callable[..., Any]


def main() -> None:
    """The entry point `headrace`."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; the exit code. With `--debug` before the command's name errors show their traceback."""
    debug = _DEBUG in _before_command(arguments)
    if _VERSION in _before_command(arguments):  # asked by scripts: no command need be loaded for it
        print(f"headrace {__version__}")
        return 0
    try:
        with in_haste():
            app = _app(_named(arguments))
        code = _ended(app, list(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `headrace ls | head`: whoever reads has seen enough; typer and rich end with 1 as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except HeadraceError as error:
        if debug:
            raise
        print(f"headrace: {error}", file=sys.stderr)
        return USAGE
    except Exception as error:  # what nobody foresaw is still one line for people
        if debug:
            raise
        print(f"headrace: {type(error).__name__}: {error} (headrace --debug ... shows where)", file=sys.stderr)
        return 1


def _ended(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command line; typer ends every one with SystemExit."""
    try:
        app(args=arguments, prog_name="headrace")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE
    return 0


def _before_command(arguments: Sequence[str]) -> Sequence[str]:
    for index, argument in enumerate(arguments):
        if not argument.startswith("-"):
            return arguments[:index]
    return arguments


def _named(arguments: Sequence[str]) -> str | None:
    """The command that is asked for, or None when all are (help, or a typing error)."""
    before = len(_before_command(arguments))
    name = arguments[before] if before < len(arguments) else None
    return name if name in COMMANDS or name in _plug_ins() else None


def _plug_ins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # our own commands do without it

    return {point.name: point for point in entry_points(group=GROUP)}


def _app(name: str | None) -> typer.Typer:
    """The command line with only the command `name`, or with all."""
    app = typer.Typer(
        help="Experiments from a training loop to open files, through journal, agent, stream and collector.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_headrace)
    for ours in COMMANDS if name is None else [name] if name in COMMANDS else []:
        module = _import(ours)
        command = getattr(module, _identifier(ours))
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=ours)
        else:
            app.command(ours, context_settings=getattr(module, "CONTEXT", None))(command)
    for other, point in _plug_ins().items() if name not in COMMANDS else ():
        if name in (None, other) and (plug_in := _load(point, wanted=name is not None)) is not None:
            app.command(other)(plug_in)
    return app


def _headrace(
    version: bool = typer.Option(False, _VERSION, help="Say which version this is."),
    debug: bool = typer.Option(False, _DEBUG, help="Show the traceback of an error."),
) -> None:
    """Options that stand before the command's name; `invoke` has looked at them already."""


def _identifier(name: str) -> str:
    identifier = name.replace("-", "_")
    return f"{identifier}_" if iskeyword(identifier) else identifier


def _import(name: str) -> Any:
    try:
        return import_module(f"headrace.command.{_identifier(name)}")
    except MissingExtra:
        raise
    except ImportError as error:
        raise MissingExtra(f"`headrace {name}` lacks {error.name}: pip install 'headrace[all]'") from error


def _load(point: EntryPoint, *, wanted: bool) -> Command | None:
    """A part's command. One that cannot be imported is an error only when it is asked for."""
    try:
        command: Command = point.load()
        return command
    except ImportError as error:
        if wanted:
            raise MissingExtra.named(f"`headrace {point.name}` (it lacks {error.name})", point.name) from error
        return None
