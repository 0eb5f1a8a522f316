"""Edges of many graphs in flat columns, in memory or in files beside the structures.

n_edges   (structure,)   edges of each
degree    (atom,)        how many of them end at an atom
sender    (edge,)        the other atom, numbered within its structure
shift     (edge, 3)      the cell that it is in
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from crack_md.data.columns import Columns, ColumnWriter, open_columns
from crack_md.data.dataset import LabelledStructure
from crack_md.data.parallel import first_rank_first
from crack_md.data.stored import StoredStructures
from crack_md.errors import DataError
from crack_md.files import claim_folder
from crack_md.graph import AtomGraph
from crack_md.models.teachers import as_periodic
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
