"""`headrace plot ID CHANNEL...`: curves in the terminal."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any, Final, NamedTuple

import typer

from headrace.command.console import print_json
from headrace.command.find import find_experiment, open_for_reading
from headrace.command.options import HomeOption, JsonOption, ProjectOption, StoreOption
from headrace_proto.errors import InvalidValue
from headrace_proto.home import Home

POINTS_MAX: Final = 2_000
"""Of a curve, in a terminal that is at most some hundred columns wide: more only costs time. `--json` has all points."""
TICKS: Final = 6


class Curve(NamedTuple):
    """The points of a channel, by step."""

    label: str
    steps: list[float]
    values: list[float]


def plot(
    experiment: Annotated[str, typer.Argument(metavar="ID", help="DIG-7, or several with commas to compare.")],
    channels: Annotated[list[str], typer.Argument(metavar="CHANNEL...", help="Numeric channels.")],
    log: Annotated[bool, typer.Option("--log", help="A logarithmic scale of values.")] = False,
    width: Annotated[int | None, typer.Option(help="Columns.", min=20)] = None,
    height: Annotated[int | None, typer.Option(help="Rows.", min=5)] = None,
    project: ProjectOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Draw channels of one or more experiments over their steps."""
    where = open_for_reading(store, Home(home))
    curves = []
    for wanted in experiment.split(","):
        found = find_experiment(where, wanted.strip(), project)
        for channel in channels:
            points = found.get_channel(channel, type="numeric")
            label = f"{found.id or found.internal_id[:8]} {channel}"
            curves.append(Curve(label, list(points["step"]), list(points["value"])))
    if json:
        print_json([curve._asdict() for curve in curves])
    else:
        print(drawn(curves, width=width, height=height, log=log, colors=sys.stdout.isatty()))


def drawn(
    curves: list[Curve], *, width: int | None = None, height: int | None = None, log: bool = False, colors: bool = True
) -> str:
    """The curves as text. Values that are not finite (with `log`: not positive) are left out."""
    import plotext

    figure: Any = plotext.figure
    figure.clear()
    figure.theme("simple")
    columns, rows = _terminal()
    figure.plot_size(width or columns, height or rows)
    for curve in curves:
        points = _thinned(curve, log=log)
        if points:
            signal = figure.signal([step for step, _ in points], [value for _, value in points])
            signal.lines(True)
            signal.label(curve.label)
            figure.draw(signal)
    if not any(_thinned(curve, log=log) for curve in curves):
        raise InvalidValue("nothing to draw: the channels have no finite values")
    figure.label("step", "x")
    ticks = _ticks([step for curve in curves for step in curve.steps])
    figure.ruler("x").ticks(ticks, [f"{tick:g}" for tick in ticks])
    if log:
        figure.ruler("y").scale("log")
    return str(figure.build().string(not colors)).rstrip()


def _ticks(steps: list[float]) -> list[float]:
    """About six round steps."""
    low, high = min(steps), max(steps)
    if low == high:
        return [low]
    rough = (high - low) / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    stride = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [number * stride for number in range(math.ceil(low / stride), math.floor(high / stride) + 1)]


def _terminal() -> tuple[int, int]:
    import shutil

    size = shutil.get_terminal_size((100, 30))
    return min(size.columns, 160), min(max(size.lines - 6, 12), 24)


def _thinned(curve: Curve, *, log: bool) -> list[tuple[float, float]]:
    points = [
        (step, value)
        for step, value in zip(curve.steps, curve.values, strict=True)
        if math.isfinite(value) and (not log or value > 0)
    ]
    return points[:: max(1, math.ceil(len(points) / POINTS_MAX))]
