"""Small graphs, steps and terms for the tests of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from torch import Tensor

from crack_md.data.dataset import LabelledStructure, fingerprint, to_row
from crack_md.data.writer import RowWriter
from crack_md.graph import AtomGraph, batch_graphs
from crack_md.models.force_field import Prediction
from crack_md.models.teachers import TeacherLabels
from crack_md.training.data.frames import Labels
from crack_md.training.losses import Contrast, CrackLoss, DistillationStep, Features

CHANNELS = 5


def random_graph(sizes: Sequence[int], *, n_slots: int = 4, seed: int = 0) -> AtomGraph:
    """Return structures whose atoms have random neighbors, images and self-images."""
    generator = torch.Generator().manual_seed(seed)
    graphs = [
        AtomGraph(
            positions=torch.randn(n, 3, generator=generator),
            atomic_numbers=torch.randint(1, 80, (n,), generator=generator),
            cell=10 * torch.eye(3).unsqueeze(0),
            pbc=torch.ones(1, 3).bool(),
            batch=torch.zeros(n, dtype=torch.long),
            neighbors=torch.randint(0, n, (n, n_slots), generator=generator),
            cell_shift=torch.zeros(n, n_slots, 3),
            mask=torch.rand(n, n_slots, generator=generator) < 0.8,
        )
        for n in sizes
    ]
    return batch_graphs(graphs)


def step_of(
    graph: AtomGraph,
    *,
    seed: int = 0,
    features: Sequence[Tensor] | None = None,
    requires_grad: bool = False,
) -> DistillationStep:
    """Return a step with random features, or with the given (student, teacher)."""
    generator = torch.Generator().manual_seed(seed)
    if features is None:
        features = torch.randn(2, graph.n_atoms, CHANNELS, generator=generator).unbind()
    student, teacher = features
    if requires_grad:
        student = student.clone().requires_grad_()
    prediction = Prediction(
        energy=torch.zeros(graph.n_structures, dtype=torch.float64),
        forces=torch.zeros(graph.n_atoms, 3),
        stress=None,
        node_features=student.unsqueeze(1),
    )
    labels = Labels(
        prediction.energy,
        prediction.forces,
        torch.ones(graph.n_atoms).bool(),
        torch.bincount(graph.batch),
    )
    return DistillationStep(
        graph,
        prediction,
        prediction._replace(node_features=teacher.unsqueeze(1)),
        labels,
        features=(Features(teacher, student),),
    )


def contrast(**changes: Any) -> Contrast:
    """Return the settings of the paper, with changes."""
    options = {
        "temperature": 0.15,
        "anchor": "teacher",
        "negatives": "structure",
        "chunk": 16,
    }
    return Contrast(**(options | changes))


def crack_term(**changes: Any) -> CrackLoss:
    """Return the relational loss of the paper, with changes."""
    options = {"pairs": "unique", "smallest_difference": 1e-3} | changes
    own = {"pairs", "smallest_difference", "degrees", "same_elements"}
    return CrackLoss(
        contrast(**{key: options[key] for key in options.keys() - own}),
        **{key: options[key] for key in options.keys() & own},
    )


TINY = {
    "neighbors": "smooth",
    "cutoff": 4.0,
    "num_layers": 1,
    "sphere_channels": 8,
    "attn_hidden_channels": 8,
    "num_heads": 2,
    "attn_alpha_channels": 4,
    "attn_value_channels": 4,
    "ffn_hidden_channels": 8,
    "lmax": 1,
    "mmax": 1,
    "grid_resolution": 6,
    "edge_channels": 8,
    "num_distance_basis": 16,
    "activation": "gate",
    "average_atoms": 1.0,
}
"""The smallest real student: lmax 1, eight channels."""


def labelled(number: int, *, with_teacher: bool = True) -> LabelledStructure:
    """Return a rattled cell of copper and gold with EMT labels and made-up features."""
    atoms = bulk("Cu", cubic=True) if number % 2 else bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.1, seed=number)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    energies = atoms.get_potential_energies()[:, None, None]
    features = np.sin(energies * np.arange(1, CHANNELS + 1)).astype(np.float32)
    free = np.arange(len(atoms)) > 0
    return LabelledStructure(
        atoms=Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True),
        energy=energy,
        forces=forces,
        teacher=TeacherLabels(energy, forces, features) if with_teacher else None,
        group=f"cell-{number}",
        kind="relaxed" if number % 3 == 0 else "rattled",
        free=free,
        split=("train", "train", "val", "test")[number % 4],
    )


def write_dataset(path: Path, structures: Sequence[LabelledStructure]) -> Path:
    """Write a labelled set as ``crack-md label`` does."""
    metadata = {
        "format_version": 1,
        "teacher": "emt",
        "teacher_sha256": "0" * 64,
        "energy_reference": "total",
        "gas_references": {"H2O": -12.8, "H2": -6.7},
        "fingerprint": fingerprint(structures),
        "n_features": CHANNELS,
    }
    writer = RowWriter(path, job={})
    writer.append([to_row(structure) for structure in structures], done=1)
    return writer.finish(metadata)


def recipe(data: Path, folder: Path, **run: object) -> dict[str, Any]:
    """Return the sections of a small training recipe."""
    return {
        "student": {"architecture": TINY | {"forces": "direct"}},
        "data": {"path": str(data)},
        "losses": [
            {"kind": "crack", "weight": 1.0, "temperature": 0.15},
            {"kind": "n2n", "weight": 1.0},
            {"kind": "output", "energy_weight": 4.0, "force_weight": 100.0},
        ],
        "optimizer": {"lr": 5e-3, "warmup_steps": 3},
        "run": {
            "folder": str(folder),
            "batch_size": 4,
            "max_steps": 10,
            "log_every": 1,
            "accelerator": "cpu",
        }
        | run,
    }
