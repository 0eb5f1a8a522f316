"""`crack-md prepare oc20`: Open Catalyst 2020 as it is published, into a dataset."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from crack_md.data.dataset import FORMAT_VERSION
from crack_md.data.prepare.oc20_choice import OC20Choice, Selection
from crack_md.data.prepare.oc20_files import FrameEntry, FrameFile, find_files
from crack_md.data.prepare.splits import splits_path, write_splits
from crack_md.data.prepare.summary import summarize
from crack_md.data.readers import count_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError, DataError

CHUNK = 256
"""Rows per write, at least; a kill loses what was read since the last."""


@dataclass(frozen=True)
class OC20Counts:
    """What became of the frames."""

    frames: dict[str, int]
    """Written, by split."""
    systems: dict[str, int]
    left_out: dict[str, int]


def prepare_oc20(
    sources: Sequence[Path],
    out: Path,
    choice: OC20Choice,
    *,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
    tell: Callable[[str], None] = lambda line: None,
) -> OC20Counts:
    """Write OC20 frames with energies, forces, tags and splits to a dataset.

    Called again with the same arguments it continues where it was stopped.

    Args:
        sources: Folders, archives and files of the download.
        out: `.aselmdb`, `.db` or `.extxyz`; the list of splits goes beside it.
        choice: Which frames.
        overwrite: Replace an existing file.
        report: Called with files done and all files.
        tell: Called with a line for every file that is left out.

    Raises:
        DataError: A file is damaged or nothing is left; the message names the line.
    """
    files = find_files(sources)
    job = _job(sources, choice, n_files=len(files))
    writer = RowWriter(out, job=job, overwrite=overwrite)
    selection = Selection(choice, counts=writer.notes)
    rows: list[Atoms] = []
    for done, file in enumerate(files[writer.done :], start=writer.done + 1):
        rows += _rows_of(file, selection, tell)
        if len(rows) >= CHUNK or done == len(files):
            writer.append(rows, done=done, notes=selection.counts)
            rows = []
        report(done, len(files))
    if not count_structures([writer.partial]):
        writer.discard()
        raise selection.nothing_left(out)
    return _finish(writer, choice, job, selection.counts)


def _rows_of(
    file: FrameFile, selection: Selection, tell: Callable[[str], None]
) -> list[Atoms]:
    before = dict(selection.counts)
    try:
        rows = [selection.row(entry) for entry in _chosen(file, selection)]
    except DataError as error:
        if not selection.choice.skip_broken:
            raise
        tell(f"left out: {error}")
        selection.counts |= before | {"broken": before["broken"] + 1}
        return []
    return [row for row in rows if row is not None]


def _chosen(file: FrameFile, selection: Selection) -> Iterator[FrameEntry]:
    if selection.choice.frames == "last" and not file.is_relaxation:
        raise ConfigError(
            f"{file.where} holds frames of many systems in random order, which have no "
            "last one; take --frames all, or a download of relaxations"
        )
    if file.is_relaxation and not selection.wants(file.system):
        return
    frames = file.frames()
    if selection.choice.frames == "last":
        frames = iter(deque(frames, maxlen=1))
    for entry in frames:
        if file.is_relaxation or selection.wants(entry.system):
            yield entry


def _job(
    sources: Sequence[Path], choice: OC20Choice, *, n_files: int
) -> dict[str, Any]:
    """Return what decides the rows, in plain containers."""
    options = asdict(choice)
    options["mapping"] = None if choice.mapping is None else choice.mapping.name
    if choice.splits.listed is not None:
        listed = repr(sorted(choice.splits.listed.items()))
        digest = hashlib.sha256(listed.encode()).hexdigest()
        options["splits"]["listed"] = digest[:16]
    return {
        "sources": [str(path) for path in sources],
        "n_files": n_files,
        **options,
    }


def _finish(
    writer: RowWriter, choice: OC20Choice, job: dict[str, Any], counts: dict[str, int]
) -> OC20Counts:
    summary = summarize(writer.partial)
    written = OC20Counts(dict(summary.frames), dict(summary.systems), counts)
    writer.finish(
        {
            "format_version": FORMAT_VERSION,
            "energy_reference": choice.reference,
            "gas_references": {},
            "fingerprint": summary.fingerprint,
            **asdict(written),
            **job,
            "sources": [Path(source).name for source in job["sources"]],
            "dataset": "Open Catalyst 2020 (OC20)",
            "licence": "CC-BY-4.0",
            "citation": "Chanussot et al., ACS Catal. 2021, arXiv:2010.09990",
        }
    )
    write_splits(splits_path(writer.path), summary.splits)
    return written
