"""Every limit of the formats, each with its reason. Changing one that is marked FORMAT needs a new format version."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- Events -------------------------------------------------------------------------------------------------------------

EVENT_BYTES_MAX: Final = 128 * KIB
"""One event, encoded. Twice INLINE_BYTES_MAX: an inline payload with its names always fits, and a segment holds several."""

INLINE_BYTES_MAX: Final = 64 * KIB
"""A payload (image, text, artifact) up to this size travels inside its event; a larger one becomes a file in the spool, so
that a batch is never mostly one event."""

ROW_VALUES_MAX: Final = 8_000
"""Values in one row. FORMAT: a row's `bin 16` holds 65,535 bytes, that is 8,191 doubles."""

SCHEMAS_MAX: Final = 64
"""Row schemas a source may define. A dict whose names change at every call would define one each; past this it is logged as
points instead."""

CHANNELS_MAX: Final = 10_000
"""Channels a source may define: its table is part of every commit of its experiment (about 40 bytes a channel)."""

BATCH_EVENTS_MAX: Final = 64 * KIB
"""Events in one batch besides points and rows, each of which becomes an object of its own: 700 KiB of the smallest that we write
are 55,000."""

COMMIT_EVENTS_MAX: Final = 16 * KIB
"""Events besides points and rows that one commit takes up: each is up to 1.6 KB of objects until it stands in a table, and two
experiments are stored at once. What is beyond becomes a further commit, so that many small batches weigh no more than one."""

IMAGE_BYTES_MAX: Final = 15 * MIB
"""Of one image's file, Neptune's limit: whoever draws larger ones means an artifact."""

TEXT_CHARACTERS_SHOWN: Final = 255
"""Of a text channel's last value, in documents, lists and leaderboards: Neptune's leaderboard cuts it there."""

SOURCES_BYTES_TOLD: Final = 100 * MIB
"""Of a run's source files, Neptune's limit: whoever keeps more is told, and told again after each such amount: all of it is
copied."""

# -- Journal ------------------------------------------------------------------------------------------------------------

HEADER_BYTES: Final = 8 * KIB
"""A segment's header. FORMAT: 4 KiB of facts, then 4 KiB of check offsets."""

CHECK_BYTES: Final = 4 * KIB
"""Events between two check events: the unit in which damage is set aside. crc32 of 4 KiB costs 0.7 us, 6 ns a point."""

CHECKS_MAX: Final = 1_024
"""Check offsets in a segment's header. FORMAT: 4 KiB of u32."""

SEGMENT_BYTES_FIRST: Final = 1 * MIB
"""A source's first segment: most sources are short, and 1,000 of them should not reserve 4 GiB."""

SEGMENT_BYTES: Final = 4 * MIB
"""Later segments. At 16 MiB unmapping a used one stalls a call for 0.8 ms, at 4 MiB for 0.34 ms."""

SEGMENT_RESERVE: Final = 512
"""Kept free in a segment after each event, for a check, a gap report and the closing record."""

PREFAULT_BYTES: Final = 64 * KIB
"""Pages made present ahead of the writer at a time: page faults were the tail of the call (p99.9 3.6 us without)."""

TRACEBACK_BYTES_MAX: Final = 16 * KIB
"""Of a traceback kept with a failed experiment, the last part."""

# -- Frames and streams -------------------------------------------------------------------------------------------------

FRAME_BYTES_MAX: Final = 768 * KIB
"""A whole frame: a broker with the default `max_payload` of 1 MiB takes it."""

FRAME_HEADER_MAX: Final = 4 * KIB
"""A frame's header; bounded before it is decoded."""

BATCH_RAW_MAX: Final = 700 * KIB
"""Raw bytes of events in one batch. Below FRAME_BYTES_MAX even when zstd cannot shrink them (its worst case adds 0.4 %)."""

BATCH_RAW_TARGET: Final = 512 * KIB
"""Raw bytes at which a batch is cut: about 200 KiB compressed, where publishing was fastest (256 KiB: 875 MB/s, 4 in
flight; 1 MiB: 416)."""

CHUNK_BYTES: Final = 512 * KIB
"""Of a file, in one frame: stays under FRAME_BYTES_MAX uncompressed."""

