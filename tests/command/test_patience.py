"""What waits, and for how long: pauses between restarts, and the drain's patience."""

from __future__ import annotations

import headrace as hr
from headrace.command.child import CALM_S, PAUSE_S_FIRST, PAUSE_S_MAX, Pauses
from headrace.command.console import err
from headrace.command.drain import Watch, drain
from headrace_proto.home import Home


def test_pauses_double_up_to_a_limit_and_begin_anew_after_calm() -> None:
    """A part that dies at once is restarted ever more slowly; one that had recovered is restarted soon."""
    pauses = Pauses()
    taken = [pauses.after_death(0.0) for _ in range(10)]
    assert taken[:3] == [PAUSE_S_FIRST, 2 * PAUSE_S_FIRST, 4 * PAUSE_S_FIRST]
    assert taken[-1] == PAUSE_S_MAX
    assert pauses.after_death(CALM_S) == PAUSE_S_FIRST


def logged(home: Home) -> None:
    with hr.init("work/waiting", home=home.root).create_experiment(
        upload_source_files=[], upload_stdout=False, upload_stderr=False
    ) as experiment:
        experiment.log_metric("loss", 0, 1.0)


def test_drain_gives_up_when_nothing_more_is_stored(home: Home) -> None:
    """With nobody storing, the drain ends after its patience and says so."""
    watch = Watch(home)
    logged(home)
    assert not drain(watch, err(), patience_s=0.05, hopeless=lambda: False)
    assert [one.project for one in watch.experiments] == ["work/waiting"]


def test_drain_does_not_wait_without_hope(home: Home) -> None:
    """When it is known that nobody will store, the drain ends at once, whatever its patience."""
    watch = Watch(home)
    logged(home)
    assert not drain(watch, err(), patience_s=3600.0, hopeless=lambda: True)


def test_drain_looks_only_at_what_is_new(home: Home) -> None:
    """What lay in the home before is somebody else's: it is neither waited for nor shown."""
    logged(home)
    watch = Watch(home)
    assert drain(watch, err(), patience_s=3600.0, hopeless=lambda: False)
    assert watch.experiments == []
