"""The ASE calculator of a distilled model, or of a committee of them."""

import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from jaxtyping import Float

from crack_md.calculators.batched import ALL_PROPERTIES, Results, Trajectory
from crack_md.calculators.engine import Compile
from crack_md.calculators.evaluator import BatchEvaluator, GraphBuilders
from crack_md.calculators.molecules import MoleculeForces
from crack_md.calculators.packaged import Engine, build_engine
from crack_md.calculators.replicas.langevin import Coefficients
from crack_md.calculators.replicas.on_device import Carrier
from crack_md.calculators.replicas.state import ReplicaAtoms
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.models.domain import FeatureStatistics
from crack_md.models.force_field import (
    ForceField,
    ModelMetadata,
    invariants,
    measure_features,
    with_products_in,
    with_tf32_products,
)
from crack_md.models.limits import Limits
from crack_md.models.precision import use_bfloat16
from crack_md.neighbors import build_graph


class LimitWatch:
    """Warns once when a structure is beyond the limits of a model.

    A structure is looked at when its elements or their order change, not in every
    step: shares and coverage do not change on the way.
    """

    def __init__(self, limits: Limits | None) -> None:
        self.limits = limits
        self._last: bytes | None = None
        self._has_warned = False

    def check(self, atoms: ase.Atoms) -> None:
        """Warn if this is the first structure beyond the limits."""
        numbers = atoms.numbers.tobytes()
        if self.limits is None or self._has_warned or numbers == self._last:
            return
        self._last = numbers
        far, why = self.limits.distance(atoms)
        notes = [why] if far > 1 else []
        notes += self.limits.warnings(atoms.numbers.tolist())
        if notes:
            self._has_warned = True
            warnings.warn(
                f"{atoms.get_chemical_formula(mode='metal')} is beyond what the model "
                f"was made for: {'; '.join(notes)}; do not trust its energies. Further "
                "structures are not named.",
                stacklevel=4,
            )


DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.float32,
    "tf32": torch.float32,
}
"""Precision of all but the large products."""

Source = str | Path | ForceField


def find_device(device: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"unknown device {device!r}; expected 'auto', 'cpu' or 'cuda[:index]'"
        ) from error
    if found.type not in ("cpu", "cuda") or (found.type == "cpu" and found.index):
        # float64 positions, which forces need, do not exist on the others
        raise ConfigError(
            f"device {device!r} is not supported; expected 'auto', 'cpu' or "
            "'cuda[:index]'"
        )
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: no GPU is available; use device='cpu'")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r}: there are {torch.cuda.device_count()} GPUs, counted "
            "from 0"
        )
    return found


def load_members(
    sources: Sequence[Source], device: torch.device, dtype: str
) -> list[ForceField]:
    """Return the models of a committee, ready for use and never trained.

    Raises:
        CheckpointError: a model file cannot be used.
        ConfigError: no model, an unknown precision, or energies of unlike meaning.
    """
    if not sources:
        raise ConfigError("an empty list of models; expected at least one")
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; expected one of {sorted(DTYPES)}")
    if dtype == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"dtype 'tf32' is a format of GPUs, and the device is {device}; use "
            "'float32' or 'bfloat16'"
        )
    models = []
    for source in sources:
        model = source if isinstance(source, ForceField) else load_model(source)
        model = model.to(device=device, dtype=DTYPES[dtype]).eval()
        if dtype == "bfloat16" and use_bfloat16(device):
            model = with_products_in(model, torch.bfloat16)
        elif dtype == "tf32":
            model = with_tf32_products(model)
        models.append(model.requires_grad_(requires_grad=False))
    references = {model.metadata.energy_reference for model in models}
    if len(references) > 1:
        raise ConfigError(
            "a committee of total-energy and adsorption-energy models; "
            "expected members with the same energy reference"
        )
    return models


