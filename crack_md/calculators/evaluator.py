"""Many structures, or one, in few forward passes: what all calculators run on."""

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import ase
import numpy as np
import torch
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float

from crack_md.calculators.batch_size import count_in_batch, limit_for
from crack_md.calculators.batched import ALL_PROPERTIES, Results, Trajectory
from crack_md.calculators.molecules import MoleculeForces
from crack_md.calculators.packaged import Engine
from crack_md.calculators.replicas.langevin import Coefficients
from crack_md.calculators.replicas.on_device import Carrier
from crack_md.calculators.replicas.state import ReplicaAtoms
from crack_md.errors import (
    ConfigError,
    CrackError,
    StructureError,
    describe_unknown_elements,
)
from crack_md.graph import AtomGraph, batch_graphs, edge_vectors, graph_to
from crack_md.models.domain import nearness
from crack_md.models.force_field import ForceField, ModelMetadata, Prediction
from crack_md.neighbors import (
    AllNeighbors,
    NeighborRule,
    SmoothNeighbors,
    graph_builder,
)

OC20_ADSORBATE_ELEMENTS = frozenset({1, 6, 7, 8})
ADSORBATE_TAG = 2


def check_structure(atoms: ase.Atoms, model: ForceField) -> None:
    """Refuse structures that the model has no right to answer for.

    What no table of neighbors can be made of is refused where that is made.

    Raises:
        StructureError: elements unlike training, or no adsorbate for an
            adsorption-energy model.
    """
    known = [chemical_symbols[z] for z in model.metadata.elements]
    if refusal := describe_unknown_elements(atoms.symbols, known):
        raise StructureError(refusal)
    if (reason := model.network.config.refusal(atoms)) is not None:
        raise StructureError(reason)
    if model.metadata.energy_reference == "adsorption":
        _check_adsorbate(atoms)


def _check_adsorbate(atoms: ase.Atoms) -> None:
    """An adsorption energy needs both an adsorbate and something to adsorb on."""
    tags = atoms.get_tags()
    light = np.isin(atoms.numbers, list(OC20_ADSORBATE_ELEMENTS))
    # ASE's surface builders number layers from 1 in the same field: not OC20's tags.
    tagged = tags.any() and set(tags) <= {0, 1, 2} and light[tags == 2].all()
    if tagged:
        adsorbate, seen = tags == ADSORBATE_TAG, f"no atom with tag {ADSORBATE_TAG}"
    else:
        adsorbate, seen = light, "no H, C, N or O"
    if adsorbate.all():
        seen = "nothing but adsorbate"
    elif adsorbate.any():
        return
    raise StructureError(
        f"this model predicts adsorption energies, and {atoms.get_chemical_formula()} "
        f"has {seen}; bulks, clean slabs and molecules need a total-energy model"
    )


def on_host(*tensors: torch.Tensor | None) -> list[Any]:
    """Return tensors as arrays in float64, in one copy: a GPU is waited for once."""
    given = [one for one in tensors if one is not None]
    if not given:
        return list(tensors)
    flat = torch.cat([one.detach().double().flatten() for one in given]).cpu().numpy()
    ends = np.cumsum([one.numel() for one in given])
    parts = iter(np.split(flat, ends[:-1]))
    return [
        None if one is None else next(parts).reshape(tuple(one.shape))
        for one in tensors
    ]


Arrays = dict[str, np.ndarray]
"""Energy, energies, forces and perhaps stress of one structure, by one model."""


def arrays_of(
    values: Sequence[np.ndarray | None],
    sizes: Sequence[int],
    has_stress: Sequence[bool],
    *,
    domain_distances: Float[np.ndarray, " structure"] | None = None,
) -> list[Arrays | Exception]:
    """Return what ASE calls results of every structure, or why they are unusable.

    They are the energy and its parts by atoms ("energies"), forces and stress.

    Args:
        values: energies, forces, energies of atoms and stresses of a batch.
        sizes: atoms of its structures.
        has_stress: which of them have a meaningful stress.
        domain_distances: how near their atoms are, measured by training.
    """
    energies, forces, parts, stress = values
    assert energies is not None
    assert forces is not None
    ends = np.cumsum(sizes)
    found = []
    for row, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        arrays = {
            "energy": energies[row, ...],
            "forces": forces[end - size : end].copy(),
        }
        if parts is not None:
            arrays["energies"] = parts[end - size : end].copy()
        if stress is not None and has_stress[row]:
            arrays["stress"] = full_3x3_to_voigt_6_stress(stress[row])
        if domain_distances is not None:
            arrays["domain_distance"] = domain_distances[row, ...]
        found.append(_finite(arrays))
    return found


