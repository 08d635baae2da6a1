"""One experiment: its commits, what the newest one names, `experiment.json`, and what lies beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from headrace_proto.errors import Corrupt, FormatUnknown
from headrace_proto.store import layout
from headrace_proto.store.backend import Store
from headrace_proto.store.catalog import CatalogRow, row_of
from headrace_proto.store.chain import Chain
from headrace_proto.store.claims import claim_owner
from headrace_proto.store.commits import Commit
from headrace_proto.store.documents import PublicDocument
from headrace_proto.store.inspection.commits import inspect_commits
from headrace_proto.store.inspection.content import Content
from headrace_proto.store.inspection.findings import FRESH_S, Depth, Finding, Options, error, note, warning
from headrace_proto.store.publishing import DocumentFile, public_document
from headrace_proto.store.records import parse
from headrace_proto.store.sweeping import find_orphans, sweep
from headrace_proto.store.times import us_of

LOOKS_MAX: Final = 3
"""Looks at one experiment, whose parts others may merge and sweep meanwhile."""


class Inspected(NamedTuple):
    """What is to be said of one experiment, and what its project needs to know of it."""

    experiment: str
    findings: tuple[Finding, ...]
    row: CatalogRow | None = None
    """As the newest commit says; None if there is no commit that can be read."""
    fresh: bool = False
    """Whether that commit is so young that lists may not show it yet."""


def inspect_experiment(
    store: Store, project: str, experiment: str, store_id: str | None, options: Options
) -> Inspected:
    """Look at one experiment, and put right what `options` ask for. Safe beside writers, mergers and sweepers."""
    chain = Chain(store, project, experiment)
    for look in range(LOOKS_MAX):
        try:
            number = chain.load().number
        except (Corrupt, FormatUnknown) as bad:
            remedy = "restore it from a copy of the store, or use the release that wrote it"
            return Inspected(experiment, (error(layout.commits_folder(project, experiment), str(bad), remedy),))
        head = chain.head
        findings = list(inspect_commits(chain, store_id, all_of_them=options.depth is not Depth.FAST))
        content = Content(chain, head, options.depth) if head and not head.blank else None
        findings += content.inspect() if content else ()
        if not (content and content.missing) or look == LOOKS_MAX - 1 or chain.load().number == number:
            break
    head = chain.head
    if head and not head.blank:
        findings += _document(chain, head, options)
        findings += _claim(store, project, head)
    findings += _leftovers(chain, options)
    row = row_of(head) if head and not head.blank else None
    return Inspected(experiment, tuple(findings), row, head is not None and _is_fresh(head, options))


def _is_fresh(head: Commit, options: Options) -> bool:
    return options.now_ns - us_of(head.written_at) * 1000 < FRESH_S * 1e9


class _Fault(NamedTuple):
    """What is wrong with an `experiment.json`."""

    says: str
    behind: bool = False
    """Whether it only lags."""


def _document(chain: Chain, head: Commit, options: Options) -> Iterator[Finding]:
    """`experiment.json` shows the newest commit: at the end of a run at once; while it runs, in a remote store, later."""
    path = layout.document_file(*chain.place)
    remedy = "headrace fsck --repair writes it from the newest commit"
    for _ in range(LOOKS_MAX):
        fault = _fault(chain.store, path, head)
        if fault is None or (fault.behind and _is_fresh(head, options)):
            return
        newest = chain.load().head or head
        if fault.behind or newest.number == head.number:
            break
        head = newest  # a commit was made since the look at the head, and the document is of that
    else:
        return  # its writer is faster than we look
    running = fault.behind and head.document.state == "running"
    finding = (warning if running else error)(path, fault.says, remedy)
    if options.repair:
        if not fault.behind:  # what cannot be read, or is of commits that are not there, is nothing to be compared with
            chain.store.delete([path])
        newest = chain.load().head or head
        DocumentFile(chain.store, path).refresh(newest, options.now_ns, anyway=True)
        finding = finding._replace(mended=_fault(chain.store, path, newest) is None)
    yield finding


def _fault(store: Store, path: str, head: Commit) -> _Fault | None:
    try:
        shown = parse(PublicDocument, store.read(path), path)
    except FileNotFoundError:
        return _Fault("it is missing")
    except (Corrupt, FormatUnknown) as bad:
        return _Fault(f"it cannot be read: {bad}")
    if shown.commit > head.number:
        return _Fault(f"it shows commit {shown.commit}, and the newest is {head.number}")
    if shown.commit < head.number:
        return _Fault(f"it shows commit {shown.commit}, not {head.number}", behind=True)
    if shown.model_dump_json() != public_document(head).model_dump_json():
        return _Fault(f"it says something else than commit {head.number}")
    return None


def _claim(store: Store, project: str, head: Commit) -> Iterator[Finding]:
    """The number of the experiment is claimed for it."""
    number = head.document.id.rpartition("-")[2]
    if not number.isdecimal() or int(number) < 1:
        yield error(layout.claims_folder(project), f"{head.document.id!r} is no number of an experiment", "report it")
        return
    path = layout.claim_file(project, int(number))
    try:
        owner = claim_owner(store, path)
    except FileNotFoundError:
        says = f"nobody has claimed {head.document.id}, the number of {head.document.internal_id}: another may get it"
        yield error(path, says, f'create it with {{"format": 1, "owner": "{head.document.internal_id}", ...}}')
        return
    except (Corrupt, FormatUnknown) as bad:
        yield error(path, str(bad), "restore it from a copy of the store")
        return
    if owner != head.document.internal_id:
        says = f"{head.document.id} is claimed by {owner}, and {head.document.internal_id} bears it"
        yield error(path, says, "two experiments have one number: refer to them by their internal ids")


def _leftovers(chain: Chain, options: Options) -> Iterator[Finding]:
    """What no commit names: on its way, or left behind by whoever was killed."""
    try:
        orphans = find_orphans(chain, now_ns=options.now_ns, grace_s=options.grace_s)
    except (FileNotFoundError, Corrupt, FormatUnknown):
        return  # parts that cannot be read are told of already; what they name cannot be told from leftovers
    old = [orphan for orphan in orphans if orphan.old]
    young = [orphan for orphan in orphans if not orphan.old]
    if young:
        size = sum(orphan.bytes for orphan in young)
        yield note(
            chain.folder, f"{len(young)} files of {size} bytes that no commit names, yet: they may be on their way"
        )
    if not old:
        return
    says = (
        f"{len(old)} files of {sum(orphan.bytes for orphan in old)} bytes that no commit names, such as {old[0].path}"
    )
    finding = warning(chain.folder, says, "headrace fsck --repair removes them; collectors do, too, in time")
    if options.repair:
        swept = sweep(chain, now_ns=options.now_ns, grace_s=options.grace_s)
        finding = finding._replace(mended={orphan.path for orphan in old} <= set(swept.paths))
    yield finding
