"""Batches, and the labelled frames that they are cut from.

Graphs are built once. All frames lie end to end in a few columns of numbers, in memory
or in files that are mapped into it, so a batch is one gather per column: a fraction of
a millisecond, far below a training step. Only what takes the most memory, features and
rows of the Jacobian, stays where the dataset has it. Columns of edges:

n_edges   (structure,)   edges of each
degree    (atom,)        how many of them end at an atom
sender    (edge,)        the other atom, numbered within its structure
shift     (edge, 3)      the cell that it is in
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from crack_md.data.columns import Columns, ColumnWriter, open_columns
from crack_md.data.dataset import LabelledStructure
from crack_md.data.parallel import first_rank_first
from crack_md.data.stored import StoredStructures, columns_of, starts
from crack_md.errors import DataError
from crack_md.files import claim_folder
from crack_md.graph import AtomGraph, graph_to
from crack_md.models.force_field import Prediction
from crack_md.models.teachers import TeacherLabels, as_periodic
from crack_md.neighbors import NeighborRule, build_graph

CHUNK = 512
"""Structures whose edges are in memory while they are written."""


def build_edges(
    structures: Iterable[LabelledStructure], rule: NeighborRule, *, periodic: bool
) -> Iterator[AtomGraph]:
    """Yield the graph of each structure; if asked, in a cell of three vectors."""
    for one in structures:
        atoms: Atoms = as_periodic(one.atoms) if periodic else one.atoms
        yield build_graph(atoms, rule)


def edges_of(graphs: Iterable[AtomGraph], *, smallest: bool = False) -> Columns:
    """Return the edges of graphs as columns.

    Args:
        graphs: One structure each; slots of a row are filled from the left.
        smallest: In the smallest integers that hold them: ten thousand frames of 16
            atoms with 40 neighbors take 26 MB. Otherwise of 16 bits.

    Raises:
        DataError: A structure has too many atoms or cells for 16 bits.
    """
    degrees, senders, shifts = [], [], []
    for graph in graphs:
        mask = graph.mask.numpy()
        degrees.append(mask.sum(axis=1).astype(np.int32))
        senders.append(graph.neighbors.numpy()[mask])
        shifts.append(graph.cell_shift.numpy()[mask])
    columns = {
        "n_edges": np.array([counts.sum() for counts in degrees], np.int64),
        "degree": np.concatenate(degrees),
        "sender": np.concatenate(senders),
        "shift": np.rint(np.concatenate(shifts)).astype(np.int64),
    }
    for name in ("degree", "sender", "shift"):
        columns[name] = _narrowed(columns[name], smallest=smallest)
    return columns


def stored_edges(
    structures: StoredStructures, rule: NeighborRule, *, periodic: bool
) -> Columns:
    """Return the edges of all structures of a folder, mapped into memory.

    They are beside the structures, written once for each rule. The first process of a
    run does that, in chunks; a stopped run goes on behind the last one.
    """
    store = structures.store
    job = {"rule": repr(rule), "periodic": periodic, "structures": store.job}
    key = hashlib.sha256(f"{rule!r} {periodic}".encode()).hexdigest()[:12]
    folder = store.folder / f"edges-{key}"
    with first_rank_first():
        columns = open_columns(folder, job)
        if columns is None:
            with claim_folder(folder, advice="name another with data.store"):
                columns = _write(
                    StoredStructures(store), rule, folder, job, periodic=periodic
                )
    return columns


def _write(
    structures: StoredStructures,
    rule: NeighborRule,
    folder: Path,
    job: dict[str, object],
    *,
    periodic: bool,
) -> Columns:
    writer = ColumnWriter(folder, job)
    graphs = build_edges(structures[writer.done :], rule, periodic=periodic)
    while chunk := list(islice(graphs, CHUNK)):
        writer.append(edges_of(chunk), n_items=len(chunk))
    return writer.finish()


def _narrowed(values: NDArray[np.integer], *, smallest: bool) -> NDArray[np.integer]:
    largest = int(np.abs(values).max(initial=0))
    kinds = (np.int8, np.int16, np.int32) if smallest else (np.int16,)
    for kind in kinds:
        if largest <= np.iinfo(kind).max:
            return values.astype(kind)
    if smallest:
        return values
    raise DataError(
        f"a structure has more than {np.iinfo(np.int16).max} atoms, or an atom that "
        "many cells away; wrap or remove it, or train without data.store"
    )


SAMPLED_ATOMS = 1_000_000
"""Features of about so many atoms at most, of frames evenly spaced, tell the spread."""


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
        rule: Which pairs are neighbors.
        dtype: Precision of edge vectors and forces; positions, cells and energies are
            float64, what else a teacher says is float32.
        periodic: Put structures into cells first, as EquiformerV2 teachers want them.
    """

    def __init__(
        self,
        structures: Sequence[LabelledStructure],
        rule: NeighborRule,
        *,
        dtype: torch.dtype = torch.float32,
        periodic: bool = False,
    ) -> None:
        self._dtype = dtype
        if isinstance(structures, StoredStructures):
            self.structures: Sequence[LabelledStructure] = structures
            columns = structures.store.columns
            edges = stored_edges(structures, rule, periodic=periodic)
            rows, first_atom = structures.rows, structures.first_atom
            self._has_teacher = structures.with_teacher
        else:
            self.structures = tuple(structures)
            columns = columns_of(self.structures, whole=False)
            edges = edges_of(
                build_edges(self.structures, rule, periodic=periodic), smallest=True
            )
            rows = np.arange(len(self.structures))
            first_atom = starts(columns["n_atoms"])[:-1]
            self._has_teacher = "teacher_energy" in columns
        first_edge = starts(edges["n_edges"])[:-1][rows]
        self._columns = {
            name: torch.from_numpy(values)
            for name, values in (columns | edges).items()
            if name not in ("name", "name_bytes", "split", "set")
        }
        self._rows, self._first_atom, self._first_edge = (
            torch.from_numpy(places) for places in (rows, first_atom, first_edge)
        )
        self.sizes = self._columns["n_atoms"][self._rows].long()
        self._has_features = self._has_teacher and _have_features(self.structures)
        self._n_moves = _fewest_moves(self.structures) if self._has_teacher else 0

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.structures)

    @property
    def n_features(self) -> int | None:
        """Return the channels of the teacher's features, None where there are none."""
        if not self._has_features:
            return None
        return _features(self.structures[0]).shape[2]

    @property
    def spaced(self) -> Sequence[LabelledStructure]:
        """Return all frames, or of many evenly spaced ones that stand for them."""
        stride = -(-int(self.sizes.sum()) // SAMPLED_ATOMS)
        return self.structures[:: max(stride, 1)]

    @property
    def features(self) -> Tensor | None:
        """Return the teacher's invariants of all atoms of `spaced`, (atom, channel)."""
        if not self._has_features:
            return None
        return torch.cat([_features(one)[:, 0] for one in self.spaced])

    def batch(
        self, frames: Int[Tensor, " structure"], *, device: torch.device | str = "cpu"
    ) -> Batch:
        """Return the chosen frames as one batch."""
        columns, rows = self._columns, self._rows[frames]
        sizes = self.sizes[frames]
        structure = torch.repeat_interleave(torch.arange(len(frames)), sizes)
        start = sizes.cumsum(dim=0) - sizes
        # how far each atom moves from its place in the columns to its place in here
        move = (self._first_atom[frames] - start)[structure]
        atoms = torch.arange(int(sizes.sum())) + move
        neighbors, shift, mask = self._table(frames, atoms, structure, start)
        graph = AtomGraph(
            positions=columns["positions"][atoms],
            atomic_numbers=columns["numbers"][atoms].long(),
            cell=columns["cell"][rows],
            pbc=columns["pbc"][rows],
            batch=structure,
            neighbors=neighbors,
            cell_shift=shift,
            mask=mask,
        )
        labels = Labels(
            columns["energy"][rows],
            columns["forces"][atoms].to(self._dtype),
            columns["free"][atoms],
            sizes,
        )
        teachers = self._teachers(frames)
        batch = Batch(
            graph,
            labels,
            self._teacher(rows, atoms, teachers) if self._has_teacher else None,
            self._jacobian(teachers, start) if self._n_moves else None,
        )
        return batch if str(device) == "cpu" else _moved(batch, device)

    def _table(
        self, frames: Tensor, atoms: Tensor, structure: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return neighbors, shifts and mask, as wide as the batch needs."""
        counts = self._columns["degree"][atoms].long()
        before = counts.cumsum(dim=0) - counts  # within the batch
        move = self._first_edge[frames] - before[start]
        slots = torch.arange(int(counts.amax()))
        mask = slots < counts.unsqueeze(1)
        edges = (before + move[structure]).unsqueeze(1) + slots
        edges = edges.where(mask, 0)
        own = torch.arange(len(atoms)).unsqueeze(1)
        if not mask.any():
            shift = torch.zeros(*mask.shape, 3, dtype=self._dtype)
            return own.expand_as(mask), shift, mask
        neighbors = self._columns["sender"][edges].long() + start[structure, None]
        shift = self._columns["shift"][edges].to(self._dtype)
        return (
            neighbors.where(mask, own),
            shift.where(mask.unsqueeze(2), 0.0),
            mask,
        )

    def _teachers(self, frames: Tensor) -> list[TeacherLabels]:
        if not (self._has_features or self._n_moves):
            return []
        found = [self.structures[frame].teacher for frame in frames.tolist()]
        return [one for one in found if one is not None]

    def _teacher(
        self, rows: Tensor, atoms: Tensor, teachers: Sequence[TeacherLabels]
    ) -> Prediction:
        forces = self._columns["teacher_forces"][atoms].to(self._dtype)
        features = (
            torch.cat([_own_features(one) for one in teachers])
            if self._has_features
            else forces.new_zeros(len(atoms), 1, 0)
        )
        atomic = self._columns.get("teacher_node_energy")
        return Prediction(
            self._columns["teacher_energy"][rows],
            forces,
            None,
            features,
            None if atomic is None else atomic[atoms],
        )

    def _jacobian(
        self, teachers: Sequence[TeacherLabels], start: Tensor
    ) -> JacobianBatch:
        """Return as many rows of each frame as every frame of the set has."""
        moved = [one.jacobian.first(self._n_moves) for one in teachers if one.jacobian]
        rows = [one for one in moved if one is not None]
        atom = torch.from_numpy(np.stack([one.atom for one in rows]))
        axis = torch.from_numpy(np.stack([one.axis for one in rows]))
        values = [torch.from_numpy(one.values).float() for one in rows]
        return JacobianBatch(atom + start.unsqueeze(1), axis, torch.cat(values, dim=1))


def _have_features(structures: Sequence[LabelledStructure]) -> bool:
    if isinstance(structures, StoredStructures):
        return "teacher_node_features" in structures.store.columns
    return all(
        one.teacher is not None and one.teacher.node_features is not None
        for one in structures
    )


def _fewest_moves(structures: Sequence[LabelledStructure]) -> int:
    """Return how many rows of the Jacobian every frame has."""
    if isinstance(structures, StoredStructures):
        moves = structures.store.columns.get("teacher_moves")
        return 0 if moves is None else int(moves[structures.rows].min())
    jacobians = [one.teacher.jacobian for one in structures if one.teacher is not None]
    return min([0 if one is None else len(one.atom) for one in jacobians], default=0)


def _features(frame: LabelledStructure) -> Tensor:
    assert frame.teacher is not None, "all frames have features"
    return _own_features(frame.teacher)


def _own_features(labels: TeacherLabels) -> Tensor:
    assert labels.node_features is not None, "all frames have features"
    return torch.from_numpy(labels.node_features).float()


def _moved(batch: Batch, device: torch.device | str) -> Batch:
    def on_device(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device, non_blocking=True)

    return Batch(
        graph_to(batch.graph, device=device, non_blocking=True),
        Labels(*map(on_device, batch.labels)),  # type: ignore[arg-type]
        None if batch.teacher is None else Prediction(*map(on_device, batch.teacher)),  # type: ignore[arg-type]
        None
        if batch.jacobian is None
        else JacobianBatch(*map(on_device, batch.jacobian)),  # type: ignore[arg-type]
    )
