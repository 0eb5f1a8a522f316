"""A model for torch-sim, which moves many structures at a time on one device.

Neighbors come from torch-sim's own search, on the device of the state, and become the
table that models read: nothing goes through ASE.
"""

from pathlib import Path

import torch
from torch import Tensor

from crack_md.calculators.crack import CrackCalculator
from crack_md.calculators.drivers import check_sum_over_atoms
from crack_md.calculators.evaluator import NearWatch, check_structure, on_host
from crack_md.errors import ConfigError, MissingDependencyError, StructureError
from crack_md.graph import AtomGraph
from crack_md.neighbors.search import bucket_of_width

try:
    from torch_sim.io import state_to_atoms
    from torch_sim.models.interface import ModelInterface
    from torch_sim.neighbors import torchsim_nl
    from torch_sim.state import SimState
except ImportError as error:
    raise MissingDependencyError.of(
        "torch-sim-atomistic", extra="torchsim", purpose="torch-sim (Python >= 3.12)"
    ) from error


class CrackModel(ModelInterface):  # type: ignore[misc]  # mypy knows no extras
    """A model in the interface of torch-sim, in eV, Å and eV/Å³.

    States are float64 whatever the precision of the network is, as in ASE:
    ``torch_sim.initialize_state(atoms, model.device, model.dtype)``. torch-sim wants a
    stress of all structures: without a cell it is zero.

    Args:
        model: a file, a name, or a calculator of one model, for a device, a precision
            or compiled code.

    Raises:
        CheckpointError: a model file cannot be used.
        ConfigError: a committee, or a model that is no sum over atoms.
        StructureError: (on use) an element that the model does not know, or results
            that are not finite.
    """

    def __init__(self, model: str | Path | CrackCalculator = "default") -> None:
        super().__init__()
        if not isinstance(model, CrackCalculator):
            model = CrackCalculator(model)
        if len(model.engines) > 1:
            raise ConfigError(
                f"a committee of {len(model.engines)} models; torch-sim has no place "
                "for its spread: give one of them"
            )
        self.calculator = model
        (self.model,) = model.models
        check_sum_over_atoms(self.model, "torch-sim")
        self._cutoff = self.model.network.config.cutoff
        self._device, self._dtype = model.device, torch.float64
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_edges"
        self._near = NearWatch(self.model)
        self._known_numbers = torch.empty(0)

    def forward(self, state: SimState, **_: object) -> dict[str, Tensor]:
        """Return energies (eV), forces (eV/Å) and stresses (eV/Å³) of a state.

        Raises:
            StructureError: the model cannot be applied to one of its structures.
        """
        self._check_elements(state)
        graph = graph_of_state(state, self._cutoff, self.model.dtype)
        prediction = self.calculator.engines[0](graph, stress=True)
        assert prediction.stress is not None, "forces are a gradient"
        has_volume = torch.linalg.det(graph.cell).abs() > 0
        results = {
            "energy": prediction.energy,
            "forces": prediction.forces,
            "stress": prediction.stress.where(has_volume[:, None, None], 0.0),
        }
        near = self._near.by_atom(graph)
        flags = [values.isfinite().all() for values in results.values()]
        if near is not None:
            flags.append((near <= 1).all())
        # the one time that a GPU is waited for
        fine = dict(zip([*results, "near"], torch.stack(flags).tolist(), strict=False))
        if not fine.pop("near", True) and self._near.may_warn:
            sizes = state.n_atoms_per_system.tolist()
            self._near.distances(graph, sizes, *on_host(near))
        wrong = [name for name, is_fine in fine.items() if not is_fine]
        if wrong:
            raise StructureError(
                f"the model returned {' and '.join(wrong)} that are not finite; a "
                "structure is probably far from everything the model has seen"
            )
        return {name: values.to(state.dtype) for name, values in results.items()}

    def _check_elements(self, state: SimState) -> None:
        """Look at elements and limits of the model when other atoms come."""
        if torch.equal(self._known_numbers, state.atomic_numbers):
            return
        for atoms in state_to_atoms(state):
            check_structure(atoms, self.model)
            self.calculator.limit_watch.check(atoms)
        self._known_numbers = state.atomic_numbers.clone()


def graph_of_state(state: SimState, cutoff: float, dtype: torch.dtype) -> AtomGraph:
    """Return the graph of the structures of a state, with all neighbors in a cutoff.

    Args:
        state: positions in Å.
        cutoff: Å.
        dtype: of the edge vectors.
    """
    positions, cell = state.positions.double(), state.row_vector_cell.double()
    pairs, _, shift = torchsim_nl(positions, cell, state.pbc, cutoff, state.system_idx)
    order = torch.argsort(pairs[0], stable=True)
    receivers, senders = pairs[0][order], pairs[1][order]
    counts = torch.bincount(receivers, minlength=state.n_atoms)
    width = bucket_of_width(int(counts.max()))
    places = torch.arange(len(receivers), device=receivers.device)
    slots = places - (counts.cumsum(0) - counts)[receivers]
    atoms = torch.arange(state.n_atoms, device=receivers.device)
    neighbors = atoms.unsqueeze(1).repeat(1, width)  # an empty slot points at its row
    neighbors[receivers, slots] = senders
    cell_shift = positions.new_zeros(state.n_atoms, width, 3, dtype=dtype)
    cell_shift[receivers, slots] = shift[order].to(dtype)
    return AtomGraph(
        positions=positions,
        atomic_numbers=state.atomic_numbers.long(),
        cell=cell,
        pbc=state.pbc.expand(state.n_systems, 3),
        batch=state.system_idx,
        neighbors=neighbors,
        cell_shift=cell_shift,
        mask=torch.arange(width, device=counts.device) < counts.unsqueeze(1),
    )
