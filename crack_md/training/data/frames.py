"""Batches, and the labelled dataset in memory that they are cut from.

Graphs are built once. All frames lie end to end in a few tensors, so a batch is one
gather per tensor: a fraction of a millisecond, far below a training step. Only what
takes the most memory, features of all degrees and rows of the Jacobian, stays where
the dataset has it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.data.dataset import LabelledStructure
from crack_md.graph import AtomGraph
from crack_md.models.force_field import Prediction
from crack_md.models.teachers import JacobianRows


class Labels(NamedTuple):
    """The labels of the dataset, in eV and Å."""

    energy: Float[Tensor, " structure"]
    """float64: hundreds of eV, of which float32 would round off the differences."""
    forces: Float[Tensor, "atom 3"]
    free: Bool[Tensor, " atom"]
    """True for atoms that no constraint holds."""
    sizes: Int[Tensor, " structure"]
    """Atoms per structure."""


class JacobianBatch(NamedTuple):
    """Rows of the teacher's force Jacobian, equally many for every structure.

    Structures do not see each other, so row k of all structures is one derivative of
    the whole batch: that of all forces along one coordinate in every structure.
    """

    atom: Int[Tensor, "structure row"]
    """The atom that moves, counted through the batch."""
    axis: Int[Tensor, "structure row"]
    """The direction in which it moves, 0 to 2."""
    values: Float[Tensor, "row atom 3"]
    """∂F_j/∂r in eV/Å² for every atom j and the coordinate of its own structure."""


class Batch(NamedTuple):
    """Several labelled structures."""

    graph: AtomGraph
    labels: Labels
    teacher: Prediction | None
    """With node features (atom, coefficient, channel); no channel where it has none."""
    jacobian: JacobianBatch | None = None
    """Where the teacher's labels have rows of its Jacobian."""
    chains: AtomGraph | None = None
    """Structures without labels that the student's own dynamics has come to."""


