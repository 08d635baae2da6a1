"""Moving in: what other trackers have exported becomes experiments of a store.

An export is read as if each of its runs had been a program with a journal: `journal` writes the events that it would have
written, always the same bytes for the same export, and `arrival` stores them through the same chain of commits as everything else.
So an import that was killed goes on from the run's watermark, and one that is run again finds everything below it.
"""
