"""Not responding: running, and nothing heard of the node for a minute. Read off, never stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from headrace.command.main import invoke
from headrace.reading import StoredExperiment, StoredProject
from headrace_proto.errors import InvalidValue
from headrace_proto.store import layout
from headrace_proto.store.backend import Store
from headrace_proto.store.signs import NOT_RESPONDING, SILENT_AFTER, NodeSigns, Signs, read_signs, write_signs
from tests.sdk.reading.stored import PROJECT, Stored

LONG_AGO = datetime.now(UTC) - 10 * SILENT_AFTER


def now() -> datetime:
    """Not when this file was imported: many tests may lie in between."""
    return datetime.now(UTC)


def sign(store: Store, **heard: tuple[datetime, list[Stored]]) -> None:
    """Write down when each node was heard, and of which experiments."""
    nodes = [
        NodeSigns(site="local", node=node, host="gpu", heard_at=at, experiments=tuple(one.id for one in experiments))
        for node, (at, experiments) in heard.items()
    ]
    write_signs(store, Signs(nodes=tuple(nodes)))


def opened(stored: Stored) -> StoredExperiment:
    return StoredProject(stored.store, PROJECT).get_experiment(stored.id)


def test_an_experiment_whose_node_is_silent_does_not_respond(files: Store) -> None:
    """It is running all the same, for that is what the store knows."""
    heard, silent = Stored(files), Stored(files)
    sign(files, one=(now(), [heard]), two=(LONG_AGO, [silent]))
    assert (opened(heard).state, opened(heard).responding) == ("running", True)
    assert (opened(silent).state, opened(silent).responding) == ("running", False)


def test_the_latest_word_counts_from_whichever_node_or_event(files: Store) -> None:
    """A run that moved to another node, and one whose event was stored after the last sign, respond."""
    moved, logging = Stored(files), Stored(files)
    logging.owner.point("loss", 1, 0.5, time_ns=int(now().timestamp() * 1e9))
    logging.commit()
    sign(files, one=(LONG_AGO, [moved, logging]), two=(now(), [moved]))
    assert opened(moved).responding
    assert opened(logging).responding


def test_who_has_ended_or_was_never_vouched_for_is_not_called_silent(files: Store) -> None:
    """An end needs no sign of life, and `direct=True` has no agent that could give one."""
    ended, direct = Stored(files), Stored(files)
    ended.close()
    sign(files, one=(LONG_AGO, [ended]))
    assert opened(ended).responding
    assert opened(direct).responding


def test_lists_can_be_asked_for_those_that_do_not_respond(files: Store) -> None:
    """Alone, or with other states; they are among those that are running, too."""
    heard, silent, failed = Stored(files), Stored(files), Stored(files)
    failed.close("failed", "diverged")
    sign(files, one=(now(), [heard]), two=(LONG_AGO, [silent, failed]))
    project = StoredProject(files, PROJECT)

    def those(*states: str) -> set[str]:
        return {experiment.internal_id for experiment in project.get_experiments(state=states)}

    assert those(NOT_RESPONDING) == {silent.id}
    assert those(NOT_RESPONDING, "failed") == {silent.id, failed.id}
    assert those("running") == {heard.id, silent.id}
    assert list(project.get_leaderboard(state=NOT_RESPONDING)["id"]) == [opened(silent).id]
    with pytest.raises(InvalidValue, match=r"none of .*not responding"):
        those("silent")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 99}', b'{"format": 1, "nodes": 3}'])
def test_signs_that_cannot_be_read_make_nobody_silent(files: Store, content: bytes) -> None:
    """A damaged file, or a later release's, is no reason to alarm anybody; lists are read without it."""
    stored = Stored(files)
    files.put(layout.SIGNS_FILE, content)
    assert opened(stored).responding
    assert not StoredProject(files, PROJECT).get_experiments(state=NOT_RESPONDING)


def test_a_store_without_signs_has_none(files: Store) -> None:
    """As one that no agent has shipped to yet."""
    assert read_signs(files) == Signs()
    assert opened(Stored(files)).responding


def test_a_minute_is_a_minute(files: Store) -> None:
    """The limit itself still responds."""
    from headrace_proto.store.signs import is_silent

    at = now()
    assert not is_silent(at, None, at + SILENT_AFTER)
    assert is_silent(at, None, at + SILENT_AFTER + timedelta(microseconds=1))
    assert not is_silent(at, at + SILENT_AFTER, at + 2 * SILENT_AFTER)
    assert not is_silent(None, LONG_AGO, at)


def test_people_are_shown_who_does_not_respond(files: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """`ls` in its column, `show` in its head; with `--json` as a field, beside the state that the store has."""
    silent = Stored(files, name="lonely")
    sign(files, two=(LONG_AGO, [silent]))
    assert invoke(["ls", PROJECT, "--store", files.url]) == 0
    assert NOT_RESPONDING in capsys.readouterr().out
    assert invoke(["show", silent.id, "--store", files.url]) == 0
    assert f"{NOT_RESPONDING} (running)" in capsys.readouterr().out
    assert invoke(["ls", PROJECT, "--store", files.url, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["state"], row["responding"]) == ("running", False)
    assert invoke(["ls", PROJECT, "--store", files.url, "--state", NOT_RESPONDING, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
