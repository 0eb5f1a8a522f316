"""Many structures, or one, in few forward passes: what all calculators run on."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import ase
import torch

from crack_md.calculators.batch_size import count_in_batch, limit_for
from crack_md.calculators.batched import ALL_PROPERTIES, Results, Trajectory
from crack_md.calculators.checks import check_structure
from crack_md.calculators.engine import CompiledEngine, EagerEngine
from crack_md.calculators.near_watch import NearWatch
from crack_md.calculators.results import Arrays, arrays_of, joined_results
from crack_md.errors import ConfigError, CrackError
from crack_md.graph import AtomGraph, batch_graphs, graph_to
from crack_md.models.base import Prediction
from crack_md.models.force_field import ForceField, ModelMetadata
from crack_md.neighbors import NeighborRule, graph_builder

Engine = EagerEngine | CompiledEngine
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
            near = None
            if engine is self.engines[0]:  # of a committee: the same structures
                near = self._near.distances(batch_graphs(graphs), sizes)
            return arrays_of(prediction, sizes, has_stress, domain_distances=near)
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