def joined_results(members: Sequence[Arrays | Exception]) -> Results | Exception:
    """Return the mean of a committee's answers and their spread, or an error of one."""
    arrays: list[Arrays] = []
    for member in members:
        if isinstance(member, Exception):
            return member
        arrays.append(member)
    results: Results = dict(arrays[0])
    if len(arrays) > 1:
        for name in arrays[0]:
            results[name] = np.mean([m[name] for m in arrays if name in m], axis=0)
    if "domain_distance" in results:
        results["domain_distance"] = float(results["domain_distance"])
    results["energy"] = float(results["energy"])
    results["free_energy"] = results["energy"]
    if len(arrays) > 1:
        results["energy_std"] = float(np.std([m["energy"] for m in arrays], ddof=1))
        results["forces_std"] = np.std([m["forces"] for m in arrays], axis=0, ddof=1)
    return results


def _finite(arrays: Arrays) -> Arrays | Exception:
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if not wrong:
        return arrays
    return StructureError(
        f"the model returned {' and '.join(wrong)} that are not finite; the "
        "structure is probably far from everything the model has seen"
    )


class NearWatch:
    """Measures how near atoms are, and warns once where that is outside of training.

    Args:
        model: whose training data are meant; without their shortest distances nothing
            is measured.
    """

    def __init__(self, model: ForceField) -> None:
        self.shortest = model.metadata.shortest_distances
        self._table = (
            None
            if self.shortest is None
            else self.shortest.table(model.network.config.num_elements)
        )
        self._has_warned = False

    @property
    def may_warn(self) -> bool:
        """Return whether something is watched that has not been warned of."""
        return self._table is not None and not self._has_warned

    def by_atom(self, graph: AtomGraph) -> Float[torch.Tensor, " atom"] | None:
        """Return how near each atom's neighbors are, measured by training."""
        return None if self._table is None else self._nearness(graph).amax(dim=1)

    def distances(
        self,
        graph: AtomGraph,
        sizes: Sequence[int],
        by_atom: Float[np.ndarray, " atom"] | None,
    ) -> Float[np.ndarray, " structure"] | None:
        """Return the domain distance of every structure, None where nothing is known.

        Args:
            graph: of all structures together.
            sizes: how many atoms each has.
            by_atom: what `by_atom` has returned, on the host.
        """
        if by_atom is None:
            return None
        ends = np.cumsum(sizes)
        found = np.maximum.reduceat(by_atom, ends - np.asarray(sizes))
        if not self._has_warned and found.max() > 1:
            self._has_warned = True
            warnings.warn(self._sentence(graph, ends), stacklevel=7)
        return found

    def _nearness(self, graph: AtomGraph) -> Float[torch.Tensor, "atom slot"]:
        assert self._table is not None
        if self._table.device != graph.positions.device:
            self._table = self._table.to(graph.positions.device)
        return nearness(graph, self._table)

    def _sentence(self, graph: AtomGraph, ends: Sequence[int] | np.ndarray) -> str:
        near = self._nearness(graph)
        receiver, slot = divmod(int(near.argmax()), near.shape[1])
        sender = int(graph.neighbors[receiver, slot])
        length = float(edge_vectors(graph)[receiver, slot].detach().norm())
        place = int(np.searchsorted(ends, receiver, side="right"))
        first_atom = int(ends[place - 1]) if place else 0
        numbers = [int(graph.atomic_numbers[atom]) for atom in (receiver, sender)]
        names = [
            f"{chemical_symbols[number]} (atom {atom - first_atom})"
            for number, atom in zip(numbers, (receiver, sender), strict=True)
        ]
        assert self.shortest is not None
        limit = self.shortest.limit(*numbers)
        pair = (min(numbers), max(numbers))
        known = (
            f"the shortest such distance in training is {limit:.2f} Å"
            if pair in self.shortest.pairs
            else f"training had no such pair; bonds end at {limit:.2f} Å"
        )
        return (
            f"{names[0]} and {names[1]} are {length:.2f} Å apart, and {known}: do not "
            "trust the energy. Further structures are not named; domain_distance in "
            "the results is above 1 there."
        )


GraphBuilders = dict[NeighborRule, Callable[[ase.Atoms], AtomGraph]]


