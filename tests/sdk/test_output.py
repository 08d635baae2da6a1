"""Captured output: what a program prints is kept line by line, and the program notices nothing."""

from __future__ import annotations

import copy
import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.capture import streams
from headrace.capture.lines import LineCutter, pieces
from headrace.capture.streams import CapturedStream, capture
from headrace_proto.limits import INLINE_BYTES_MAX
from tests.processes import in_threads
from tests.sdk.journals import journal_of

Create = Callable[..., hr.Experiment]


class Terminal(io.StringIO):
    """A stream with the manners of a terminal."""

    encoding = "latin-1"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Puts a terminal in the place of stdout (within the test: pytest changes the streams between its phases)."""

    def place() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return place


def cut(*texts: str, apart_s: float = 0.0) -> list[str]:
    """The lines of texts that were written one after another."""
    cutter = LineCutter()
    lines = [line for index, text in enumerate(texts) for line in cutter.feed(text, index * apart_s)]
    return lines + cutter.flush()


# -- Lines ---------------------------------------------------------------------------------------------------------------


def test_lines_end_with_newlines() -> None:
    """In whatever portions they are written; the last one needs none."""
    assert cut("a\nb", "c\n", "\n", "d") == ["a", "bc", "", "d"]
    assert cut("a\r\nb\r", "\nc\r\n") == ["a", "b", "c"]
    assert cut("") == []


def test_of_a_progress_bar_its_end_is_kept_and_one_state_a_second() -> None:
    """A hundred states in no time are one line and the last."""
    states = [f"\r{percent}%" for percent in range(100)]
    assert cut(*states, "\r100%\n", "done\n") == ["0%", "100%", "done"]
    assert cut(*states[:10], apart_s=0.5) == ["0%", "2%", "4%", "6%", "8%", "9%"]


def test_a_bar_that_is_wiped_leaves_nothing_blank() -> None:
    """As tqdm does with `leave=False`."""
    assert cut("\r50%", "\r   \r", "next\n") == ["50%", "next"]


@given(st.lists(st.text(alphabet="ab\n", max_size=20)))
def test_without_carriage_returns_no_character_is_lost(texts: list[str]) -> None:
    """What was written is what was kept, however it was cut into portions."""
    whole = "".join(texts)
    expected = whole.split("\n")
    assert cut(*texts) == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.text(alphabet="a\r\n", max_size=12)))
def test_a_line_never_holds_a_control_of_lines(texts: list[str]) -> None:
    """Whatever is written."""
    assert not any("\n" in line or "\r" in line for line in cut(*texts))


@pytest.mark.parametrize("character", ["x", "é", "𝄞"])
def test_a_long_line_is_cut_between_characters(character: str) -> None:
    """Into pieces that fit an event, without waiting for its end."""
    line = character * (2 * INLINE_BYTES_MAX)
    assert "".join(pieces(line)) == "".join(cut(line)) == line
    assert all(len(piece.encode()) <= INLINE_BYTES_MAX for piece in [*pieces(line), *cut(line, "\n")])
    cutter = LineCutter()
    for _ in range(10):
        cutter.feed(line, 0.0)
        assert cutter._held <= INLINE_BYTES_MAX


# -- Streams -------------------------------------------------------------------------------------------------------------


def test_prints_are_passed_on_and_logged(create: Create, terminal: Callable[[], Terminal]) -> None:
    """Line by line, the unfinished last one at the end."""
    screen = terminal()
    experiment = create(upload_stdout=True)
    print("epoch", 1)
    print("loss 0.5", end="")
    sys.stdout.writelines([", acc 0.9\n", "bye"])
    experiment.stop()
    assert screen.getvalue() == "epoch 1\nloss 0.5, acc 0.9\nbye"
    assert journal_of(experiment).texts("stdout") == ["epoch 1", "loss 0.5, acc 0.9", "bye"]


def test_the_stream_is_itself_in_everything_else(create: Create, terminal: Callable[[], Terminal]) -> None:
    """Its manners are the terminal's, and it is the terminal again afterwards."""
    screen = terminal()
    experiment = create(upload_stdout=True)
    assert sys.stdout.isatty()
    assert (sys.stdout.fileno(), sys.stdout.encoding) == (1, "latin-1")
    assert sys.stdout.write("four") == 4
    with pytest.raises(AttributeError):
        getattr(sys.stdout, "no_such_thing")  # noqa: B009
    experiment.stop()
    assert sys.stdout is screen


