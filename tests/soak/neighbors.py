"""Tables of neighbors of random cells against a search of every image of every atom."""

from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms

from crack_md.neighbors import SmoothNeighbors, StrictNeighbors, build_graph
from crack_md.neighbors.search import STEPS_PER_A, NeighborRule, last_step
from tests.soak.records import Record, sweep

Entry = tuple[int, int, int, int, int]
"""Distance in 1e-5 Å, sender, shift: the order of a row."""
CLOSEST = 0.05
"""Cells with atoms nearer than this (Å) are drawn again: they are refused."""


def try_cells(begin: int, end: int) -> Record:
    """Return what cells of these numbers have: pairs, and the numbers that differ."""
    wrong, pairs = [], 0
    for number in range(begin, end):
        generator = np.random.default_rng((0, number))
        atoms, rule = random_cell(generator), random_rule(generator)
        expected = every_image(atoms, rule)
        pairs += sum(map(len, expected))
        if table_rows(atoms, rule) != expected:
            wrong.append(number)
    return {"cases": end - begin, "pairs": pairs, "wrong": wrong}


def run(folder: Path, cells: float) -> Record:
    """Return how many cells and pairs were compared, and which cells differ."""
    return sweep(folder, int(cells), try_cells)


def passes(found: Record) -> bool:
    """Return whether every table was right."""
    return not found["wrong"]


def random_rule(generator: np.random.Generator) -> NeighborRule:
    """Return one of both rules with a radius of 1.5 to 5.5 Å."""
    radius = float(generator.uniform(1.5, 5.5))
    if generator.random() < 0.5:
        return SmoothNeighbors(radius)
    return StrictNeighbors(int(generator.integers(1, 25)), radius)


def random_cell(generator: np.random.Generator) -> Atoms:
    """Return up to a dozen atoms in a cell that is skewed, turned, flat or far away."""
    while True:
        atoms = _draw(generator)
        if not any(every_image(atoms, SmoothNeighbors(CLOSEST))):
            return atoms


def _draw(generator: np.random.Generator) -> Atoms:
    kind = generator.choice(["skewed", "lattice", "far", "open"])
    cell = np.diag(generator.uniform(1.5, 7.0, 3)) + generator.uniform(-1, 1, (3, 3))
    cell *= generator.choice([1, -1], size=(3, 1))  # left-handed cells, too
    places = generator.uniform(-1.5, 2.5, (int(generator.integers(1, 12)), 3))
    if kind == "lattice":  # many distances tie
        cell = np.diag(generator.choice([2.0, 3.0, 4.0], size=3))
        places = generator.choice([0.0, 0.5], size=(len(places), 3))
        places = np.unique(places, axis=0)
    if kind == "skewed":  # the same lattice by long vectors
        cell[generator.integers(3)] += cell[generator.integers(3)]
    positions = places @ cell
    if kind == "far":  # in steps of 1/1024 Å, which are exact this far away, too
        cell, positions = np.rint(cell * 1024) / 1024, np.rint(positions * 1024) / 1024
        positions += generator.integers(-100_000, 100_000, places.shape) @ cell
    pbc = generator.random(3) < (0.3 if kind == "open" else 0.8)
    atoms = Atoms(f"Pt{len(places)}", positions, cell=cell, pbc=pbc)
    if kind == "open":
        atoms.cell[~atoms.pbc] = 0.0
    if np.linalg.matrix_rank(atoms.cell[atoms.pbc], tol=0.5) < pbc.sum():
        return _draw(generator)
    return atoms


def every_image(atoms: Atoms, rule: NeighborRule) -> list[list[Entry]]:
    """Return the rows of the table, by the distance of each atom to each image."""
    cell = atoms.cell.array * atoms.pbc[:, None]
    # far atoms are counted from their images near the origin, exactly
    inverse = np.linalg.pinv(cell)
    home = np.floor(atoms.positions @ inverse + 1e-9).astype(int) * atoms.pbc
    near = atoms.positions - home @ cell
    heights = 1 / np.maximum(np.linalg.norm(inverse, axis=0), 1e-9)
    reach = np.where(atoms.pbc, np.ceil(rule.cutoff / heights) + 1, 0).astype(int)
    images = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    ends = near[None] + (images @ cell)[:, None]  # (image, sender)
    rows = []
    for receiver, point in enumerate(near):
        length = np.linalg.norm(ends - point, axis=-1)
        inside = (length < rule.cutoff) & (length > 1e-6)
        if isinstance(rule, StrictNeighbors):  # whole groups of ties, by their steps
            steps = np.rint(length * STEPS_PER_A)
            inside = (steps <= last_step(rule.cutoff)) & (length > 1e-6)
        image, sender = np.nonzero(inside)
        shift = images[image] - home[sender] + home[receiver]
        steps = np.rint(length[inside] * 1e5).astype(int)
        columns = [steps, sender, *shift.T]
        row = sorted(zip(*(column.tolist() for column in columns), strict=True))
        rows.append(row[: getattr(rule, "count", None)])
    return rows


def table_rows(atoms: Atoms, rule: NeighborRule) -> list[list[Entry]]:
    """Return the rows of the table that models are given."""
    graph = build_graph(atoms, rule)
    shift = graph.cell_shift.numpy().astype(int)
    neighbors, filled = graph.neighbors.numpy(), graph.mask.numpy()
    ends = atoms.positions[neighbors] + shift @ atoms.cell.array
    length = np.linalg.norm(ends - atoms.positions[:, None], axis=-1)
    steps = np.rint(length * 1e5).astype(int)
    columns = np.concatenate([steps[..., None], neighbors[..., None], shift], axis=-1)
    return [
        [tuple(entry) for entry in row[mask].tolist()]
        for row, mask in zip(columns, filled, strict=True)
    ]
