"""The soft limit: one number that tells the hot path both 'there is room' and 'we are still the process that wrote it'.

It lies in a private page that the kernel hands to a forked child filled with zeros (MADV_WIPEONFORK, Linux 4.14), so in a child
every offset is beyond the limit and the next call takes the slow path, where the fork is noticed. `os.register_at_fork` alone
misses forks made in C. Reading the page costs 9 ns; `os.getpid()` would cost 137.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_MADV_WIPEONFORK: Final = 18  # linux/mman.h; the mmap module does not name it
_PAGE: Final = mmap.PAGESIZE


class SoftLimit:
    """`view[0]` is the file offset from which on an event must take the slow path; 0 in a forked child."""

    __slots__ = ("_page", "view")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # an older kernel: `forks` zeroes the limit, and only forks made in C are missed
            self._page.madvise(_MADV_WIPEONFORK)
        self.view: memoryview = memoryview(self._page).cast("Q")
