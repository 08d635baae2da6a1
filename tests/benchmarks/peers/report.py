"""RESULTS.md, from what was measured."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.benchmarks.peers.bench import KILLS
from tests.benchmarks.peers.process import GRACE_S
from tests.benchmarks.peers.registry import PEERS, peer_class
from tests.benchmarks.rows import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tests.benchmarks.peers.results import Results

OURS: Final = "headrace"
STORED: Final = "headrace-stored"
FASTER: Final = {"json-lines": 5.0, "trackio": 8.0, "wandb": 150.0, "neptune-scale": 250.0, "mlflow": 4000.0}
"""How many times faster `log_metric` is to be than each."""
CPU_S: Final = 0.3
NONE: Final = "-"


class Reach(NamedTuple):
    """A bar, and whether it is reached."""

    what: str
    measured: str
    wanted: str
    met: bool


def report(results: Results) -> str:
    """The whole page."""
    parts = [
        _head(results),
        "## What was to be reached\n\n"
        + _table(
            ("what", "measured", "to reach", ""),
            [(row.what, row.measured, row.wanted, "met" if row.met else "**missed**") for row in reached(results)],
        ),
        "## One scalar a call\n\n" + _calls(results, "scalars"),
        "## A dict of 50 scalars a call\n\n" + _calls(results, "rows"),
        "## SIGKILL\n\n" + _kills(results),
        "## Beginning, reading, searching\n\n" + _life(results),
        "## Where they win\n\n" + _wins(results),
        "## What each is, and how it was used\n\n" + _ways(results),
    ]
    if failed := [(name, column, why) for name, columns in results.failures.items() for column, why in columns.items()]:
        parts.append("## What could not be measured\n\n" + _table(("peer", "column", "why"), failed))
    return "\n".join(parts)


def _head(results: Results) -> str:
    about = results.about
    return (
        "# Beside the peers\n\n"
        f"Written by `make bench-peers` on {about['date']}, on {about['machine']}, files on {about['filesystem']}. "
        "All peers of a table were measured side by side in one go, each figure in processes of its own, and is the median of "
        f"{max((len(runs) for columns in results.figures.values() for runs in columns.values()), default=0)} runs. "
        "Nothing had a network. Latencies are net of reading the clock, CPU is net of the loops around the calls. "
        "What is not better here is under *Where they win*.\n\n"
        + ", ".join(
            f"{name} {version}" for name, version in results.versions.items() if name not in (STORED, "mlflow-async")
        )
        + "\n"
    )


def reached(results: Results) -> list[Reach]:
    """The bars for which there are figures."""
    rows, ours = [], results.median(OURS, "scalars", "p50_us")
    for name, wanted in FASTER.items():
        if (theirs := results.median(name, "scalars", "p50_us")) is not None and ours:
            ratio = theirs / ours
            rows.append(
                Reach(
                    f"`log_metric` p50: times faster than {name}", number(ratio), f"≥ {number(wanted)}", ratio >= wanted
                )
            )
    for column in KILLS:
        if results.every(OURS, column, "lost"):
            lost = results.every(OURS, column, "lost") + results.every(OURS, column, "wrong")
            of = sum(results.every(OURS, column, "returned"))
            what = f"events lost of those whose call had returned, SIGKILL {_rate(column)}"
            rows.append(Reach(what, f"{number(sum(lost))} of {number(of)}", "0", sum(lost) == 0))
    if (cpu_s := results.cpu_s(STORED, "scalars")) is not None:
        what = "CPU seconds per 100k scalars, logging process, agent, broker and collector together"
        rows.append(Reach(what, number(cpu_s), f"≤ {number(CPU_S)}", cpu_s <= CPU_S))
    return rows


# -- Tables --------------------------------------------------------------------------------------------------------------


def _calls(results: Results, column: str) -> str:
    def row(name: str) -> Sequence[str]:
        def say(key: str) -> str:
            return _number(results.median(name, column, key))

        events, durable_s = results.median(name, column, "events"), results.median(name, column, "durable_s")
        speed = events / durable_s if events and durable_s else None
        return (
            _named(name),
            say("calls"),
            say("p50_us"),
            say("p99_us"),
            say("p999_us"),
            say("max_us"),
            say("durable_s"),
            _number(speed),
            _number(results.cpu_s(name, column)),
            say("rss_mib"),
            _number(results.bytes_an_event(name, column)),
        )

    heading = (
        "",
        "calls",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "s until durable",
        "values/s until durable",
        "CPU s per 100k",
        "peak MiB",
        "B a value",
    )
    most = max((results.median(name, column, "calls") or 0 for name in results.peers(column)), default=0)
    scaled = [name for name in results.peers(column) if (results.median(name, column, "calls") or 0) < most]
    return _table(heading, map(row, results.peers(column))) + (
        "\nDurable: from the first call until the process and everything it started have gone and every file is "
        f"synced to the disk; for {_named(STORED)} until the store has it. CPU: of the process and all its children, "
        "starting included. Memory: of the whole tree, shared pages counted for each process. Bytes: allocated on "
        "disk, beyond those of a run with one metric.\n"
        + (
            f"\n{', '.join(scaled)}: fewer calls, as all would take many minutes; CPU is scaled, time is not.\n"
            if scaled
            else ""
        )
    )


def _kills(results: Results) -> str:
    def row(name: str) -> Sequence[str]:
        cells = [_named(name)]
        for column in KILLS:
            keys = ("returned", "lost", "wrong")
            runs = zip(*(results.every(name, column, key) for key in keys), strict=True)
            by_share = sorted(((lost + wrong) / returned, returned, lost, wrong) for returned, lost, wrong in runs)
            if not by_share:
                cells += [NONE, NONE]
                continue
            share, returned, lost, wrong = by_share[len(by_share) // 2]
            also = f", and {number(wrong)} wrong" if wrong else ""
            cells += [f"{number(lost)} of {number(returned)}{also}", _percent(share)]
        return cells

    names = [name for name in PEERS if any(results.every(name, column, "lost") for column in KILLS)]
    heading = ["", *(cell for column in KILLS for cell in (f"lost {_rate(column)}", ""))]
    return _table(heading, map(row, names)) + (
        "\nOf the events whose call had returned; *wrong* are those that come back with another value. SIGKILL goes "
        f"to the program alone; helpers that it had started got {GRACE_S:g} s to finish, then the documented recovery "
        "was done and the peer's own reader asked. The slow loops ran 12 s, all peers at once. The median run is "
        "shown.\n"
    )


def _life(results: Results) -> str:
    def row(name: str) -> Sequence[str]:
        return (
            _named(name),
            _number(results.median(name, "first", "first_s")),
            _number(results.median(name, "first", "first_cpu_s")),
            _number(results.median(name, "read", "read_s")),
            _number(_find_ms(results, name, "find_first_s")),
            _number(_find_ms(results, name, "find_again_s")),
        )

    names = [name for name in PEERS if any(name in results.peers(column) for column in ("first", "read", "find"))]
    points, trials = results.about["points"], results.about["trials"]
    heading = (
        "",
        "import + first metric, s",
        "CPU s of a life with one metric",
        f"read {points} points, s",
        f"find among {trials} runs, ms",
        "again, ms",
    )
    return _table(heading, map(row, names)) + (
        "\nImport: from starting Python to the return of the first metric's call, over starting Python alone. "
        "Reading and finding: imports paid before, through new handles; *again* by the same handle. Found is an "
        "eighth of the runs, by a parameter's value and a bound of a metric, as a DataFrame; json-lines' first "
        "metric is mostly the harness itself. A dash: there is no way to do it without the peer's server, or no call "
        "for it.\n"
    )


def _wins(results: Results) -> str:
    """Every figure, and who is better in it; of our two, the one that is worse off."""
    rows = []
    for what, ours, figure in _compared(results):
        if (mine := figure(ours)) is not None:
            theirs = sorted(
                (value, name) for name in PEERS if name not in (OURS, STORED) and (value := figure(name)) is not None
            )
            better = ", ".join(f"{name} {number(value)}" for value, name in theirs if value < mine)
            rows.append((what, f"{_named(ours)} {number(mine)}", better or "nobody"))
    return _table(("figure", "ours", "better"), rows) + (
        "\nTo store what is logged, Headrace needs three processes beside the trainer, and the machine's memory pays "
        "for them; peers that write files from the training process need none. Those with a server of their own "
        "(wandb, neptune) were measured offline: what their servers do with the data is not on this page.\n"
    )


def _compared(results: Results) -> Iterator[tuple[str, str, Callable[[str], float | None]]]:
    calls = {"p50_us": "p50, µs", "p99_us": "p99, µs", "p999_us": "p99.9, µs", "max_us": "longest call, µs"}
    for column, title in (("scalars", "scalars"), ("rows", "rows of 50")):
        for key, what in calls.items():
            yield f"{title}: {what}", OURS, partial(results.median, column=column, key=key)
        yield f"{title}: µs a value until durable", STORED, partial(_until_durable_us, results, column=column)
        yield f"{title}: CPU s per 100k", STORED, partial(results.cpu_s, column=column)
        yield f"{title}: peak MiB", STORED, partial(results.median, column=column, key="rss_mib")
        yield f"{title}: B a value", STORED, partial(results.bytes_an_event, column=column)
    yield "import + first metric, s", OURS, partial(results.median, column="first", key="first_s")
    yield "read a series, s", OURS, partial(results.median, column="read", key="read_s")
    yield "find runs, ms", OURS, partial(_find_ms, results, key="find_first_s")
    yield "find runs again, ms", OURS, partial(_find_ms, results, key="find_again_s")


def _ways(results: Results) -> str:
    rows = []
    for name in PEERS:
        if name in results.figures:
            peer = peer_class(name)
            rows.append((_named(name), peer.way, peer.beyond or NONE))
    return _table(("", "how", "what it does that Headrace does not"), rows)


# -- Cells ---------------------------------------------------------------------------------------------------------------


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heading)} |", "|" + "|".join("---" for _ in heading) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _named(name: str) -> str:
    return {OURS: "**headrace**", STORED: "**headrace, stored**"}.get(name, name)


def _number(value: float | None) -> str:
    return NONE if value is None else number(value)


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{number(share * 100)} %"


def _find_ms(results: Results, name: str, key: str) -> float | None:
    seconds = results.median(name, "find", key)
    return None if seconds is None else seconds * 1000


def _until_durable_us(results: Results, name: str, column: str) -> float | None:
    durable_s, events = results.median(name, column, "durable_s"), results.median(name, column, "events")
    return durable_s / events * 1e6 if durable_s is not None and events else None


def _rate(column: str) -> str:
    return f"at {KILLS[column]:g}/s" if KILLS[column] else "at full speed"
