"""`headrace ls`, `show` and `plot` over a store of three experiments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.command.main import invoke
from headrace.command.show import _why
from headrace_proto.store.documents import ExperimentDocument, SourceRecord

PROJECT = "vision/digits"
Said = Callable[..., str]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with two finished experiments of a project, and one failed of another, written without any other process."""
    folder = tmp_path_factory.mktemp("filled")
    model = folder / "model.npz"
    np.savez(model, weights=np.ones(3))
    for number, rate in enumerate((0.1, 0.01)):
        with _project(folder, PROJECT).create_experiment(
            name=f"mlp [{number}]",
            key=f"night-{number}",
            params={"lr": rate},
            tags=["baseline", f"n{number}"],
            properties={"kind": "mlp"},
        ) as experiment:
            for step in range(50):
                experiment.log_metric("loss", step, rate / (step + 1))
            experiment.log_metric("odd", 0, float("nan"))
            experiment.log_text("notes", "one\ntwo")
            experiment.log_artifact(str(model), "model.npz")
    failed = _project(folder, "vision/faces").create_experiment(name="broken [red]")
    failed.set_property("said", "\x1b[31mred[/]")
    failed.stop("the loss is not finite: list[int] [/]")
    return str(folder / "store")


def _project(folder: Path, name: str) -> hr.Project:
    return hr.init(name, home=str(folder / "home"), store=str(folder / "store"), direct=True)


def test_ls_lists_projects(said: Said, filled: str) -> None:
    """Without a project each project is a line, with its key and how many experiments it has."""
    assert json.loads(said("ls", "--store", filled, "--json")) == [
        {"name": "vision/digits", "key": "DIG", "experiments": 2},
        {"name": "vision/faces", "key": "FAC", "experiments": 1},
    ]
    assert "vision/digits" in said("ls", "--store", filled)


def test_ls_lists_experiments_with_their_last_values(said: Said, filled: str) -> None:
    """With a project each experiment is a line: id, name as it was given, state, tags, last values."""
    lines = [line for line in said("ls", PROJECT, "--store", filled).splitlines() if "DIG-" in line]
    assert len(lines) == 2
    for words in ("DIG-1", "mlp [0]", "succeeded", "baseline, n0", "0.002"):
        assert words in lines[0]


def test_ls_says_when_it_selects_nothing(said: Said, filled: str) -> None:
    """No experiment in a state is a sentence instead of an empty table."""
    assert said("ls", PROJECT, "--store", filled, "--state", "failed").strip() == f"no such experiments in {PROJECT}"


