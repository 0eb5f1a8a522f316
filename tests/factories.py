"""Small seeded models and structures that many tests share."""

from typing import Any

import ase
import numpy as np
import torch
from ase.build import add_adsorbate, fcc111, molecule

from crack_md.graph import AtomGraph, batch_graphs
from crack_md.models.equiformer.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.neighbors import build_graph

ELEMENTS = (1, 8, 29, 46, 78)


def tiny_config(**changes: Any) -> EquiformerV2Config:
    """Return a network of some thousand parameters that uses every feature."""
    options = {
        "neighbors": "smooth",
        "cutoff": 4.0,
        "max_neighbors": 8,
        "num_layers": 2,
        "sphere_channels": 8,
        "attn_hidden_channels": 8,
        "num_heads": 2,
        "attn_alpha_channels": 4,
        "attn_value_channels": 4,
        "ffn_hidden_channels": 8,
        "lmax": 2,
        "mmax": 2,
        "grid_resolution": 12,
        "edge_channels": 8,
        "num_distance_basis": 16,
        "activation": "gate",
        "ffn": "gate",
        "forces": "gradient",
        "average_degree": 10.0,
        "average_atoms": 1.0,
    }
    return EquiformerV2Config(**{**options, **changes})


def tiny_model(
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    scale: EnergyScale | None = None,
    metadata: ModelMetadata | None = None,
    **changes: Any,
) -> ForceField:
    """Return a seeded model in eval mode with weights large enough to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = EquiformerV2(tiny_config(**changes))
    model = ForceField(
        network,
        scale or EnergyScale(element_references={8: -3.0, 78: -6.0}),
        metadata or ModelMetadata("total", ELEMENTS, {"H2O": -14.0, "H2": -6.8}),
    )
    return model.to(dtype).eval()


def oxygen_slab(*, rattle: float = 0.1, seed: int = 0) -> ase.Atoms:
    """Return O on the fcc site of a rattled 2×2×3 Pt(111) slab."""
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=6.0)
    add_adsorbate(slab, "O", 1.3, "fcc")
    slab.pbc = True
    slab.rattle(rattle, rng=np.random.default_rng(seed))
    return slab


def water() -> ase.Atoms:
    """Return a water molecule without a cell."""
    return molecule("H2O")


def graph_of(model: ForceField, *structures: ase.Atoms) -> AtomGraph:
    """Return one graph of the structures, as the model wants it."""
    return batch_graphs(
        [build_graph(atoms, model.rule, dtype=model.dtype) for atoms in structures]
    )
