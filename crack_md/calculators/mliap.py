"""A model as a unified object of LAMMPS's ML-IAP package: its own pair style.

    pair_style mliap unified student-mliap.pickle
    pair_coeff * * Pt Ni O

LAMMPS gives each rank vectors from its own atoms to all atoms around them, those of
other ranks and periodic images (ghosts) included, as far as an energy feels them. From
these vectors the atoms are put in place, and neighbors sought anew: ghosts have
neighbors, too, which a network of several layers asks for. So energies of the rank's
own atoms are exact, and forces on ghosts go back to the ranks that own them.

Forces go back along a tree of pairs: with T the force on an atom and on all that hang
below it, a pair (i, j) carries −T on i and T on j. The virial −Σ r_ij ⊗ f_ij is then
that of the energy.

It follows LAMMPS's source and was tested with a stand-in for its data; it was not run
in LAMMPS.
"""

import pickle
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Bool, Float, Int

from crack_md.calculators.drivers import check_exportable
from crack_md.calculators.evaluator import NearWatch, on_host
from crack_md.errors import CrackError
from crack_md.files import write_atomically
from crack_md.graph import AtomGraph
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField
from crack_md.neighbors import build_graph

APART_A = 100.0
"""Between groups of atoms that no pair connects: farther than any cutoff."""


class Tree(NamedTuple):
    """Atoms in place, each by a pair with one that was there before."""

    positions: Float[np.ndarray, "atom 3"]
    """Å; those of atoms that no pair has are not set."""
    is_placed: Bool[np.ndarray, " atom"]
    levels: list[Int[np.ndarray, " pair"]]
    """Pairs that have placed an atom, in the order in which they did."""


def tree_of(
    owned: Int[np.ndarray, " owned"],
    first: Int[np.ndarray, " pair"],
    second: Int[np.ndarray, " pair"],
    vectors: Float[np.ndarray, "pair 3"],
    n_atoms: int,
) -> Tree:
    """Return atoms in place, from vectors r_second − r_first in Å.

    Args:
        owned: atoms that must have a place even without a pair.
        first: an owned atom of every pair.
        second: any atom of every pair.
        vectors: of the pairs.
        n_atoms: owned ones and ghosts.
    """
    positions, placed = np.zeros((n_atoms, 3)), np.zeros(n_atoms, dtype=bool)
    levels: list[Int[np.ndarray, " pair"]] = []
    end = 0.0
    for root in owned:
        if placed[root]:
            continue
        group = [np.array([root])]
        placed[root] = True
        while len(group[-1]):
            in_front = np.zeros(n_atoms, dtype=bool)
            in_front[group[-1]] = True
            new = np.flatnonzero(in_front[first] & ~placed[second])
            found, where = np.unique(second[new], return_index=True)
            new = new[where]
            positions[found] = positions[first[new]] + vectors[new]
            placed[found] = True
            levels.append(new)
            group.append(found)
        members = np.concatenate(group)
        positions[members, 0] += end - positions[members, 0].min()
        end = positions[members, 0].max() + APART_A
    return Tree(positions, placed, levels)


def pair_forces(
    tree: Tree,
    forces: Float[np.ndarray, "atom 3"],
    first: Int[np.ndarray, " pair"],
    second: Int[np.ndarray, " pair"],
) -> Float[np.ndarray, "pair 3"]:
    """Return what pairs do to their first atoms, in eV/Å; to the second the opposite.

    Args:
        tree: of the atoms.
        forces: on all atoms; those of each group add up to zero.
        first: an atom of every pair.
        second: the other one.
    """
    below = forces.copy()
    found = np.zeros((len(first), 3))
    for pairs in reversed(tree.levels):
        found[pairs] = -below[second[pairs]]
        np.add.at(below, first[pairs], below[second[pairs]])
    return found


