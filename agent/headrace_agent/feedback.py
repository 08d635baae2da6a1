"""Hearing: what collectors say to this site, judged and passed to the source or file that it is about.

Everything here came over a network. A message that does not decode, is of another version, or is about a source that this home
does not have, changes nothing; the subject is not believed to say what the message is, only the message itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from headrace_agent.lane import SourceLane
from headrace_agent.marks import Setbacks, StoreBinding, supersedes
from headrace_agent.metrics import Metrics
from headrace_agent.patience import Patience
from headrace_agent.ship import Shipper
from headrace_agent.source import Death, Source
from headrace_agent.tail import Tail
from headrace_agent.ticks import tick
from headrace_agent.uplink import Uplink
from headrace_agent.upload import Uploader
from headrace_proto import subjects
from headrace_proto.messages import FileMark, Mark, Rewind, decode

REWIND_REST_S: Final = 2.0
"""A collector asks once for each batch that it had to drop; all those questions have one answer."""
SILENCE_PERIOD_S: Final = 1.0
log = logging.getLogger(__name__)


class Feedback:
    """Listens to marks and requests."""

    def __init__(
        self,
        binding: StoreBinding,
        tail: Tail,
        shipper: Shipper,
        uploader: Uploader,
        metrics: Metrics,
        on_stored: Callable[[Source], None],
    ) -> None:
        self._binding = binding
        self._tail = tail
        self._shipper = shipper
        self._uploader = uploader
        self._metrics = metrics
        self._on_stored = on_stored
        self._rewound: dict[str, tuple[int, float]] = {}
        self._uplink: Uplink | None = None
        self._links = 0
        self._site = ""
        self._setbacks = Setbacks()
        self._curious: set[str] = set()
        self._impatient: set[str] = set()

    def listen(self, uplink: Uplink, site: str) -> None:
        """Subscribe to what is said to this site."""
        self._uplink, self._site = uplink, site
        uplink.listen(subjects.marks_of_site(site), self.hear_mark)
        uplink.listen(subjects.rewinds(site), self.hear_request)

    # -- Marks -----------------------------------------------------------------------------------------------------------

    def hear_mark(self, _subject: str, data: bytes) -> None:
        """A watermark of a source, or of one of its files."""
        mark = decode(Mark, data)
        if mark is not None:
            self._metrics.marks.labels(self._judge(mark)).inc()
            return
        file_mark = decode(FileMark, data)
        if file_mark is None or not self._binding.believes(file_mark.store):
            self._metrics.marks.labels("not understood" if file_mark is None else "another store").inc()
            return
        self._uploader.marked(file_mark)

    def _judge(self, mark: Mark) -> str:
        lane = self._tail.lanes.get(mark.source)
        if lane is None or lane.source.header.experiment != mark.experiment or mark.position < 0:
            return "no source here"
        if not self._binding.believes(mark.store):
            return "another store"
        source = lane.source
        if source.oldest <= mark.missing < mark.position:  # given up over there, and here it is
            mark = mark._replace(position=mark.missing)
        outcome = "believed"
        if not supersedes(mark, source.mark):
            if source.mark is None or not self._setbacks.believes(mark, source.mark, time.monotonic()):
                return "old"
            outcome = "setback"
        self._setbacks.forget(source.id)
        self._tell_setback(source, mark)
        now_ns = time.monotonic_ns()
        known = source.mark is not None  # else it stored that before this agent was there
        self._shipper.leash.stored((mark.position - source.stored) * known, mark.interval_s, now_ns / 1e9)
        source.marked(mark)
        self._on_stored(source)
        self._shipper.offer(lane, now_ns)
        return outcome

    def _tell_setback(self, source: Source, mark: Mark) -> None:
        if mark.position >= source.stored or mark.position == mark.missing:
            return
        self._metrics.rewinds.labels("store went back").inc()
        log.error(
            "the store went back from %d (commit %d) to %d (commit %d) for source %s: sent again from there; %d bytes that it had "
            "vouched for are deleted here, and become a lost range",
            source.stored,
            source.mark.commit if source.mark else 0,
            mark.position,
            mark.commit,
            source.id,
            max(source.oldest - mark.position, 0),
        )

    # -- Requests --------------------------------------------------------------------------------------------------------

    def hear_request(self, _subject: str, data: bytes) -> None:
        """Somebody needs a source, or a file of one, again."""
        rewind = decode(Rewind, data)
        if rewind is None or rewind.position < 0:
            return
        if rewind.file:
            self._uploader.rewind(rewind)
            return
        lane = self._tail.lanes.get(rewind.source)
        if lane is None or rewind.position > lane.source.window.cut or self._has_just_done(rewind):
            return
        log.info("source %s is sent again from %d, as asked", rewind.source, rewind.position)
        self._metrics.rewinds.labels("asked").inc()
        lane.source.rewind(rewind.position)
        self._shipper.offer(lane, time.monotonic_ns())

    def _has_just_done(self, rewind: Rewind) -> bool:
        now_s = time.monotonic()
        position, done_s = self._rewound.get(rewind.source, (-1, 0.0))
        if position == rewind.position and now_s - done_s < REWIND_REST_S:
            return True
        self._rewound[rewind.source] = (rewind.position, now_s)
        return False

    def forget(self, source: Source) -> None:
        """The source is finished."""
        self._rewound.pop(source.id, None)
        self._setbacks.forget(source.id)

    # -- Silence ---------------------------------------------------------------------------------------------------------

    async def watch_silence(self) -> None:
        """Recall the word, and at last ask the store for it, on what has waited for it too long, until cancelled."""
        while True:
            await tick(SILENCE_PERIOD_S)
            now_s = time.monotonic()
            if self._uplink is not None and self._uplink.links != self._links:
                self._links = self._uplink.links
                self.doubt()
            for subject in self.unheard(now_s):
                if self._uplink is not None:
                    await self._uplink.recall(subject)
            self.look_for_silence(now_s)

    def doubt(self) -> None:
        """The link is a new one: whoever waits for the store's word asks whether the stream still has what it acknowledged.

        Without this, what a broker lost of a source that has nothing more to say would be missed only by `look_for_silence`.
        """
        for lane in self._tail.lanes.values():
            if lane.source.doubt():
                self._metrics.questions.labels("new link").inc()
                self._shipper.offer(lane, time.monotonic_ns())
        for file_lane in self._uploader.lanes.values():
            if file_lane.outstanding:
                file_lane.start_again()

    def unheard(self, now_s: float) -> list[str]:
        """The subjects whose newest mark may have been said while nobody here could hear it."""
        found = [
            subjects.mark(self._site, lane.source.id)
            for lane in self._owed(self._curious, now_s, lambda source: source.curiosity)
        ]
        found += [subjects.mark(self._site, source) for source in self._setbacks.doubtful(now_s)]
        for (source_id, file), file_lane in self._uploader.lanes.items():
            if file_lane.curiosity.exhausted(now_s, file_lane.stored, outstanding=file_lane.outstanding):
                found.append(subjects.mark(self._site, source_id, file))
        return found

    def look_for_silence(self, now_s: float) -> None:
        """The last resort, when neither a request nor the stream's own numbers say that something was lost: ask whether it was.

        One frame without bytes, not all that waits, or an hour's outage of the store would fill the stream with repetitions. If
        something is missing, that frame stands above a gap, and the collector asks for it.
        """
        for lane in self._owed(self._impatient, now_s, lambda source: source.patience):
            if lane.source.doubt():
                log.warning(
                    "no word from the store on source %s beyond %d: asked for", lane.source.id, lane.source.stored
                )
                self._metrics.questions.labels("silence").inc()
                self._shipper.offer(lane, time.monotonic_ns())

    def _owed(self, waiting: set[str], now_s: float, patience: Callable[[Source], Patience]) -> list[SourceLane]:
        """The lanes to which the store has owed a word for too long. `waiting` are those it owed one at the last call: of a
        thousand sources that rest none is."""
        owed = [
            lane
            for lane in self._tail.lanes.values()
            if (lane.source.window.acked > lane.source.stored or lane.source.death is Death.TOLD)
            and lane.source.outstanding
        ]
        late = []
        for lane in owed:
            source = lane.source
            interval_s = source.mark.interval_s if source.mark else 1.0
            begun = source.id in waiting
            if patience(source).exhausted(now_s, source.stored, outstanding=begun, interval_s=interval_s):
                late.append(lane)
        waiting.clear()
        waiting.update(lane.source.id for lane in owed)
        return late
