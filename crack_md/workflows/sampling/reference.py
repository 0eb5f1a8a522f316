"""Reference frames of one molecule, and a model's energies and forces of them.

rMD17 has two sets of labels. Its frames were sampled with MD17's own potential, whose
energies and forces are the `old` ones; only a model trained on these can be expected to
sample alike. With the `recomputed` labels the virial temperature is negative.

The splits of rMD17 share frames, and lie in no order. Frames are known by their place
in MD17's trajectory (`old_indices`), by which they are sorted and told apart; in other
files the order is that of the file, and frames with equal positions are one.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import (
    BaseCalculator,
    CalculationFailed,
    PropertyNotImplementedError,
)
from jaxtyping import Float, Int

from crack_md.calculators.batched import calculate_each
from crack_md.data.prepare.rmd17_files import LabelSet, Molecule, find_molecules
from crack_md.errors import ConfigError, CrackError, DataError
from crack_md.workflows.sampling.temperature import Temperature, virial_temperature

MIN_FRAMES = 16


@dataclass(frozen=True)
class ReferenceFrames:
    """Frames of one molecule in vacuum, in the order of time.

    Raises:
        DataError: too few frames, or numbers that are not finite.
    """

    where: str
    """What the user named, for messages and records."""
    numbers: Int[np.ndarray, " atom"]
    positions: Float[np.ndarray, "frame atom 3"]
    """Å."""
    energies: Float[np.ndarray, " frame"] | None = None
    """eV."""
    forces: Float[np.ndarray, "frame atom 3"] | None = None
    """eV/Å."""
    temperature_K: float | None = None
    temperature_source: str = ""
    labels: str = ""
    """Which labels, where a file has several."""
    n_duplicates: int = 0
    """Frames that were left out because they are there already."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a reference."""
        if len(self) < MIN_FRAMES:
            raise DataError(
                f"{self.where} has {len(self)} frames of its own; a distribution needs "
                f"{MIN_FRAMES} at the very least"
            )
        for name in ("positions", "energies", "forces"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise DataError(f"{self.where} has {name} that are not finite numbers")

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.positions)

    @property
    def known_temperature(self) -> float:
        """Return the temperature in K, which must be known by now.

        Raises:
            ConfigError: it is not.
        """
        if self.temperature_K is None or not self.temperature_K > 0:
            raise ConfigError(
                f"{self.where} does not say at which temperature it was sampled; give "
                "--temperature, in K"
            )
        return self.temperature_K

    @property
    def sha256(self) -> str:
        """Return the fingerprint of all frames and labels."""
        digest = hashlib.sha256(np.asarray(self.numbers, dtype="<i8").tobytes())
        for values in (self.positions, self.energies, self.forces):
            if values is not None:
                digest.update(np.asarray(values, dtype="<f8").tobytes())
        return digest.hexdigest()

    def select(self, frames: slice | Int[np.ndarray, " chosen"]) -> "ReferenceFrames":
        """Return some of the frames, with everything else as it is."""
        return replace(
            self,
            positions=self.positions[frames],
            energies=None if self.energies is None else self.energies[frames],
            forces=None if self.forces is None else self.forces[frames],
        )

    def thin(self, most: int) -> "ReferenceFrames":
        """Return at most ``most`` frames, evenly spread over time."""
        if len(self) <= most:
            return self
        return self.select(np.linspace(0, len(self) - 1, most).round().astype(np.int64))


KCAL_PER_MOL = units.kcal / units.mol
MD17_THERMOSTAT_K = 500.0


def md17_temperature(n_atoms: int) -> float:
    """Return the temperature in K at which MD17 was sampled: 500 K · 3N/(3N − 6).

    The thermostat held the kinetic energy of 3N degrees of freedom at 500 K, but the
    molecule neither moved nor turned as a whole, so that all of it was in 3N − 6. The
    frames agree: bonds of ethanol show 650 ± 14 K where this gives 643, those of
    aspirin 549 ± 10 K where it gives 553 (see `temperature`).
    """
    return MD17_THERMOSTAT_K * 3 * n_atoms / (3 * n_atoms - 6)