class _Prepared(NamedTuple):
    """A structure, ready for all models."""

    graphs: dict[NeighborRule, AtomGraph]
    has_stress: bool
    """Its stress is wanted, and has a meaning."""


class BatchEvaluator:
    """Evaluates lists of structures with a model, or with a committee of models.

    Structures share forward passes up to a limit: what fits into the memory of a GPU,
    or what is fast on a CPU. A batch that runs out of memory is halved and repeated. In
    a batch of another composition results differ by rounding, about 1e-7 relative in
    float32. Not for use by two threads at a time; `CrackCalculator` is.

    Args:
        engines: one per member of the committee, on one device and in one precision.
        skin: of the neighbor lists of trajectories, in Å; see `NeighborSkin`.
        atoms_per_batch: the most atoms in one pass; None chooses.

    Raises:
        ConfigError: no engine, engines that do not match, or a limit below one atom.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        skin: float = 0.0,
        atoms_per_batch: int | None = None,
    ) -> None:
        self.engines = list(engines)
        places = {(model.device, model.dtype) for model in self.models}
        if len(places) != 1:
            raise ConfigError(
                f"models in {sorted(map(str, places))}; expected one or more, all on "
                "one device and in one precision"
            )
        self._near = NearWatch(self.models[0])
        self.limit = limit_for(self.device, atoms_per_batch)
        conservative = all(model.forces == "gradient" for model in self.models)
        self.forces_kind: Literal["gradient", "direct"] = (
            "gradient" if conservative else "direct"
        )
        self.implemented_properties = ["energy", "energies", "free_energy", "forces"]
        if conservative:
            self.implemented_properties.append("stress")
        self.skin = skin
        self._new_builders(skin)  # refuses one that is negative
        self._builders: WeakKeyDictionary[Trajectory, GraphBuilders] = (
            WeakKeyDictionary()
        )

    @property
    def models(self) -> list[ForceField]:
        """Return the members of the committee."""
        return [engine.model for engine in self.engines]

    @property
    def device(self) -> torch.device:
        """Return where the models are."""
        return self.engines[0].model.device

    @property
    def metadata(self) -> ModelMetadata:
        """Return what the (first) model is and where it comes from."""
        return self.engines[0].model.metadata

    def calculate_many(
        self,
        structures: Sequence[ase.Atoms],
        properties: Collection[str] = ALL_PROPERTIES,
        *,
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[Results | Exception]:
        """Return ASE's results of every structure, or the error that it alone causes.

        Energies, those of atoms too, are in eV, forces in eV/Å, constraints not
        applied. Stress (eV/Å³, Voigt order) is there if wanted, with a cell and
        gradient forces; ``energy_std`` and ``forces_std`` are there for committees, and
        ``domain_distance`` for models that know the shortest distances of their
        training data (above 1: atoms are nearer to each other than any of them).

        Args:
            structures: of any sizes, in any order.
            properties: what is wanted; energy and forces come in any case.
            trajectories: one for each structure that moves on in later calls.
        """
        stress = "stress" in properties and self.forces_kind == "gradient"
        names: Sequence[Trajectory | None]
        names = trajectories or [None] * len(structures)
        prepared = [
            self._prepared(atoms, self.graph_builders(name), stress=stress)
            for atoms, name in zip(structures, names, strict=True)
        ]
        members = [self._run(engine, prepared) for engine in self.engines]
        return [joined_results(answers) for answers in zip(*members, strict=True)]

    def graph_builders(self, trajectory: Trajectory | None) -> GraphBuilders:
        """Return what makes graphs for the rules of all models.

        Those of a trajectory live as long as it does, and may keep what they found.
        """
        if trajectory is None:
            return self._new_builders(skin=0.0)
        if trajectory not in self._builders:
            self._builders[trajectory] = self._new_builders(self.skin)
        return self._builders[trajectory]

    def replica_forces(self, structures: Sequence[ase.Atoms]) -> MoleculeForces | None:
        """Return a faster way for copies of a molecular model's molecule, or None."""
        engine = self.engines[0]
        if len(self.engines) > 1 or engine.model.rule != AllNeighbors():
            return None
        for atoms in structures:
            check_structure(atoms, engine.model)
        return MoleculeForces(engine, structures)

    def carrier(
        self,
        structures: Sequence[ase.Atoms],
        atoms: ReplicaAtoms,
        step: Coefficients[np.ndarray],
        max_temperature_K: Float[np.ndarray, " replica"],
    ) -> Carrier | None:
        """Return what moves structures on the device; None where the host has to."""
        engine, skin = self.engines[0], self.skin
        smooth = isinstance(engine.model.rule, SmoothNeighbors)
        if len(self.engines) > 1 or not smooth or not skin:
            return None
        return Carrier(
            engine,
            structures,
            atoms,
            step,
            max_temperature_K,
            skin=skin,
            limit=self.limit,
            near=self._near,
        )

    def _new_builders(self, skin: float) -> GraphBuilders:
        return {
            model.rule: graph_builder(
                model.rule,
                skin,
                dtype=model.dtype,
                device=self.device if skin else "cpu",
            )
            for model in self.models
        }

    def _prepared(
        self, atoms: ase.Atoms, builders: GraphBuilders, *, stress: bool
    ) -> _Prepared | Exception:
        try:
            graphs = {rule: build(atoms) for rule, build in builders.items()}
            for model in self.models:
                check_structure(atoms, model)
        except Exception as error:  # whatever it is, it is this structure's alone
            return error
        return _Prepared(graphs, stress and abs(float(atoms.cell.volume)) > 0)

    def _run(
        self, engine: Engine, prepared: Sequence[_Prepared | Exception]
    ) -> list[Arrays | Exception]:
        """Return the answers of one model to all structures."""
        rows: dict[int, tuple[AtomGraph, bool]] = {}
        answers: dict[int, Arrays | Exception] = {}
        for place, one in enumerate(prepared):
            if isinstance(one, Exception):
                answers[place] = one
            else:
                rows[place] = one.graphs[engine.model.rule], one.has_stress
        # The widest tables first: they set the width of their batch. The largest
        # structure of all then tells how much memory is needed.
        waiting = sorted(
            rows, key=lambda place: rows[place][0].mask.shape[::-1], reverse=True
        )
        while waiting:
            limit = self.limit.atoms(rows[waiting[0]][0].mask.shape[1])
            count = count_in_batch([rows[place][0].n_atoms for place in waiting], limit)
            now, waiting = waiting[:count], waiting[count:]
            found = self._attempt(engine, [rows[place] for place in now])
            answers.update(zip(now, found, strict=True))
        return [answers[place] for place in range(len(prepared))]

    def _attempt(
        self, engine: Engine, batch: Sequence[tuple[AtomGraph, bool]]
    ) -> list[Arrays | Exception]:
        """Return the answers to a batch, or to its halves where the whole fails."""
        graphs, has_stress = zip(*batch, strict=True)
        sizes = [graph.n_atoms for graph in graphs]
        prediction = self._forward(engine, graphs, stress=any(has_stress))
        if not isinstance(prediction, Exception):
            whole, near = batch_graphs(graphs), None
            if engine is self.engines[0]:  # of a committee: the same structures
                near = self._near.by_atom(whole)
            *values, by_atom = on_host(
                prediction.energy,
                prediction.forces,
                prediction.node_energy,
                prediction.stress,
                near,
            )
            far = self._near.distances(whole, sizes, by_atom)
            return arrays_of(values, sizes, has_stress, domain_distances=far)
        if len(batch) == 1:
            return [self._explained(prediction, sizes[0])]
        if _is_out_of_memory(prediction):
            self.limit.lower(sum(sizes))
        middle = len(batch) // 2
        halves = batch[:middle], batch[middle:]
        return [answer for half in halves for answer in self._attempt(engine, half)]

    def _forward(
        self, engine: Engine, batch: Sequence[AtomGraph], *, stress: bool
    ) -> Prediction | Exception:
        try:
            graph = graph_to(batch_graphs(batch), device=self.device)
            with torch.no_grad():
                return self.limit.observe(
                    graph.mask.numel(), lambda: engine(graph, stress=stress)
                )
        except Exception as error:
            # its traceback would keep the tensors that have filled the memory
            return error.with_traceback(None) if _is_out_of_memory(error) else error

    def _explained(self, error: Exception, n_atoms: int) -> Exception:
        if not _is_out_of_memory(error):
            return error
        return CrackError(
            f"{self.device} ran out of memory on {n_atoms} atoms; "
            "use a smaller structure, a smaller model or device='cpu'"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without neighbor lists, which belong to trajectories."""
        return {**vars(self), "_builders": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled or copied evaluator."""
        vars(self).update({**state, "_builders": WeakKeyDictionary()})


def _is_out_of_memory(error: Exception) -> bool:
    # on a CPU PyTorch has no class of its own for it
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