def test_ls_refuses_to_sort_by_no_metric(filled: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A misspelt metric is named, with those that there are, instead of a list in some other order."""
    assert invoke(["ls", PROJECT, "--store", filled, "--sort=-los"]) == 2
    assert "--sort='-los' names no metric of these experiments; they have loss, odd" in capfd.readouterr().err


def test_ls_selects_and_sorts(said: Said, filled: str) -> None:
    """--state and --tag select, --sort orders by a metric, `-` before its name from high to low."""

    def ids(*flags: str) -> list[str]:
        return [row["id"] for row in json.loads(said("ls", PROJECT, "--store", filled, "--json", *flags))]

    assert ids("--sort", "loss") == ["DIG-2", "DIG-1"]
    assert ids("--sort=-loss") == ["DIG-1", "DIG-2"]
    assert ids("--tag", "baseline", "--tag", "n1") == ["DIG-2"]
    assert ids("--state", "failed") == []


def test_ls_shows_the_newest(filled: str, capfd: pytest.CaptureFixture[str]) -> None:
    """--limit keeps the last ones, or the first of a sorted list, and says how many are left out; 0 is all of them."""

    def shown(*flags: str) -> tuple[list[str], str]:
        assert invoke(["ls", PROJECT, "--store", filled, *flags]) == 0
        text, beside = capfd.readouterr()
        return [name for name in ("DIG-1", "DIG-2") if name in text], beside.partition(":")[0]

    assert shown("--limit", "1") == (["DIG-2"], "not shown, 1 older")
    assert shown("--sort=loss", "--limit", "1") == (["DIG-2"], "not shown, 1 more")
    assert shown("--sort=-loss", "--limit", "1") == (["DIG-1"], "not shown, 1 more")
    for flags in ((), ("--limit", "0"), ("--limit", "7", "--sort", "loss")):
        assert shown(*flags) == (["DIG-1", "DIG-2"], "")


def test_ls_needs_no_pandas(filled: str) -> None:
    """Arrow would load it for nothing: a list is shown without, and what makes DataFrames afterwards finds it."""
    program = (
        "import sys; from headrace.command.main import invoke; import pyarrow; "
        f"code = invoke(['ls', {PROJECT!r}, '--store', {filled!r}]); "
        "print(code, 'pandas' in sys.modules, len(pyarrow.array([1, 2]).to_pandas()), 'pandas' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "0 False 2 True"


def test_json_is_strict(said: Said, filled: str) -> None:
    """A NaN is null: every JSON reader takes what we print."""
    text = said("ls", PROJECT, "--store", filled, "--json")
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert rows[0]["metrics"]["odd"] is None


def test_show_shows_everything(said: Said, filled: str) -> None:
    """Parameters, properties, tags, channels, files and sources of an experiment are on its page."""
    text = said("show", "DIG-1", "--store", filled)
    for words in ("mlp [0]", "lr = 0.1", "kind = mlp", "baseline", "loss", "numeric", "one⏎two", "model.npz", "owner"):
        assert words in text


def test_show_finds_any_id_in_any_project(said: Said, filled: str) -> None:
    """The short id, the internal id, the beginning of that and the key mean the same experiment, wherever it is."""
    internal = json.loads(said("show", "FAC-1", "--store", filled, "--json"))["internal_id"]
    for wanted in (internal, internal[:12]):
        assert json.loads(said("show", wanted, "--store", filled, "--json"))["id"] == "FAC-1"
    assert json.loads(said("show", "night-1", "--store", filled, "--json"))["id"] == "DIG-2"
    assert (
        json.loads(said("show", "FAC-1", "--store", filled, "--json", "--project", "vision/faces"))["state"] == "failed"
    )


def test_show_says_why_it_failed(said: Said, filled: str) -> None:
    """A failed experiment's page says near its top what made it fail, and ends with all of it."""
    lines = said("show", "FAC-1", "--store", filled).splitlines()
    told = [number for number, line in enumerate(lines) if "the loss is not finite: list[int] [/]" in line]
    assert len(told) == 2
    assert told[0] < 5


def test_show_says_near_the_top_that_it_was_killed() -> None:
    """Of a program that ended without a word: which process, where, and when it was last heard."""
    sources = {
        "a" * 32: SourceRecord(role="owner", state="dead", pid=12, host="node-3"),
        "b" * 32: SourceRecord(role="worker", state="dead", pid=13, host="node-3"),
    }
    document = ExperimentDocument(internal_id="e" * 32, project=PROJECT, state="failed", sources=sources)
    assert _why(document).startswith("process 12 on node-3 (owner) ended without a word")
    assert "13" not in _why(document)


def test_a_store_that_is_not_there_is_no_empty_one(refused: Said, filled: str) -> None:
    """A folder that does not exist is told as such, by each command that reads."""
    for command in (["ls"], ["show", "DIG-1"], ["fsck"]):
        assert "there is no store" in refused(*command, "--store", f"{filled}-absent")


def test_texts_of_others_are_printed_as_they_are(said: Said, filled: str) -> None:
    """Markup in a name is shown, not obeyed, and control sequences never reach the terminal."""
    text = said("show", "FAC-1", "--store", filled)
    assert "broken [red]" in text
    assert "said = �[31mred[/]" in text
    assert "broken [red]" in said("ls", "vision/faces", "--store", filled)


def test_plot_draws_curves(said: Said, filled: str) -> None:
    """Curves of several experiments are drawn with a legend, in the size asked for, without colors where there is no terminal."""
    text = said("plot", "DIG-1,DIG-2", "loss", "--store", filled, "--width", "60", "--height", "12", "--log")
    assert "DIG-1 loss" in text
    assert "DIG-2 loss" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 12


def test_plot_gives_all_points_as_json(said: Said, filled: str) -> None:
    """--json has every point of every curve."""
    curves = json.loads(said("plot", "DIG-1,DIG-2", "loss", "--store", filled, "--json"))
    assert [curve["label"] for curve in curves] == ["DIG-1 loss", "DIG-2 loss"]
    assert curves[1]["steps"] == list(range(50))
    assert curves[1]["values"][1] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "DIG-99"), "no experiment 'DIG-99'"),
        (("show", "DIG-1", "--project", "vision/faces"), "no experiment 'DIG-1'"),
        (("ls", "vision/none"), "there is: vision/digits, vision/faces"),
        (("ls", "digits"), "must be 'workspace/name'"),
        (("plot", "DIG-1", "lss"), "lss"),
        (("plot", "DIG-1", "odd"), "no finite values"),
    ],
)
def test_mistakes_are_one_line(
    refused: Callable[..., str], filled: str, arguments: tuple[str, ...], words: str
) -> None:
    """What is not there is named, with what there is instead, in one line and without a traceback."""
    assert words in refused(*arguments, "--store", filled)


def test_unknown_store_is_one_line(refused: Callable[..., str]) -> None:
    """A store's protocol that nobody knows is named."""
    assert "nowhere" in refused("ls", "--store", "nowhere://bucket")


def test_empty_store_is_no_mistake(said: Said, store: str) -> None:
    """A store without projects lists none."""
    Path(store).mkdir()
    assert json.loads(said("ls", "--store", store, "--json")) == []
    assert "no projects" in said("ls", "--store", store)