class Frames:
    """Labelled frames with their graphs.

    Args:
        structures: What to hold; all with teacher labels, or none of them is used.
        build: Returns the graph of one structure, e.g. ``build_graph`` with a rule.
        dtype: Precision of edge vectors and forces; positions, cells and energies are
            float64, what else a teacher says is float32.
    """

    def __init__(
        self,
        structures: Sequence[LabelledStructure],
        build: Callable[[Atoms], AtomGraph],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.structures = tuple(structures)
        graphs = [build(structure.atoms) for structure in structures]
        self.sizes = torch.tensor([graph.n_atoms for graph in graphs])
        self._first_atom = self.sizes.cumsum(dim=0) - self.sizes
        self._dtype = dtype
        self._pack_graphs(graphs)
        self._pack_labels(structures, dtype)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.structures)

    @property
    def n_features(self) -> int | None:
        """Return the channels of the teacher's features, None where there are none."""
        return None if self._features is None else self._features[0].shape[2]

    @property
    def features(self) -> Tensor | None:
        """Return the teacher's invariants of all atoms, (atom, channel)."""
        if self._features is None:
            return None
        return torch.cat([features[:, 0] for features in self._features])

    def _pack_graphs(self, graphs: Sequence[AtomGraph]) -> None:
        self._width = torch.tensor([int(_used(graph)) for graph in graphs])
        width = int(self._width.max())
        n_atoms = int(self.sizes.sum())
        self._positions = torch.cat([g.positions for g in graphs])
        self._numbers = torch.cat([g.atomic_numbers for g in graphs])
        self._cell = torch.cat([g.cell for g in graphs])
        self._pbc = torch.cat([g.pbc for g in graphs])
        # small integers: ten thousand frames of 16 atoms and 40 slots take 40 MB
        index = _smallest(max(int(self.sizes.max()), 1))
        shift = _smallest(max(int(g.cell_shift.abs().amax()) for g in graphs))
        self._neighbors = torch.zeros(n_atoms, width, dtype=index)
        self._shift = torch.zeros(n_atoms, width, 3, dtype=shift)
        self._mask = torch.zeros(n_atoms, width, dtype=torch.bool)
        for first, graph in zip(self._first_atom.tolist(), graphs, strict=True):
            used = int(_used(graph))
            rows = slice(first, first + graph.n_atoms)
            own = torch.arange(graph.n_atoms, dtype=index).unsqueeze(1)
            self._neighbors[rows] = own
            self._neighbors[rows, :used] = graph.neighbors[:, :used].to(index)
            self._shift[rows, :used] = graph.cell_shift[:, :used].to(shift)
            self._mask[rows, :used] = graph.mask[:, :used]

    def _pack_labels(
        self, structures: Sequence[LabelledStructure], dtype: torch.dtype
    ) -> None:
        self._energy = torch.tensor([s.energy for s in structures], dtype=torch.float64)
        self._forces = _rows([s.forces for s in structures], dtype)
        self._free = torch.cat([torch.as_tensor(s.free) for s in structures])
        teachers = [s.teacher for s in structures if s.teacher is not None]
        self._teacher_energy = self._teacher_forces = self._node_energy = None
        self._features: list[Tensor] | None = None
        self._jacobian: list[Tensor] | None = None
        if len(teachers) < len(structures):
            return
        self._teacher_energy = torch.tensor(
            [teacher.energy for teacher in teachers], dtype=torch.float64
        )
        self._teacher_forces = _rows([teacher.forces for teacher in teachers], dtype)
        features = [t.node_features for t in teachers if t.node_features is not None]
        if len(features) == len(teachers):
            self._features = [torch.from_numpy(one).float() for one in features]
        atomic = [t.node_energy for t in teachers if t.node_energy is not None]
        if len(atomic) == len(teachers):
            self._node_energy = torch.from_numpy(np.concatenate(atomic)).double()
        jacobians = [t.jacobian for t in teachers if t.jacobian is not None]
        if len(jacobians) == len(teachers):
            self._pack_jacobians(jacobians)

    def _pack_jacobians(self, jacobians: Sequence[JacobianRows]) -> None:
        # as many rows of each frame as every frame has
        n_rows = min(len(one.atom) for one in jacobians)
        values = [torch.from_numpy(one.values[:n_rows]) for one in jacobians]
        self._jacobian = [value.float() for value in values]
        self._moved_atom, self._moved_axis = (
            torch.from_numpy(
                np.stack([getattr(one, name)[:n_rows] for one in jacobians])
            )
            for name in ("atom", "axis")
        )

    def batch(
        self, frames: Int[Tensor, " structure"], *, device: torch.device | str = "cpu"
    ) -> Batch:
        """Return the chosen frames as one batch."""
        sizes = self.sizes[frames]
        structure = torch.repeat_interleave(torch.arange(len(frames)), sizes)
        start = sizes.cumsum(dim=0) - sizes
        # how far each atom moves from its place in the dataset to its place in here
        move = (self._first_atom[frames] - start)[structure]
        atoms = torch.arange(int(sizes.sum())) + move
        width = int(self._width[frames].max())
        graph = AtomGraph(
            positions=self._positions[atoms],
            atomic_numbers=self._numbers[atoms],
            cell=self._cell[frames],
            pbc=self._pbc[frames],
            batch=structure,
            neighbors=self._neighbors[atoms, :width].long() + start[structure, None],
            cell_shift=self._shift[atoms, :width].to(self._dtype),
            mask=self._mask[atoms, :width],
        )
        labels = Labels(
            self._energy[frames], self._forces[atoms], self._free[atoms], sizes
        )
        jacobian = self._jacobian_batch(frames, start)
        batch = Batch(graph, labels, self._teacher(frames, atoms), jacobian)
        return batch if str(device) == "cpu" else _moved(batch, device)

    def _teacher(self, frames: Tensor, atoms: Tensor) -> Prediction | None:
        if self._teacher_energy is None or self._teacher_forces is None:
            return None
        forces = self._teacher_forces[atoms]
        features = (
            forces.new_zeros(len(atoms), 1, 0)
            if self._features is None
            else torch.cat([self._features[frame] for frame in frames.tolist()])
        )
        atomic = None if self._node_energy is None else self._node_energy[atoms]
        return Prediction(self._teacher_energy[frames], forces, None, features, atomic)

    def _jacobian_batch(self, frames: Tensor, start: Tensor) -> JacobianBatch | None:
        if self._jacobian is None:
            return None
        values = [self._jacobian[frame] for frame in frames.tolist()]
        return JacobianBatch(
            atom=self._moved_atom[frames] + start.unsqueeze(1),
            axis=self._moved_axis[frames],
            values=torch.cat(values, dim=1),
        )


def _smallest(largest: int) -> torch.dtype:
    """Return the smallest type of integers that holds ± this value."""
    kinds = (torch.int8, torch.int16, torch.int32)
    fitting = [kind for kind in kinds if largest <= torch.iinfo(kind).max]
    return fitting[0] if fitting else torch.int64


def _used(graph: AtomGraph) -> Tensor:
    # build_graph pads rows to a bucket; slots fill from the left
    slots = torch.arange(1, graph.mask.shape[1] + 1)
    return (graph.mask * slots).amax() if graph.mask.numel() else torch.tensor(0)


def _rows(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
    flat = np.concatenate([array.reshape(len(array), -1) for array in arrays])
    return torch.from_numpy(flat).to(dtype)


def _moved(batch: Batch, device: torch.device | str) -> Batch:
    def on_device(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device, non_blocking=True)

    return Batch(
        AtomGraph(*map(on_device, batch.graph)),  # type: ignore[arg-type]
        Labels(*map(on_device, batch.labels)),  # type: ignore[arg-type]
        None if batch.teacher is None else Prediction(*map(on_device, batch.teacher)),  # type: ignore[arg-type]
        None
        if batch.jacobian is None
        else JacobianBatch(*map(on_device, batch.jacobian)),  # type: ignore[arg-type]
    )