class CrackCalculator(Calculator):
    """Energies in eV, forces in eV/Å and, from gradient models, stress in eV/Å³.

    ``metadata.energy_reference`` says what the energy is: a total energy, or an
    adsorption energy in the sense of OC20; "energies" are its parts by atoms.

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
            format; where it does not, float32 is used, with a warning. "tf32" rounds
            less, on GPUs, while a call lasts.
        compile: "auto" compiles the model on a GPU, and takes the compiled code that
            ``crack-md compile`` has left on a CPU. There True compiles once for all
            structures, in a minute or more; on a GPU so long does the first call of
            every size. Code is checked against the plain model; `start_up_s` and the
            messages of the logger ``crack_md`` say how long it took.
        skin: how much farther than needed candidates for neighbors are sought, in Å,
            so that they serve until atoms have moved by about half of that; 0 searches
            in every call. Results are the same, bit for bit.
        atoms_per_batch: the most atoms in one forward pass of `calculate_many`; None
            takes what fits into a GPU, or what is fast on a CPU.

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
        dtype: Literal["float32", "float64", "bfloat16", "tf32"] = "float32",
        compile: Compile = "auto",
        skin: float = 1.0,
        atoms_per_batch: int | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        sources = [model] if isinstance(model, Source) else list(model)
        members = load_members(sources, find_device(device), dtype)
        self.evaluator = BatchEvaluator(
            [build_engine(member, compile) for member in members],
            skin=skin,
            atoms_per_batch=atoms_per_batch,
        )
        self.forces_kind = self.evaluator.forces_kind
        self.implemented_properties = self.evaluator.implemented_properties
        self._trajectory = Trajectory()
        self.limit_watch = LimitWatch(self.metadata.limits)
        self._lock = threading.RLock()

    @property
    def device(self) -> torch.device:
        """Return where the models are."""
        return self.evaluator.device

    @property
    def models(self) -> list[ForceField]:
        """Return the members of the committee."""
        return self.evaluator.models

    @property
    def engines(self) -> list[Engine]:
        """Return what evaluates the members; entries can be replaced."""
        return self.evaluator.engines

    @property
    def start_up_s(self) -> float:
        """Return how many seconds compiling has taken so far; 0 if nothing compiles."""
        return sum(
            seconds for engine in self.engines for seconds in engine.start_up_s.values()
        )

    @property
    def graph_builders(self) -> GraphBuilders:
        """Return what makes graphs in calls of ASE, by rule."""
        return self.evaluator.graph_builders(self._trajectory)

    @property
    def metadata(self) -> ModelMetadata:
        """Return what the (first) model is and where it comes from."""
        return self.evaluator.metadata

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

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last call; moved atoms are reason enough.

        ASE would compare all else as well, which takes longer than a small step.
        """
        last = self.atoms
        if last is not None and not np.array_equal(last.positions, atoms.positions):
            return ["positions"]
        return super().check_state(atoms, tol)  # type: ignore[no-untyped-call]

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with all properties at once."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        self.results = {}
        assert self.atoms is not None, "ASE has just set it"
        (results,) = self.calculate_many([self.atoms], trajectories=[self._trajectory])
        if isinstance(results, Exception):
            raise results
        self.results = results
        self.limit_watch.check(self.atoms)

    def calculate_many(
        self,
        structures: Sequence[ase.Atoms],
        properties: Collection[str] = ALL_PROPERTIES,
        *,
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[Results | Exception]:
        """Return the results of every structure, or the error that it alone causes.

        They share forward passes. `results` stays as it is. Neighbor lists can be kept
        for structures that move on in later calls: one of `trajectories` names each.
        """
        with self._lock:
            return self.evaluator.calculate_many(
                structures, properties, trajectories=trajectories
            )

    def replica_forces(self, structures: Sequence[ase.Atoms]) -> MoleculeForces | None:
        """Return a faster way for copies of a molecular model's molecule, or None."""
        return self.evaluator.replica_forces(structures)

    def carrier(
        self,
        structures: Sequence[ase.Atoms],
        atoms: ReplicaAtoms,
        step: Coefficients[np.ndarray],
        max_temperature_K: Float[np.ndarray, " replica"],
    ) -> Carrier | None:
        """Return what moves structures on the device; None where the host has to."""
        names = ("calculate", "calculate_many")
        if any(
            getattr(type(self), name) is not getattr(CrackCalculator, name)
            for name in names
        ):
            return None  # it answers otherwise than the model
        return self.evaluator.carrier(structures, atoms, step, max_temperature_K)

    def accept(self, atoms: ase.Atoms, results: Results) -> None:
        """Keep results for atoms that were found elsewhere, as by a `carrier`."""
        self.atoms, self.results = atoms.copy(), dict(results)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the lock, which cannot be copied."""
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied calculator."""
        vars(self).update(state)
        self._lock = threading.RLock()


def node_features(
    model: ForceField, atoms: ase.Atoms
) -> Float[np.ndarray, "atom channel"]:
    """Return the invariant node features of a structure in float64."""
    graph = build_graph(atoms, model.rule, dtype=model.dtype, device=model.device)
    with torch.no_grad():
        prediction = model(graph)
    return np.asarray(invariants(prediction).double().cpu().numpy())


def training_statistics(
    model: ForceField, structures: Iterable[ase.Atoms]
) -> FeatureStatistics:
    """Return the statistics of a model's features on its training structures.

    Args:
        model: any with invariant features.
        structures: what it was trained on, or a fair sample of it.
    """
    rule, dtype, device = model.rule, model.dtype, model.device
    return measure_features(
        model,
        (build_graph(one, rule, dtype=dtype, device=device) for one in structures),
    )


def feature_distance(
    calculator: CrackCalculator,
) -> Callable[[ase.Atoms], tuple[float, str]] | None:
    """Return what measures how far a structure is from the training data.

    The function returns the distance of its farthest atom in units of that element's
    limit, and a sentence about it. None where the model was saved without statistics.
    """
    model = calculator.models[0]
    statistics = model.metadata.feature_statistics
    if statistics is None:
        return None

    def distance(atoms: ase.Atoms) -> tuple[float, str]:
        distances = statistics.distance(node_features(model, atoms), atoms.numbers)
        farthest = int(distances.argmax())
        symbol = chemical_symbols[atoms.numbers[farthest]]
        return float(distances[farthest]), (
            f"the surroundings of {symbol} (atom {farthest}) are "
            f"{distances[farthest]:.1f} times as far from the training data as the "
            "limit"
        )

    return distance