PIECE_BYTES: Final = 8 * MIB
"""Chunks of a file gathered into one object of the store: few enough objects, and what one file may hold in memory."""

TOKENS: Final = 256
"""FORMAT: the experiments' hash tokens, crc32(experiment) & 255. Never configured; a partition is a set of tokens."""

# -- Store --------------------------------------------------------------------------------------------------------------

PARTS_MAX: Final = 64
"""Live parts of one kind in a commit: compaction is geometric, so that a commit's size stays bounded."""

INLINE_CLOSED_MAX: Final = 64
"""Closed sources listed in a commit itself; beyond, they move to an immutable side file that the commit names."""

INLINE_ARTIFACTS_MAX: Final = 512
"""Artifacts listed in a commit itself; beyond, likewise."""

RETENTION_S: Final = 3600.0
"""A commit, and what it names, stays at least this long after it was replaced. A writer that took more than half of it from a look
at the newest commit to its own cannot know whether its number was free because nobody had taken it, or because it was removed
again: its commit counts as lost."""

COMMITS_KEPT: Final = 16
"""Commits that stay however old they are, the newest included."""

SWEEP_COMMITS: Final = 1024
"""Commits of a running experiment from one sweep to the next. A sweep's own commit and listings are then a hundredth of what the
commits cost, and a folder of parts is listed in a few pages."""

SWEEP_GRACE_S: Final = 15 * 60.0
"""Age of a file that no commit names before it is removed. A courtesy to whoever is just writing: what keeps it safe is that the
sweep takes the number of the commit that it was written for."""

ROW_GROUP_POINTS: Final = 64 * 1024
"""A channel with at least this many points in a part has a row group of its own, so that reading one reads only it."""

# -- An experiment, whatever its sources say ------------------------------------------------------------------------------
# All of this is part of every commit: without bounds one hostile source could make each of them as large as it likes. What is
# beyond is refused with a reason in the document's notes; points are kept all the same.

EXPERIMENT_CHANNELS_MAX: Final = 20_000
"""Channels of an experiment, twice what one source may define: about 400 bytes of a commit each. Points of further ones are kept
in one channel, `unnamed/beyond`."""

EXPERIMENT_WORDS_MAX: Final = 200_000
"""Runs of numbers in all sources' tables: a source that counts its channels as ours do needs a handful."""

EXPERIMENT_SOURCES_MAX: Final = 10_000
"""Sources of an experiment: twenty processes of data loading that start anew, and log, for each of 500 epochs."""

EXPERIMENT_FILES_MAX: Final = 25_000
"""Artifacts of an experiment, and as many source files: each is about 350 bytes of the side file."""

EXPERIMENT_PENDING_MAX: Final = 25_000
"""Spooled files of an experiment whose events are stored and whose bytes are not: about 400 bytes of a commit each."""

REGISTERS_MAX: Final = 10_000
"""Parameters of an experiment, and as many properties, tags, facts and hidden channels."""

REGISTER_BYTES_MAX: Final = 4 * MIB
"""Of all their names and values together."""

FACT_BYTES_MAX: Final = 64 * KIB
"""One fact: a description, say. (A parameter or property: `names.PROPERTY_BYTES_MAX`.)"""

SOURCE_TEXT_MAX: Final = 255
"""Characters of a source's label, host or user."""

TRACEBACKS_BYTES_MAX: Final = 1 * MIB
"""Of all sources' last words together; beyond it each keeps SOURCE_TEXT_MAX characters."""

LOST_RANGES_MAX: Final = 1_000
"""Neighbouring lost ranges of a source that are kept apart by their reasons; beyond it they become one."""

FILE_RUNS_MAX: Final = 1_000
"""Holes in the numbers of a source's finished files. Ours finish nearly in order; beyond it the smallest hole is closed."""

ASIDE_MAX: Final = 64
"""Events that one commit keeps in quarantine one by one; all others of a source go there together."""

# -- Files --------------------------------------------------------------------------------------------------------------

COPY_BYTES_MAX: Final = 1024 * MIB
"""Default of HEADRACE_COPY_MAX: a logged file up to this size is copied into the spool (256 MB took 57 ms); a larger one is
hard-linked, with a warning, where the file system cannot clone it."""
