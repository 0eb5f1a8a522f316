"""The ASE calculator of a distilled model, or of a committee of them."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from crack_md.calculators.checks import check_structure
from crack_md.calculators.engine import (
    Compile,
    CompiledEngine,
    EagerEngine,
    build_engine,
)
from crack_md.errors import ConfigError, CrackError
from crack_md.graph import AtomGraph
from crack_md.models.base import Prediction
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField, ModelMetadata
from crack_md.models.precision import with_products_in
from crack_md.neighbors import graph_builder

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.float32,
}
"""Precision of all but the large products."""

Source = str | Path | ForceField


class CrackCalculator(Calculator):
    """Energies in eV, forces in eV/Å and, from gradient models, stress in eV/Å³.

    ``metadata.energy_reference`` says what the energy is: a total energy, or an
    adsorption energy in the sense of OC20.

    Args:
        model: a file (`student.pt` or a public EquiformerV2 checkpoint), a name
            ("default" is the packaged student), a loaded model, or a list of any of
            them: a committee, whose mean is returned and whose spread is in the results
            ``energy_std`` and ``forces_std``.
        device: "auto" takes a GPU where there is one.
        dtype: precision of the network; energies are summed in float64 either way.
            "bfloat16" rounds the factors of the large products alone: with students
            that we trained, energies of 46 atoms moved by up to 5 meV and forces by up
            to 5 meV/Å (0.2 % of larger ones), in half the time where the CPU knows the
            format.
        compile: "auto" compiles the model on a GPU. The first call of every size takes
            a minute or more, and is checked against the plain model.
        skin: how much farther than needed candidates for neighbors are sought, in Å,
            so that they serve until atoms have moved by about half of that; 0 searches
            in every call. Results are the same, bit for bit.

    Raises:
        CheckpointError: a model file cannot be used.
        ConfigError: an unknown device or precision, a negative skin, or a committee of
            unlike energies.
        StructureError: (on use) the model cannot be applied to these atoms.
    """

    name = "crack"
    ignored_changes: set[str] = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: Source | Sequence[Source] = "default",
        *,
        device: str | torch.device = "auto",
        dtype: Literal["float32", "float64", "bfloat16"] = "float32",
        compile: Compile = "auto",
        skin: float = 1.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        sources = [model] if isinstance(model, Source) else list(model)
        self.device = _device(device)
        self.models = _load(sources, self.device, dtype)
        self.engines = [build_engine(member, compile) for member in self.models]
        self.graph_builders = {
            member.rule: graph_builder(
                member.rule, skin, dtype=member.dtype, device=self.device
            )
            for member in self.models
        }
        conservative = all(member.forces == "gradient" for member in self.models)
        self.forces_kind = "gradient" if conservative else "direct"
        self.implemented_properties = ["energy", "free_energy", "forces"]
        if conservative:
            self.implemented_properties.append("stress")
        self._lock = threading.RLock()

    @property
    def metadata(self) -> ModelMetadata:
        """Return what the (first) model is and where it comes from."""
        return self.models[0].metadata

    @property
    def model_sha256(self) -> str:
        """Return the fingerprint of the model file, or of all members' files."""
        return "+".join(member.metadata.sha256 for member in self.models)

    def get_property(
        self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """Return one property; safe to call from several threads."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with all properties at once."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        self.results = {}
        current = self.atoms
        assert current is not None, "ASE has just set it"
        for member in self.models:
            check_structure(current, member)
        has_volume = abs(float(current.cell.volume)) > 0
        stress = self.forces_kind == "gradient" and has_volume
        graphs = {rule: build(current) for rule, build in self.graph_builders.items()}
        members = [
            self._predict(engine, graphs[engine.model.rule], stress)
            for engine in self.engines
        ]
        self.results = _results(members)

    def _predict(
        self, engine: EagerEngine | CompiledEngine, graph: AtomGraph, stress: bool
    ) -> dict[str, np.ndarray]:
        try:
            with torch.no_grad():
                prediction = engine(graph, stress=stress)
        except torch.OutOfMemoryError as error:
            raise CrackError(
                f"{self.device} ran out of memory on {graph.n_atoms} atoms; "
                "use a smaller structure, a smaller model or device='cpu'"
            ) from error
        return _arrays(prediction)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the lock, which cannot be copied."""
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied calculator."""
        vars(self).update(state)
        self._lock = threading.RLock()


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            f"unknown device {device!r}; expected 'auto', 'cpu' or 'cuda[:index]'"
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: no GPU is available; use device='cpu'")
    return found


def _load(sources: list[Source], device: torch.device, dtype: str) -> list[ForceField]:
    if not sources:
        raise ConfigError("an empty list of models; expected at least one")
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; expected one of {sorted(DTYPES)}")
    models = []
    for source in sources:
        model = source if isinstance(source, ForceField) else load_model(source)
        model = model.to(device=device, dtype=DTYPES[dtype]).eval()
        if dtype == "bfloat16":
            model = with_products_in(model, torch.bfloat16)
        models.append(model.requires_grad_(requires_grad=False))
    references = {model.metadata.energy_reference for model in models}
    if len(references) > 1:
        raise ConfigError(
            "a committee of total-energy and adsorption-energy models; "
            "expected members with the same energy reference"
        )
    return models


def _arrays(prediction: Prediction) -> dict[str, np.ndarray]:
    arrays = {
        "energy": prediction.energy[0].cpu().numpy(),
        "forces": prediction.forces.double().cpu().numpy(),
    }
    if prediction.stress is not None:
        tensor = prediction.stress[0].double().cpu().numpy()
        arrays["stress"] = full_3x3_to_voigt_6_stress(tensor)
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise CrackError(
                f"the model returned {name} that are not finite; the structure is "
                "probably far from everything the model has seen"
            )
    return arrays


def _results(members: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    results: dict[str, Any] = {
        name: np.mean([member[name] for member in members], axis=0)
        for name in members[0]
    }
    results["energy"] = float(results["energy"])
    results["free_energy"] = results["energy"]
    if len(members) > 1:
        results["energy_std"] = float(np.std([m["energy"] for m in members], ddof=1))
        results["forces_std"] = np.std([m["forces"] for m in members], axis=0, ddof=1)
    return results
