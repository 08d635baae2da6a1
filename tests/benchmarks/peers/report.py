"""RESULTS.md, from what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tests.benchmarks.peers.bench import KILLS
from tests.benchmarks.peers.process import GRACE_S
from tests.benchmarks.peers.registry import PEERS, peer_class
from tests.benchmarks.rows import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
        "Everything on this page was measured in one go, each figure in processes of its own, and is the median of "
        f"{max((len(runs) for columns in results.figures.values() for runs in columns.values()), default=0)} runs. "
        "Nothing had a network. Latencies are net of reading the clock. What is not better here is under *Where they "
        "win*.\n\n"
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
        "\nOf the events whose call had returned; *wrong* are those that come back with another value. SIGKILL goes to the "
        f"program alone; helpers that it had started got {GRACE_S:g} s to finish, then the documented recovery was done and the "
        "peer's own reader asked. The slow loops ran 12 s, all peers at once. The median run is shown.\n"
    )


def _life(results: Results) -> str:
    def row(name: str) -> Sequence[str]:
        return (
            _named(name),
            _number(results.median(name, "first", "first_s")),
            _number(results.median(name, "first", "first_cpu_s")),
            _number(results.median(name, "read", "read_s")),
            _number(_ms(results.median(name, "find", "find_first_s"))),
            _number(_ms(results.median(name, "find", "find_again_s"))),
        )

    names = [name for name in PEERS if any(name in results.peers(column) for column in ("first", "read", "find"))]
    heading = (
        "",
        "import + first metric, s",
        "CPU s of a life with one metric",
        "read a 100k series, s",
        "find among 2,000 runs, ms",
        "again, ms",
    )
    return _table(heading, map(row, names)) + (
        "\nImport: from starting Python to the return of the first metric's call, over starting Python alone. "
        "Reading and finding: imports paid before, through new handles; *again* by the same handle. Found are the "
        "250 runs with a parameter's value and a metric below a bound, as a DataFrame. A dash: there is no way to do "
        "it without the peer's server, or no call for it.\n"
    )


def _wins(results: Results) -> str:
    """Every figure in which somebody is better than we are, in the form of ours that is worse off."""
    better: list[Sequence[str]] = []

    def compare(what: str, ours: str, figure: Callable[[str], float | None]) -> None:
        mine = figure(ours)
        if mine is None:
            return
        found = [
            (theirs, name) for name in PEERS if name not in (OURS, STORED) and (theirs := figure(name)) is not None
        ]
        winners = ", ".join(f"{name} {number(theirs)}" for theirs, name in sorted(found) if theirs < mine)
        better.append((what, f"{_named(ours)} {number(mine)}", winners or "nobody"))

    for column, title in (("scalars", "scalars"), ("rows", "rows of 50")):
        for key, unit in (
            ("p50_us", "p50, µs"),
            ("p99_us", "p99, µs"),
            ("p999_us", "p99.9, µs"),
            ("max_us", "longest call, µs"),
        ):
            compare(f"{title}: {unit}", OURS, lambda name, c=column, k=key: results.median(name, c, k))  # type: ignore[misc]
        compare(f"{title}: s until durable, a value", STORED, lambda name, c=column: _each(results, name, c))  # type: ignore[misc]
        compare(f"{title}: CPU s per 100k", STORED, lambda name, c=column: results.cpu_s(name, c))  # type: ignore[misc]
        compare(f"{title}: peak MiB", STORED, lambda name, c=column: results.median(name, c, "rss_mib"))  # type: ignore[misc]
        compare(f"{title}: bytes a value, stored", STORED, lambda name, c=column: results.bytes_an_event(name, c))  # type: ignore[misc]
    compare("import + first metric, s", OURS, lambda name: results.median(name, "first", "first_s"))
    compare("read a 100k series, s", OURS, lambda name: results.median(name, "read", "read_s"))
    compare("find among 2,000 runs, ms", OURS, lambda name: _ms(results.median(name, "find", "find_first_s")))
    compare("the same again, ms", OURS, lambda name: _ms(results.median(name, "find", "find_again_s")))
    return _table(("figure", "ours", "better"), better) + (
        "\nTo store what is logged, Headrace needs three processes beside the trainer, and this machine's memory "
        "pays for them: the peers that write files from the training process need none. Those with a server of their "
        "own (wandb, neptune) were measured offline: what their servers do with the data is not on this page.\n"
    )


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


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _each(results: Results, name: str, column: str) -> float | None:
    durable_s, events = results.median(name, column, "durable_s"), results.median(name, column, "events")
    return durable_s / events if durable_s is not None and events else None


def _rate(column: str) -> str:
    return f"at {KILLS[column]:g}/s" if KILLS[column] else "at full speed"
