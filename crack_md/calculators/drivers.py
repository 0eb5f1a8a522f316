"""A model at the service of other programs: what they share, and the driver of i-PI.

i-PI loads this file by its path (`pes_path`), and looks for the two names at its end.
Whatever is wrong with a model, with elements or with a result is an error here: another
program never goes on with forces that are zero or old.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.io
import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float

from crack_md.calculators.batched import Trajectory
from crack_md.calculators.crack import CrackCalculator
from crack_md.errors import ConfigError, MissingDependencyError, StructureError
from crack_md.models.force_field import ForceField
from crack_md.neighbors import AllNeighbors, StrictNeighbors


class Answer(NamedTuple):
    """What another program adds to its own sums."""

    energy: float
    """eV."""
    forces: Float[np.ndarray, "atom 3"]
    """eV/Å."""
    virial: Float[np.ndarray, "3 3"]
    """−∂E/∂strain in eV: minus the stress times the volume."""


def check_sum_over_atoms(model: ForceField, host: str) -> None:
    """Refuse models that are more than energies of atoms inside a cutoff.

    Raises:
        ConfigError: with all reasons why it does not fit the host.
    """
    reasons = []
    if isinstance(model.rule, StrictNeighbors):
        reasons.append(
            f"it keeps the {model.rule.count} nearest neighbors, where {host} gives "
            "all inside a cutoff"
        )
    if isinstance(model.rule, AllNeighbors):
        reasons.append("it is made for one molecule, whose pairs have no cutoff")
    if model.metadata.energy_reference != "total":
        reasons.append("it predicts adsorption energies, not total ones")
    if model.forces != "gradient":
        reasons.append("its forces are direct, no slope of its energy")
    if reasons:
        raise ConfigError(
            f"the model does not fit {host}: {'; '.join(reasons)}; use a total-energy "
            "model of smooth neighbors with gradient forces, such as 'default', or "
            "CrackCalculator"
        )


def check_exportable(model: ForceField, host: str) -> None:
    """Refuse models that are no sum over atoms alone whose slope is the force.

    Raises:
        ConfigError: with the reasons why it does not fit the host.
    """
    check_sum_over_atoms(model, host)
    if model.scale.mean:
        raise ConfigError(
            f"the model does not fit {host}: {model.scale.mean:g} eV of each "
            "structure belong to none of its atoms, and engines add up atoms; use "
            "CrackCalculator, or train with references of elements"
        )


class HostedModel:
    """A model that another program asks for energies, forces and virials.

    Args:
        model: a file, a name, or a calculator, for a device or a precision of its own.
        elements: symbols of all elements that the program will ask for.
        host: what the program is called.

    Raises:
        CheckpointError: a model file cannot be used.
        ConfigError: the model does not know an element, or its forces are no gradient
            of its energy, so that it has no virial.
    """

    def __init__(
        self,
        model: str | Path | CrackCalculator,
        elements: Sequence[str],
        *,
        host: str,
    ) -> None:
        if not isinstance(model, CrackCalculator):
            model = CrackCalculator(model)
        self.calculator = model
        unknown = sorted({name for name in elements if name not in atomic_numbers})
        if unknown or not elements:
            raise ConfigError(
                f"elements {list(elements)} for {host}; expected chemical symbols, "
                "such as ['Pt', 'O']"
            )
        known = [chemical_symbols[z] for z in sorted(self.calculator.metadata.elements)]
        missing = sorted(set(elements) - set(known))
        if missing:
            raise ConfigError(
                f"the model does not know {', '.join(missing)}; it was trained on "
                f"{', '.join(known)}"
            )
        if self.calculator.forces_kind != "gradient":
            raise ConfigError(
                f"the model's forces are direct, no gradient of its energy: in {host} "
                "there would be no virial, and energy would drift; use a gradient model"
            )
        self._trajectories: list[Trajectory] = []

    def evaluate(self, structures: Sequence[ase.Atoms]) -> list[Answer]:
        """Return the answers for structures that move on from call to call.

        Neighbor lists are kept by place: the same structure is expected there again,
        though another one is answered as well.

        Raises:
            StructureError: the model cannot be applied to one of them.
        """
        while len(self._trajectories) < len(structures):
            self._trajectories.append(Trajectory())
        results = self.calculator.calculate_many(
            structures, trajectories=self._trajectories[: len(structures)]
        )
        answers = []
        for atoms, result in zip(structures, results, strict=True):
            if isinstance(result, Exception):
                raise result
            if "stress" not in result:
                raise StructureError(
                    "the structure has no cell, so no virial; expected three lattice "
                    "vectors, also where it is not periodic"
                )
            self.calculator.limit_watch.check(atoms)
            stress = voigt_6_to_full_3x3_stress(result["stress"])
            virial = -stress * atoms.get_volume()
            answers.append(Answer(result["energy"], result["forces"], virial))
        return answers


class IPIDriver:
    """The driver that i-PI calls in its own process, with all beads of a batch at once.

    In i-PI's input, with the path of this file (`drivers.__file__`); leave `threaded`
    alone, as errors in a thread of i-PI's do not end it:

        <ffdirect name="crack">
          <pes>custom</pes> <pes_path>.../crack_md/calculators/drivers.py</pes_path>
          <batch_size>8</batch_size>
          <parameters>{template: start.xyz, model: student.pt}</parameters>
        </ffdirect>

    Args:
        template: a file that ASE reads; its elements and periodicity are used.
        model: a file or a name.
        dtype: precision of the network.
        device: "auto" takes a GPU where there is one.
        verbosity: what i-PI gives every driver; not used.

    Raises:
        CrackError: as for `HostedModel`; i-PI ends before the first step.
    """

    def __init__(
        self,
        template: str,
        model: str = "default",
        *,
        dtype: Any = "float32",
        device: str = "auto",
        verbosity: object = None,
    ) -> None:
        atoms = ase.io.read(template)
        assert isinstance(atoms, ase.Atoms), "ASE returns the last frame"
        self.template = atoms
        calculator = CrackCalculator(model, dtype=dtype, device=device)
        symbols = sorted(set(atoms.get_chemical_symbols()))
        self.model = HostedModel(calculator, symbols, host="i-PI")

    def __call__(self, cell: Any, positions: Any) -> Any:
        """Return energy, forces, virial and extras, or a list of them for lists.

        All are in i-PI's units (Hartree, Bohr). Lattice vectors are columns of cells.
        """
        if not isinstance(cell, list):
            return self._compute([cell], [positions])[0]
        return self._compute(cell, positions)

    def _compute(
        self, cells: Sequence[np.ndarray], positions: Sequence[np.ndarray]
    ) -> list[tuple[float, np.ndarray, np.ndarray, str]]:
        try:
            from ipi.utils.units import unit_to_internal, unit_to_user
        except ImportError as error:
            raise MissingDependencyError.of(
                "ipi", extra="ipi", purpose="the driver of i-PI"
            ) from error
        structures = []
        for cell, places in zip(cells, positions, strict=True):
            atoms = self.template.copy()
            atoms.set_cell(unit_to_user("length", "angstrom", cell.T))
            atoms.set_positions(unit_to_user("length", "angstrom", places))
            structures.append(atoms)
        return [
            (
                unit_to_internal("energy", "electronvolt", answer.energy),
                unit_to_internal("force", "ev/ang", answer.forces),
                unit_to_internal("energy", "electronvolt", answer.virial),
                "",
            )
            for answer in self.model.evaluate(structures)
        ]


__DRIVER_NAME__ = "crack"
__DRIVER_CLASS__ = "IPIDriver"