class UnifiedModel:
    """What `pair_style mliap unified` asks for energies and forces, in `units metal`.

    Pickles hold the model file, and are read as such a file is.

    Args:
        model: in eval mode, on the CPU.

    Raises:
        ConfigError: a model that is no sum over atoms inside a cutoff.
        CrackError: (on use) energies or forces that are not finite. LAMMPS prints it
            and ends the run.
    """

    ndescriptors = 1
    nparams = 1
    interface: Any = None
    """Set by LAMMPS."""

    def __init__(self, model: ForceField) -> None:
        check_exportable(model, "LAMMPS's ML-IAP")
        self.model = model.eval().requires_grad_(requires_grad=False)
        config = model.network.config
        self.element_types = [chemical_symbols[z] for z in model.metadata.elements]
        self.rcutfac = config.hops * config.cutoff / 2
        """Half of how far LAMMPS lists pairs and keeps ghosts, in Å."""
        self._near = NearWatch(model)

    def compute_gradients(self, data: Any) -> None:
        """Do nothing: LAMMPS calls it for models of another kind."""

    def compute_descriptors(self, data: Any) -> None:
        """Do nothing, as `compute_gradients`."""

    def compute_forces(self, data: Any) -> None:
        """Give LAMMPS the energies of a rank's own atoms, and their slopes by pair.

        Args:
            data: LAMMPS's `MLIAPData`.

        Raises:
            CrackError: a result is not finite.
        """
        owned = np.array(data.iatoms[: data.nlistatoms], dtype=np.int64)
        if not len(owned):
            data.energy = 0.0
            return
        first, second, vectors = _pairs(data)
        is_owned = np.zeros(data.ntotal, dtype=bool)
        is_owned[owned] = True
        # newer versions may list pairs of ghosts, too, and count none of them
        own = np.flatnonzero(is_owned[first])
        first, second, vectors = first[own], second[own], vectors[own]
        tree = tree_of(owned, first, second, vectors, data.ntotal)
        energies, forces = self._evaluate(data, tree, owned)
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            raise CrackError(
                "the model returned energies or forces that are not finite; the "
                "structure is probably far from everything the model has seen"
            )
        data.eatoms = energies
        data.energy = float(energies.sum())
        if data.npairs:
            all_pairs = np.zeros((data.npairs, 3))
            all_pairs[own] = pair_forces(tree, forces, first, second)
            data.update_pair_forces(all_pairs)

    def _evaluate(
        self, data: Any, tree: Tree, owned: Int[np.ndarray, " owned"]
    ) -> tuple[Float[np.ndarray, " owned"], Float[np.ndarray, "atom 3"]]:
        """Return energies of a rank's own atoms, and their forces on all atoms."""
        model, placed = self.model, np.flatnonzero(tree.is_placed)
        place = np.cumsum(tree.is_placed) - 1
        elements = np.array(model.metadata.elements)[np.asarray(data.elems)[placed]]
        atoms = ase.Atoms(elements, tree.positions[placed])
        graph = build_graph(atoms, model.rule, dtype=model.dtype)
        rows = torch.from_numpy(place[owned])
        graph = _around(graph, rows, model.network.config.hops)
        self._near.distances(graph, [len(atoms)], *on_host(self._near.by_atom(graph)))
        with torch.enable_grad():
            positions = graph.positions.requires_grad_()
            edges = model.network.edges(graph._replace(positions=positions))
            energies = model.atomic_energies(edges)[rows]
            (slopes,) = torch.autograd.grad(energies.sum(), positions)
        forces = np.zeros((data.ntotal, 3))
        forces[placed] = -slopes.double().numpy()
        return energies.detach().double().numpy(), forces

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the file of the model."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "student.pt"
            save_model(self.model, file)
            return _unpacked, (file.read_bytes(), str(self.model.dtype))


def _unpacked(content: bytes, dtype: str) -> UnifiedModel:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "student.pt"
        file.write_bytes(content)
        name = dtype.removeprefix("torch.")
        return UnifiedModel(load_model(file, dtype=getattr(torch, name)))


def _pairs(
    data: Any,
) -> tuple[
    Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Float[np.ndarray, "pair 3"]
]:
    if not data.npairs:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, np.zeros((0, 3))
    first, second = (
        np.array(ends, dtype=np.int64) for ends in (data.pair_i, data.pair_j)
    )
    return first, second, np.array(data.rij, dtype=float)


def _around(graph: AtomGraph, rows: torch.Tensor, hops: int) -> AtomGraph:
    """Return the graph with those edges alone that energies of some atoms depend on."""
    needed = torch.zeros(graph.n_atoms, dtype=torch.bool)
    needed[rows] = True
    for _ in range(hops - 1):
        needed[graph.neighbors[needed][graph.mask[needed]]] = True
    return graph._replace(mask=graph.mask & needed.unsqueeze(1))


def export(source: str | Path, target: Path, *, dtype: torch.dtype) -> None:
    """Write a model as a file for `pair_style mliap unified`.

    Args:
        source: a model file or a name.
        target: what is written, complete or not at all; a name that ends in .pt or .pth
            would be read by LAMMPS with `torch.load`, which refuses objects.
        dtype: of the network.

    Raises:
        CheckpointError: the model file cannot be used.
        ConfigError: LAMMPS's ML-IAP has no way to use such a model.
    """
    model = UnifiedModel(load_model(source, dtype=dtype))
    write_atomically(target, pickle.dumps(model))
