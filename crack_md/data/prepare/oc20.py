"""`crack-md prepare oc20`: Open Catalyst 2020 as it is published, into a dataset."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.formula import Formula

from crack_md.data.dataset import FORMAT_VERSION, free_atoms
from crack_md.data.prepare.oc20_files import (
    FrameEntry,
    FrameFile,
    SystemInfo,
    find_files,
    parse_frame,
    read_mapping,
)
from crack_md.data.prepare.splits import SplitPlan, splits_path, summarize, write_splits
from crack_md.data.readers import count_structures
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError, DataError
from crack_md.models.force_field import EnergyReference

FrameChoice = Literal["all", "last"]
RELAXED_FMAX = 0.05
"""eV/Å; frames without larger forces on free atoms are called relaxed."""
ADSORBATE_TAG = 2
LEFT_OUT = {
    "adsorbate": "of another adsorbate",
    "anomaly": "anomalous",
    "unknown": "not in the mapping",
    "unlisted": "not in the list of splits",
    "force": "with larger forces",
    "broken": "files that cannot be read",
}
"""Why frames were not taken. A relaxation that is left out as a whole counts once."""


@dataclass(frozen=True)
class OC20Choice:
    """Which frames are taken, and what their energies are."""

    mapping: Path | None = None
    """`oc20_data_mapping.pkl`."""
    adsorbate: str | None = None
    """Such as "*O"; without a mapping found by the composition of tagged atoms."""
    normal_only: bool = False
    """Leave out systems that the mapping calls anomalous."""
    frames: FrameChoice = "all"
    reference: EnergyReference = "adsorption"
    largest_force: float = 50.0
    """eV/Å on a free atom; frames beyond it are left out."""
    splits: SplitPlan = field(default_factory=SplitPlan)
    skip_broken: bool = False
    """Leave out files that cannot be read, and tell."""

    def __post_init__(self) -> None:
        """Refuse choices that contradict each other."""
        if self.normal_only and self.mapping is None:
            raise ConfigError(
                "--normal-only asks OC20's mapping what is normal; give it with "
                "--mapping oc20_data_mapping.pkl"
            )
        if self.adsorbate is not None and not self.composition:
            raise ConfigError(
                f"--adsorbate '{self.adsorbate}' is no adsorbate; expected for "
                "example '*O' or '*CH2OH'"
            )

    @cached_property
    def composition(self) -> dict[str, int]:
        """Return the atoms of the adsorbate, none where it cannot be read."""
        try:
            text = (self.adsorbate or "").replace("*", "")
            return Formula(text, strict=True).count()
        except ValueError:
            return {}


class RowSelection:
    """Turns frames into rows, or counts why not."""

    def __init__(self, choice: OC20Choice, *, counts: dict[str, int]) -> None:
        self.choice = choice
        self.counts = {reason: counts.get(reason, 0) for reason in LEFT_OUT}
        self._known: dict[str, SystemInfo] | None = None
        self._adsorbates: dict[str, int] = {}
        if choice.mapping is not None:
            self._known, self._adsorbates = read_mapping(choice.mapping)

    def wants(self, system: str) -> bool:
        """Return whether frames of a system are taken, as far as its name tells."""
        if self.choice.splits.split_of(system) is None:
            return self._leave_out("unlisted")
        if self._known is None:
            return True
        info = self._known.get(system)
        if info is None:
            return self._leave_out("unknown")
        if self.choice.adsorbate not in (None, info.adsorbate):
            return self._leave_out("adsorbate")
        if self.choice.normal_only and info.anomaly:
            return self._leave_out("anomaly")
        return True

    def row(self, entry: FrameEntry) -> Atoms | None:
        """Return the dataset row of a frame, None if it is left out."""
        atoms = parse_frame(entry.raw)
        if not self._has_adsorbate(atoms):
            self._leave_out("adsorbate")
            return None
        energy = atoms.get_potential_energy()
        forces = atoms.get_forces(apply_constraint=False)
        free = free_atoms(atoms)
        largest = np.linalg.norm(forces[free], axis=1).max(initial=0.0)
        if largest > self.choice.largest_force:
            self._leave_out("force")
            return None
        atoms.info = self._info(entry) | {
            "kind": "relaxed" if largest <= RELAXED_FMAX else "relaxation"
        }
        if self.choice.reference == "adsorption":
            energy -= _reference(entry)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        return atoms

    def nothing_left(self, out: Path) -> DataError:
        """Return the error for a selection that takes nothing."""
        reasons = [f"{n} {LEFT_OUT[why]}" for why, n in self.counts.items() if n]
        seen = sorted(self._adsorbates)
        return DataError(
            f"no frame is left for {out}: {', '.join(reasons) or 'the files are empty'}"
            + (f"; there are the adsorbates {', '.join(seen[:12])}" if seen else "")
            + (" and others" if len(seen) > 12 else "")
        )

    def _leave_out(self, reason: str) -> bool:
        self.counts[reason] += 1
        return False

    def _has_adsorbate(self, atoms: Atoms) -> bool:
        if self.choice.adsorbate is None or self._known is not None:
            return True
        tagged = atoms[atoms.get_tags() == ADSORBATE_TAG]
        found = tagged.symbols.formula.count()
        self._adsorbates[str(tagged.symbols)] = 1
        return bool(found == self.choice.composition)

    def _info(self, entry: FrameEntry) -> dict[str, Any]:
        info: dict[str, Any] = {
            "group": entry.system,
            "split": self.choice.splits.split_of(entry.system),
            "frame": entry.number,
        }
        if entry.reference_eV is not None:
            info["reference_energy_eV"] = entry.reference_eV
        known = None if self._known is None else self._known[entry.system]
        if known is not None:
            info |= {"adsorbate": known.adsorbate, "surface": known.surface}
        elif self.choice.adsorbate is not None:
            info["adsorbate"] = self.choice.adsorbate
        return info


def _reference(entry: FrameEntry) -> float:
    if entry.reference_eV is None:
        raise DataError(
            f"{entry.raw.where}: {entry.system} has no reference energy; expected it "
            "in system.txt, or in the third column beside S2EF frames; take "
            "--reference total for total energies"
        )
    return entry.reference_eV


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
    selection = RowSelection(choice, counts=writer.notes)
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
    file: FrameFile, selection: RowSelection, tell: Callable[[str], None]
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


def _chosen(file: FrameFile, selection: RowSelection) -> Iterator[FrameEntry]:
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