def test_stderr_is_a_channel_of_its_own(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither is captured when it is not wanted."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    experiment = create(upload_stderr=True)
    print("careful", file=sys.stderr)
    print("not this")
    experiment.stop()
    assert [(point.channel, point.value) for point in journal_of(experiment).points()] == [("stderr", "careful")]


def test_two_experiments_capture_the_same_stream(create: Create, terminal: Callable[[], Terminal]) -> None:
    """Each as long as it lives, in whatever order they end, and nothing of ours stays behind."""
    screen = terminal()
    first, second = create(upload_stdout=True), create(upload_stdout=True)
    print("both")
    first.stop()
    print("second")
    second.stop()
    print("neither")
    assert journal_of(first).texts("stdout") == ["both"]
    assert journal_of(second).texts("stdout") == ["both", "second"]
    assert sys.stdout is screen


def test_a_stream_that_somebody_else_wraps_keeps_working(create: Create, terminal: Callable[[], Terminal]) -> None:
    """What wraps ours is not torn out; ours only passes through from then on."""
    screen = terminal()
    experiment = create(upload_stdout=True)

    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.write = inner.write
            self.flush = inner.flush

    wrapper: Any = Wrapper(sys.stdout)
    sys.stdout = wrapper
    print("wrapped")
    experiment.stop()
    print("later")
    assert sys.stdout is wrapper
    assert screen.getvalue() == "wrapped\nlater\n"
    assert journal_of(experiment).texts("stdout") == ["wrapped"]


def test_a_program_without_streams_has_nothing_captured(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon's stdout is None."""
    monkeypatch.setattr(sys, "stdout", None)
    create(upload_stdout=True).stop()
    assert sys.stdout is None


def test_threads_do_not_mix_their_lines(terminal: Callable[[], Terminal]) -> None:
    """What each thread writes is cut on its own."""
    terminal()
    lines: list[str] = []
    release = capture("stdout", lines.append)
    together = threading.Barrier(4)

    def talk(number: int) -> None:
        together.wait()
        for index in range(100):
            for part in (f"{number}", ":", f"{index}", "\n"):
                sys.stdout.write(part)

    in_threads(4, talk)
    release()
    assert sorted(lines) == sorted(f"{number}:{index}" for number in range(4) for index in range(100))


def test_a_sink_that_fails_never_fails_a_print(terminal: Callable[[], Terminal]) -> None:
    """Nor does one that prints at every line go on for ever, or lose the line."""
    terminal()

    def failing(line: str) -> None:
        raise RuntimeError(line)

    printed: list[str] = []

    def printing(line: str) -> None:
        printed.append(line)
        print("again")

    releases = [capture("stdout", failing), capture("stdout", printing)]
    print("hello")
    assert printed[0] == "hello"
    assert len(printed) <= streams._REENTRANT_MAX + 1
    for release in releases:
        release()


def test_a_forked_child_does_not_end_its_parents_line(terminal: Callable[[], Terminal]) -> None:
    """What was begun before the fork is logged once, by the parent."""
    terminal()
    lines: list[str] = []
    release = capture("stdout", lines.append)
    print("begun", end="")
    stream: Any = sys.stdout
    [sink] = stream.sinks
    child = os.fork()
    if child == 0:
        os._exit(1 if sink._writers else 0)
    _, status = os.waitpid(child, 0)
    print(" and ended")
    release()
    assert os.waitstatus_to_exitcode(status) == 0
    assert lines == ["begun and ended"]


def test_bytes_that_are_no_text_are_logged_all_the_same(create: Create, terminal: Callable[[], Terminal]) -> None:
    """A file name with lone surrogates is printed by Python's own rules, and kept with question marks."""
    terminal()
    experiment = create(upload_stdout=True)
    print("file-\udcff")
    experiment.stop()
    assert journal_of(experiment).texts("stdout") == ["file-?"]


def test_a_long_line_is_several_points(create: Create, terminal: Callable[[], Terminal]) -> None:
    """Each of which fits its event."""
    terminal()
    experiment = create(upload_stdout=True)
    print("x" * (INLINE_BYTES_MAX + 1))
    experiment.stop()
    assert [len(text) for text in journal_of(experiment).texts("stdout")] == [INLINE_BYTES_MAX, 1]


def test_a_loggers_records_are_a_channel(create: Create) -> None:
    """As its formatter writes them, until the experiment ends; the logger's other handlers see them as before."""
    logger = logging.getLogger("test_output")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    experiment = create(logger=logger)
    logger.info("epoch %d", 1)
    logger.debug("not this")
    experiment.stop()
    logger.info("nor this")
    assert journal_of(experiment).texts("logger") == ["epoch 1"]
    assert logger.handlers == []


def test_a_captured_stream_cannot_be_copied_any_more_than_the_stream(terminal: Callable[[], Terminal]) -> None:
    """A library that deep-copies its handlers gets the stream's own answer, not an endless loop."""
    screen = terminal()
    release = capture("stdout", lambda line: None)
    copied = copy.copy(sys.stdout)
    assert copied.write("hello") == 5
    release()
    assert screen.getvalue() == "hello"


def test_printing_after_the_end_is_only_printing(create: Create, terminal: Callable[[], Terminal]) -> None:
    """A stream that was captured, and is held by others, stays usable."""
    screen = terminal()
    experiment = create(upload_stdout=True)
    held = sys.stdout
    assert isinstance(held, CapturedStream)
    experiment.stop()
    print("later", file=held)
    assert screen.getvalue() == "later\n"
