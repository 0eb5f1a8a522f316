"""Forces on copies of one molecule whose table of neighbors never changes."""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float

from crack_md.calculators.packaged import Engine
from crack_md.calculators.replicas.state import ForceBatch
from crack_md.graph import AtomGraph, batch_graphs, graph_to
from crack_md.models.architectures.molecular import MolecularConfig
from crack_md.neighbors import build_graph


class MoleculeForces:
    """Energies and forces of all copies by a molecular model, in one pass.

    The graph is made once; a call sets positions only. Copies that have come apart have
    no energy, as from the calculator.

    Args:
        engine: of a model with a `MolecularConfig`.
        structures: the copies; each must be the molecule.
    """

    def __init__(self, engine: Engine, structures: Sequence[Atoms]) -> None:
        model = engine.model
        assert isinstance(model.network.config, MolecularConfig)
        self._engine, self._config = engine, model.network.config
        graphs = [
            build_graph(atoms, model.rule, dtype=model.dtype) for atoms in structures
        ]
        self._graph = graph_to(batch_graphs(graphs), device=model.device)

    def graph(self, positions: Float[np.ndarray, "atom 3"]) -> AtomGraph:
        """Return the graph of all copies at positions in Å."""
        here = torch.tensor(positions, device=self._graph.positions.device)
        return self._graph._replace(positions=here)

    def forces(self, positions: Float[np.ndarray, "atom 3"]) -> ForceBatch:
        """Return energies (eV) and forces (eV/Å), and which copies have none."""
        with torch.no_grad():
            answer = self._engine(self.graph(positions))
        energies = answer.energy.double().cpu().numpy()
        forces = answer.forces.double().cpu().numpy()
        frames = positions.reshape(len(energies), -1, 3)
        errors: dict[int, str] = {}
        for copy in np.flatnonzero(self._config.broken(frames)).tolist():
            atoms = Atoms(self._config.numbers, frames[copy])
            errors[copy] = str(self._config.refusal(atoms))
            energies[copy] = np.nan
            forces.reshape(frames.shape)[copy] = np.nan
        return ForceBatch(energies, forces, errors)