def read_reference(
    path: Path,
    *,
    temperature_K: float | None = None,
    labels: LabelSet = "old",
    molecule: str | None = None,
) -> ReferenceFrames:
    """Return the frames of a file, or of all rMD17 files in a folder.

    Args:
        path: what to read.
        temperature_K: replaces what the file says.
        labels: which labels of rMD17.
        molecule: which one, in a folder with several.

    Raises:
        DataError: the file cannot be read, or is not of one molecule in vacuum.
    """
    if not path.exists():
        raise DataError(
            f"no such file: '{path}'; expected frames as rMD17's npz, an ASE database, "
            "extxyz or a trajectory"
        )
    is_npz = path.is_dir() or path.name.endswith((".npz", ".tar", ".bz2", ".gz"))
    found = _rmd17(path, labels, molecule) if is_npz else _structures(path)
    if temperature_K is None:
        return found
    return replace(found, temperature_K=temperature_K, temperature_source="as given")


def _rmd17(path: Path, labels: LabelSet, name: str | None) -> ReferenceFrames:
    # every file is named one by one: the splits of a folder are read together
    named = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    parts = find_molecules(
        named or [path], labels, name=name, index_folder=None, number=1
    )
    _require_same_atoms(path, [part.numbers.tolist() for part in parts])
    rows: dict[int, tuple[Molecule, int]] = {}
    for part in parts:
        for place, index in enumerate(part.indices):
            rows.setdefault(int(index), (part, place))
    ordered = [rows[index] for index in sorted(rows)]
    numbers = parts[0].numbers.astype(np.int64)
    n_found = sum(len(part.indices) for part in parts)
    return ReferenceFrames(
        where=str(path),
        numbers=numbers,
        positions=np.array([p.positions[i] for p, i in ordered], dtype=np.float64),
        energies=np.array([p.energies[i] for p, i in ordered]) * KCAL_PER_MOL,
        forces=np.array([p.forces[i] for p, i in ordered]) * KCAL_PER_MOL,
        labels=f"rMD17, {labels}",
        n_duplicates=n_found - len(ordered),
        **_md17(len(numbers)),
    )


def _md17(n_atoms: int) -> dict[str, Any]:
    return {
        "temperature_K": md17_temperature(n_atoms),
        "temperature_source": "MD17: 500 K · 3N/(3N−6)",
    }


def _structures(path: Path) -> ReferenceFrames:
    # the readers of datasets load PyTorch with the models
    from crack_md.data.dataset import read_metadata
    from crack_md.data.readers import read_structures

    frames = list(read_structures(path))
    _require_same_atoms(path, [frame.numbers.tolist() for frame in frames])
    if any(frame.pbc.any() for frame in frames):
        raise DataError(
            f"{path} is periodic; the sampling check is made for one molecule in "
            "vacuum (virial and torsions have no meaning otherwise): set pbc to False "
            "if the cell is a box around a molecule"
        )
    indices = [frame.info.get("old_index") for frame in frames]
    if all(index is not None for index in indices):
        unique = {
            int(i): f for i, f in zip(indices, frames, strict=True) if i is not None
        }
        kept = [unique[index] for index in sorted(unique)]
    else:
        kept = list({frame.positions.tobytes(): frame for frame in frames}.values())
    metadata = read_metadata(path)
    return ReferenceFrames(
        where=str(path),
        numbers=kept[0].numbers.astype(np.int64),
        positions=np.array([frame.positions for frame in kept]),
        energies=_property(kept, "energy"),
        forces=_property(kept, "forces"),
        labels=" ".join(str(metadata.get(key, "")) for key in ("dataset", "labels")),
        n_duplicates=len(frames) - len(kept),
        **_stated_temperature(frames, metadata),
    )


def _stated_temperature(
    frames: Sequence[Atoms], metadata: dict[str, Any]
) -> dict[str, Any]:
    """Return what the file says of its temperature, in its metadata or its frames."""
    if metadata.get("dataset") == "rMD17":
        return _md17(len(frames[0]))
    said = {frame.info.get("temperature_K") for frame in frames}
    said.add(metadata.get("temperature_K"))
    values = {float(value) for value in said if value is not None}
    if len(values) > 1:
        several = ", ".join(f"{value:g} K" for value in sorted(values))
        raise DataError(
            f"the frames are of several temperatures ({several}); compare one at a time"
        )
    if not values:
        return {}
    return {"temperature_K": values.pop(), "temperature_source": "the file"}


def _property(frames: Sequence[Atoms], name: str) -> Any:
    """Return energies or forces of all frames, or None where one has none."""
    try:
        values = [frame.calc.results[name] for frame in frames if frame.calc]
    except (KeyError, PropertyNotImplementedError):
        return None
    return np.array(values, dtype=np.float64) if len(values) == len(frames) else None


