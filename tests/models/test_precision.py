"""Large products in bfloat16."""

import pytest
import torch
from ase.build import add_adsorbate, fcc111
from ase.optimize import LBFGS

from crack_md import CrackCalculator
from crack_md.models.precision import with_products_in
from tests.factories import graph_of, oxygen_slab, tiny_model


@pytest.mark.parametrize("activation", ["s2", "gate"])
@pytest.mark.parametrize("ffn", ["grid", "gate"])
def test_random_weights_move_forces_by_a_percent(activation: str, ffn: str) -> None:
    model = tiny_model(
        dtype=torch.float32, activation=activation, ffn=ffn, forces="direct"
    )
    before = {name: weight.dtype for name, weight in model.state_dict().items()}
    low = with_products_in(model, torch.bfloat16)
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        exact, rounded = model(graph), low(graph)
    assert {n: w.dtype for n, w in model.state_dict().items()} == before
    assert rounded.forces.dtype == rounded.node_features.dtype == torch.float32
    error = (rounded.forces - exact.forces).abs().max()
    assert 0 < error < 0.01 * exact.forces.abs().max()


def test_the_packaged_student_keeps_energies_and_forces() -> None:
    """Along a relaxation from a rattled start; forces of eV/Å move by 0.2 % at most."""
    atoms = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=6.0, periodic=True)
    atoms.symbols[4:7] = "Cu"
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.rattle(0.1, seed=0)
    atoms.calc = CrackCalculator()
    rounded = atoms.copy()
    rounded.calc = CrackCalculator(dtype="bfloat16")
    largest = []
    for _ in LBFGS(atoms, logfile=None).irun(fmax=0.05, steps=40):
        rounded.positions = atoms.positions
        difference = rounded.get_potential_energy() - atoms.get_potential_energy()
        assert abs(difference) < 5e-3
        largest.append(abs(atoms.get_forces()).max())
        moved = abs(rounded.get_forces() - atoms.get_forces()).max()
        assert moved < max(5e-3, 2e-3 * largest[-1])
    assert largest[0] > 1 > 0.1 > largest[-1]
