"""A clock that is set: order is by position, what was said last holds, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import headrace as hr
from headrace.live import handle, series, stamps
from headrace_proto.home import Home
from headrace_proto.store.backend import open_store
from headrace_proto.store.chain import Chain

YEAR_NS = 365 * 24 * 3600 * 10**9


@pytest.fixture
def project(home: Home, store: str) -> hr.Project:
    """A project in direct mode: what is logged is stored by the same commits as a collector's."""
    return hr.init("vision/digits", home=home.root, store=store, direct=True)


# -- Fault 6: order is by position; the last word holds; every point is there ----------------------------------------


@pytest.mark.parametrize("jump_ns", [-YEAR_NS, YEAR_NS])
def test_after_the_clock_was_set_by_a_year_the_last_word_holds_and_every_point_is_there(
    create: Callable[..., hr.Experiment], monkeypatch: pytest.MonkeyPatch, jump_ns: int
) -> None:
    """Points before and after the jump are stored once, automatic steps go on counting, and what was set after it is what is read,
    also when the clock is set right again."""
    experiment = create(name="mlp")
    shifts_ns = [0]

    def clock() -> int:
        return time.time_ns() + shifts_ns[-1]

    for module in (handle, series, stamps):
        monkeypatch.setattr(module, "time_ns", clock)
    for n, shift_ns in enumerate((0, jump_ns, 0)):
        shifts_ns.append(shift_ns)
        experiment.set_property("phase", f"{n}")
        experiment.log_metric("loss", n, float(n))
        experiment.log_metric("auto", float(n))
        experiment.append_tag(f"t{n}")
        assert experiment.save().reached
    experiment.remove_tag("t1")
    experiment.reset_log("auto")
    experiment.stop()
    origin = experiment.origin
    chain = Chain(open_store(origin.store, writable=False), origin.project, experiment.internal_id).load()
    assert chain.document.properties == {"phase": "2"}
    assert set(chain.document.tags) == {"t0", "t2"}
    points = chain.read("numeric").to_pandas().astype({"channel": str})
    assert sorted(points[points.channel == "loss"].value) == [0.0, 1.0, 2.0]
    assert list(points[points.channel == "auto"].step) == [0.0, 1.0, 2.0]
