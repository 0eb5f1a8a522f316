"""The ASE calculator of a distilled model, or of a committee of them."""

import threading
from collections.abc import Collection, Sequence
from typing import Any, Literal

import ase
import torch
from ase.calculators.calculator import Calculator, all_changes

from crack_md.calculators.batched import ALL_PROPERTIES, Results, Trajectory
from crack_md.calculators.engine import Compile, build_engine
from crack_md.calculators.evaluator import BatchEvaluator, Engine, GraphBuilders
from crack_md.calculators.limit_watch import LimitWatch
from crack_md.calculators.loading import Source, find_device, load_members
from crack_md.models.force_field import ForceField, ModelMetadata


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
        compile: "auto" compiles the model on a GPU. The first call of every size takes
            a minute or more, and is checked against the plain model; `start_up_s` and
            the messages of the logger ``crack_md`` say how long it took.
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
        self._limits = LimitWatch(self.metadata.limits)
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
        self._limits.check(self.atoms)

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

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the lock, which cannot be copied."""
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied calculator."""
        vars(self).update(state)
        self._lock = threading.RLock()
