"""What this process has not logged itself: the store is asked, and where it cannot tell the call is logged, and says so."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

import headrace as hr
from headrace.errors import ArtifactNotFound, ChannelNotFound, InvalidName, InvalidValue, StaleRead
from headrace_proto.events import Kind
from headrace_proto.home import Home
from tests.quiet import QUIET
from tests.sdk.journals import journal_of

Create = Callable[..., hr.Experiment]
Direct = Callable[..., hr.Experiment]


@pytest.fixture
def direct(home: Home, store: str) -> hr.Experiment:
    """A live experiment whose store answers at once."""
    project = hr.init("vision/digits", home=home.root, store=store, direct=True)
    return project.create_experiment(**QUIET)


def test_an_unknown_channel_is_not_reset(direct: hr.Experiment) -> None:
    """Neptune's ChannelDoesNotExist, where the store can say so; it names the channel."""
    direct.log_metric("loss", 0.5)
    with pytest.raises(ChannelNotFound, match="'los'"):
        direct.reset_log("los")
    assert journal_of(direct).of(Kind.RESET) == []


def test_a_channel_of_another_process_is_reset(direct: hr.Experiment, home: Home) -> None:
    """The store knows it; and one that this process has reset before it may reset again."""
    other = hr.attach(direct.internal_id, label="other")
    other.log_metric("theirs", 0.5)
    other.save()
    direct.reset_log("theirs")
    other.reset_log("theirs")
    other.reset_log("theirs")
    assert journal_of(direct).of(Kind.RESET) == [["theirs"]]
    assert direct.get_channel("theirs")["value"].tolist() == []


def test_where_nobody_can_tell_a_reset_is_logged(experiment: hr.Experiment) -> None:
    """Without an agent training does not wait for an answer: it is warned, and the channel is reset if there is one."""
    with pytest.warns(StaleRead, match="'theirs'"):
        experiment.reset_log("theirs")
    assert journal_of(experiment).of(Kind.RESET) == [["theirs"]]


def test_an_unknown_artifact_is_not_deleted(direct: hr.Experiment) -> None:
    """The documented FileNotFound, with what there is; nothing of the call is done."""
    direct.log_artifact(io.BytesIO(b"a"), "model.bin")
    for wrong in ("other.bin", ["model.bin", "other.bin"], "model"):
        with pytest.raises(ArtifactNotFound, match=r"no file .*there is: model\.bin"):
            direct.delete_artifacts(wrong)
    assert journal_of(direct).of(Kind.UNLINK) == []
    assert list(direct.stored().artifacts) == ["model.bin"]


def test_artifacts_of_another_process_are_deleted(direct: hr.Experiment) -> None:
    """A file, and all files of a folder, by what the store has of them."""
    other = hr.attach(direct.internal_id, label="other")
    for name in ("a.bin", "folder/b.bin", "folder/deep/c.bin", "kept.bin"):
        other.log_artifact(io.BytesIO(b"x"), name)
    other.save()
    direct.delete_artifacts(["a.bin", "folder"])
    assert list(direct.stored().artifacts) == ["kept.bin"]


def test_where_nobody_can_tell_a_deletion_is_logged(experiment: hr.Experiment) -> None:
    """As a reset is."""
    with pytest.warns(StaleRead, match=r"'theirs\.bin'"):
        experiment.delete_artifacts("theirs.bin")
    assert journal_of(experiment).of(Kind.UNLINK) == [[["theirs.bin"]]]


@pytest.mark.parametrize("path", ["", "/", ".", "..", "../a", "/etc", [""], [3]], ids=repr)
def test_deleting_never_means_everything_or_anything_else(direct: hr.Experiment, path: object) -> None:
    """An empty path is a variable that was forgotten."""
    direct.log_artifact(io.BytesIO(b"a"), "model.bin")
    with pytest.raises(InvalidName):
        direct.delete_artifacts(path)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue):
        direct.delete_artifacts(None)  # type: ignore[arg-type]
    assert list(direct.stored().artifacts) == ["model.bin"]


def test_refresh_takes_up_what_others_have_said(direct: hr.Experiment) -> None:
    """Another process's parameters and channels, and a curator's tags; what this process said is among it."""
    direct.log_parameter("ours", 1)
    direct.append_tag("ours")
    direct.log_metric("loss", 0.5)
    other = hr.attach(direct.internal_id, label="other")
    other.log_parameter("theirs", 2)
    other.log_metric("acc", 0.9)
    other.log_text("notes", "x" * 300)
    other.save()
    direct.save()
    stored = direct.stored()
    stored.append_tag("edited")
    stored.set_property("reviewed", True)
    stored.remove_tag("ours")
    assert (direct.tags, direct.params) == (["ours"], {"ours": 1})
    direct.refresh()
    assert (direct.tags, direct.params, direct.properties) == (
        ["edited"],
        {"ours": 1, "theirs": 2},
        {"reviewed": "True"},
    )
    assert direct.get_logs() == {"loss": 0.5, "acc": 0.9, "notes": "x" * 255}
    direct.log_metric("loss", 0.25)
    direct.reset_log("acc")
    assert direct.get_logs() == {"loss": 0.25, "notes": "x" * 255}


def test_refresh_keeps_what_is_fixed(home: Home, store: str) -> None:
    """A parameter of the creation is fixed for an attached process, too, once it knows of it."""
    project = hr.init("vision/digits", home=home.root, store=store, direct=True)
    begun = project.create_experiment(params={"lr": 0.1}, upload_source_files=[], git_info=False)
    begun.stop()
    joined = project.attach(begun.internal_id)
    joined.refresh()
    with pytest.raises(InvalidValue, match="fixed at creation"):
        joined.log_parameter("lr", 0.2)


def test_refresh_changes_nothing_where_nobody_can_tell(experiment: hr.Experiment) -> None:
    """It warns, and what this process knows stays."""
    experiment.append_tag("ours")
    with pytest.warns(StaleRead, match="not known here"):
        experiment.refresh()
    assert experiment.tags == ["ours"]
