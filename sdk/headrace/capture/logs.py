"""The records of a `logging.Logger`, as texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.capture.lines import pieces

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger, LogRecord


def capture_logger(logger: Logger, log: Callable[[str], None]) -> Callable[[], None]:
    """Log every record that `logger` handles from now on. The function that is returned ends it."""
    from logging import Handler

    class Sink(Handler):
        """Hands on what its formatter makes of a record. A failure is `logging`'s to report, as any handler's."""

        def emit(self, record: LogRecord) -> None:
            try:
                for piece in pieces(self.format(record)):
                    log(piece)
            except Exception:  # see the class
                self.handleError(record)

    sink = Sink()
    logger.addHandler(sink)

    def release() -> None:
        logger.removeHandler(sink)
        sink.close()

    return release
