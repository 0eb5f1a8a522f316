"""What functions take: structures, settings by keyword, and models by name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ase
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols

from crack_md.errors import ConfigError, DataError
from crack_md.files import as_plain
from crack_md.structures import (
    Frames,
    StructureEntry,
    input_sha256,
    read_entries,
    with_unique_names,
)
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.screening.relaxations import WorkerModel
from crack_md.workflows.surfaces.outcome import DomainDistance, neighbor_distance
from crack_md.workflows.surfaces.slab import check_structure

Structures = str | Path | Atoms | Sequence[Atoms]
"""What functions take: a file or folder, one structure, or several."""


def as_entries(
    structures: Structures, select: str | None = None, frames: Frames = "all"
) -> tuple[StructureEntry, ...]:
    """Return the structures of a file or folder, or those given, under their names.

    Raises:
        DataError: the file holds none, or none are given.
        ConfigError: ``select`` is for databases.
    """
    if isinstance(structures, str | Path):
        return read_entries(Path(structures), select=select, frames=frames)
    if select is not None:
        raise ConfigError(f"select='{select}' is for databases, and structures came")
    listed = [structures] if isinstance(structures, Atoms) else list(structures)
    if not listed:
        raise DataError("no structures given; expected at least one")
    return with_unique_names(
        [
            StructureEntry(
                str(atoms.info.get("name") or atoms.get_chemical_formula(mode="metal")),
                atoms,
            )
            for atoms in listed
        ]
    )


def as_atoms(structure: str | Path | Atoms, index: int = -1) -> Atoms:
    """Return one structure, checked for what no model could be asked about.

    Args:
        structure: `ase.Atoms`, or a file.
        index: which structure of a file, from 0; −1 is the last.

    Raises:
        ConfigError: the file has fewer structures.
        DataError: it cannot be read.
        StructureError: the structure is broken.
    """
    if isinstance(structure, Atoms):
        check_structure(structure)
        return structure
    entries = read_entries(Path(structure))
    try:
        entry = entries[index]
    except IndexError:
        raise ConfigError(
            f"--index is {index}, and '{structure}' has {len(entries)} structures"
        ) from None
    if entry.atoms is None:
        raise ConfigError(
            f"'{structure}': {entry.error}; choose another one with --index"
        )
    check_structure(entry.atoms)
    return entry.atoms


def build_settings(kind: type[Any], options: Mapping[str, Any], command: str) -> Any:
    """Return a settings object from keywords.

    Raises:
        ConfigError: it has no setting of that name, or refuses a value.
    """
    known = list(kind.__dataclass_fields__)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(
            f"{command}() has no option {', '.join(unknown)}; it has: "
            f"{', '.join(known)}"
        )
    return kind(**options)


def describe_input(structures: Structures, count: int) -> dict[str, Any]:
    """Return what summary.json says about the input: where from, which, how many."""
    if not isinstance(structures, str | Path):
        return {"path": None, "sha256": None, "structures": count}
    path = Path(structures)
    return {"path": str(path), "sha256": input_sha256(path), "structures": count}


Dtype = Literal["float32", "float64"]


def load_potential(
    model: str,
    *,
    device: str = "auto",
    dtype: Dtype = "float32",
    gas_energies: Mapping[str, float] | None = None,
) -> tuple[BaseCalculator, ModelInfo]:
    """Return the calculator of a model and its description.

    Args:
        model: "default", a model file, or "emt".
        device: where a neural network runs.
        dtype: precision of a neural network.
        gas_energies: replaces the energies of gas molecules stored in the model.

    Raises:
        CheckpointError: the model cannot be read.
    """
    if model == "emt":
        from ase.calculators.emt import EMT

        emt = EMT()
        return emt, describe_calculator(emt, gas_energies=gas_energies)
    from crack_md.calculators import CrackCalculator

    calculator = CrackCalculator(model, device=device, dtype=dtype)
    info = describe_calculator(calculator, name=model, gas_energies=gas_energies)
    return calculator, info


def describe_calculator(
    calculator: BaseCalculator,
    *,
    name: str | None = None,
    gas_energies: Mapping[str, float] | None = None,
) -> ModelInfo:
    """Return what workflows have to know of any ASE calculator.

    Ours says it all. Of others the class, its parameters and the version of ASE stand
    for the model when a stopped run goes on; their energies count as total energies.

    Args:
        calculator: any ASE calculator.
        name: what the user calls it.
        gas_energies: eV per gas molecule; those stored in a model where left out.
    """
    if not hasattr(calculator, "model_sha256"):
        return _describe_foreign(calculator, name, gas_energies)
    from crack_md.calculators import CrackCalculator

    assert isinstance(calculator, CrackCalculator)
    known, first = calculator.metadata, calculator.models[0]
    return ModelInfo(
        name=name or str(getattr(known, "name", "")) or "student",
        sha256=calculator.model_sha256,
        energy_reference=known.energy_reference,
        gas_references=dict(gas_energies or known.gas_references),
        elements=frozenset(chemical_symbols[number] for number in known.elements)
        or None,
        forces=calculator.forces_kind,
        spin_polarised=_spin_polarised(known.energy_reference, known.provenance),
        reflections=all(
            # the other architectures are so by construction
            getattr(model.network.config, "reflections", True)
            for model in calculator.models
        ),
        dtype=str(first.dtype).removeprefix("torch."),
        limits=known.limits,
    )


def _describe_foreign(
    calculator: BaseCalculator,
    name: str | None,
    gas_energies: Mapping[str, float] | None,
) -> ModelInfo:
    kind = type(calculator)
    if kind.__module__ == "ase.calculators.emt":
        from ase.calculators.emt import parameters as emt_elements

        return ModelInfo(
            name or "emt",
            f"ase-{ase.__version__}",
            "total",
            dict(gas_energies or {}),
            frozenset(emt_elements),
        )
    settings = dict(getattr(calculator, "parameters", None) or {})
    words = json.dumps(settings, sort_keys=True, default=as_plain)
    identity = f"{kind.__module__}.{kind.__qualname__} ase-{ase.__version__} {words}"
    return ModelInfo(
        name or kind.__name__,
        hashlib.sha256(identity.encode()).hexdigest(),
        "total",
        dict(gas_energies or {}),
        forces=getattr(calculator, "forces_kind", "gradient"),
    )


@dataclass(frozen=True)
class PotentialLoader:
    """Loads a model once in every worker of a screening."""

    model: str
    device: str
    dtype: Dtype
    threads: int
    """Threads of PyTorch in a worker on a CPU."""

    def __call__(self, number: int) -> WorkerModel:
        """Return the potential of a worker; workers take the GPUs in turn."""
        device = self.device
        if self.model != "emt":
            import torch

            torch.set_num_threads(self.threads)
            n_gpus = torch.cuda.device_count()
            if n_gpus > 1 and device in ("auto", "cuda"):
                device = f"cuda:{number % n_gpus}"
        calculator, info = load_potential(self.model, device=device, dtype=self.dtype)
        return WorkerModel(calculator, domain_distance(calculator), fingerprint(info))


def fingerprint(info: ModelInfo) -> str:
    """Return in words what two processes must share for equal results."""
    from crack_md import __version__

    words = f"crack-md {__version__} and the model {info.sha256}"
    return words if info.dtype is None else f"{words} in {info.dtype}"


def identity(info: ModelInfo) -> dict[str, str]:
    """Return what results of two runs must share to be of one model."""
    return {"model": Path(info.name).name, "model_sha256": info.sha256}


def has_direct_forces(calculator: BaseCalculator) -> bool:
    """Return whether forces are a head of a network, not the gradient of an energy."""
    return getattr(calculator, "forces_kind", "gradient") == "direct"


def domain_distance(calculator: BaseCalculator) -> DomainDistance:
    """Return what says whether a structure is one that the model knows.

    Distances between neighbors for every model; the model's own features and limits as
    well where it was saved with them (``crack-md domain``).
    """
    if getattr(calculator, "name", None) != "crack":
        return neighbor_distance
    from crack_md.calculators import CrackCalculator
    from crack_md.calculators.crack import feature_distance

    assert isinstance(calculator, CrackCalculator)
    limits = calculator.metadata.limits
    given = (feature_distance(calculator), limits.distance if limits else None)
    own = [each for each in given if each is not None]
    if not own:
        return neighbor_distance

    def farthest(atoms: Atoms) -> tuple[float, str]:
        return max(each(atoms) for each in (*own, neighbor_distance))

    return farthest


def _spin_polarised(
    energy_reference: str, provenance: Mapping[str, Any]
) -> bool | None:
    """Return whether the labels of a model were computed with spin, where it is known.

    A model may say so itself. OC20, whose labels are adsorption energies, was computed
    without; OMat24, sAlex and MPtrj, which Nequix learned from, with.
    """
    stated = provenance.get("spin_polarised")
    if stated is not None:
        return bool(stated)
    if energy_reference == "adsorption":
        return False
    return True if str(provenance.get("teacher", "")).startswith("nequix") else None