def _require_same_atoms(path: Path, all_numbers: Sequence[list[int]]) -> None:
    if any(numbers != all_numbers[0] for numbers in all_numbers):
        raise DataError(
            f"{path} has frames of several molecules, or with atoms in another order; "
            "expected the same atoms throughout"
        )


Positions = Float[np.ndarray, "copy atom 3"]
CHUNK = 64


@dataclass(frozen=True)
class Evaluated:
    """Energies in eV and forces in eV/Å; NaN where there are none."""

    energies: Float[np.ndarray, " copy"]
    forces: Positions
    errors: dict[int, CrackError | CalculationFailed]
    """Why there are none, by copy."""


class MoleculePotential:
    """A calculator and the molecule it is asked about.

    A calculator with a method ``calculate_many(structures, properties)``, which returns
    for every structure its results or an error, is asked for all copies at once; any
    other for one after the other.

    Args:
        numbers: atomic numbers.
        calculator: any ASE calculator.
    """

    def __init__(
        self, numbers: Int[np.ndarray, " atom"], calculator: BaseCalculator
    ) -> None:
        self.numbers = numbers
        self.calculator = calculator

    @property
    def forces_kind(self) -> Literal["gradient", "direct"]:
        """Return whether forces are the gradient of the energy.

        Calculators other than ours do not say; they count as gradients.
        """
        return getattr(self.calculator, "forces_kind", "gradient")

    def evaluate(self, positions: Positions) -> Evaluated:
        """Return energies and forces of all copies, with the errors of those that fail.

        Raises:
            Exception: what the calculator raises that is not about one structure.
        """
        copies = [Atoms(self.numbers, frame) for frame in positions]
        energies, forces = np.full(len(copies), np.nan), np.full_like(positions, np.nan)
        errors: dict[int, CrackError | CalculationFailed] = {}
        answers = calculate_each(copies, self.calculator, ("energy", "forces"))
        for place, answer in enumerate(answers):
            if isinstance(answer, CrackError | CalculationFailed):
                errors[place] = answer
            elif isinstance(answer, Exception):
                raise answer
            else:
                energies[place], forces[place] = answer["energy"], answer["forces"]
        return Evaluated(energies, forces, errors)

    def evaluate_all(
        self, positions: Positions, *, report: Callable[[int], None] | None = None
    ) -> Evaluated:
        """Return energies and forces of many frames, none of which may fail.

        Args:
            positions: Å.
            report: called with the number of frames done.

        Raises:
            CrackError: a frame failed.
        """
        parts = []
        for start in range(0, len(positions), CHUNK):
            part = self.evaluate(positions[start : start + CHUNK])
            for error in part.errors.values():
                raise error
            parts.append(part)
            if report is not None:
                report(min(start + CHUNK, len(positions)))
        return Evaluated(
            np.concatenate([part.energies for part in parts]),
            np.concatenate([part.forces for part in parts]),
            {},
        )


@dataclass(frozen=True)
class OnReference:
    """The model on frames of the reference, energies on the reference's scale."""

    energies: Float[np.ndarray, " frame"]
    """eV; the median difference from the reference's energies is taken off."""
    offset: float
    """eV: this difference."""
    energy_mae: float | None
    """eV, after that; None where the reference has no energies."""
    force_mae: float | None
    """eV/Å per component; None where the reference has no forces."""
    virial: Temperature
    """Virial temperature of these frames with the model's forces."""


def evaluate_reference(
    frames: ReferenceFrames,
    potential: MoleculePotential,
    *,
    report: Callable[[int], None] | None = None,
) -> OnReference:
    """Return what a model says about frames of the reference.

    Raises:
        CrackError: it cannot be applied to one of them.
    """
    found = potential.evaluate_all(frames.positions, report=report)
    offset, energy_mae, force_mae = 0.0, None, None
    if frames.energies is not None:
        difference = found.energies - frames.energies
        offset = float(np.median(difference))
        energy_mae = float(np.abs(difference - offset).mean())
    if frames.forces is not None:
        force_mae = float(np.abs(found.forces - frames.forces).mean())
    virial = virial_temperature(frames.positions, found.forces)
    return OnReference(found.energies - offset, offset, energy_mae, force_mae, virial)
