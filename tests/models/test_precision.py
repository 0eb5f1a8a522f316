"""Large products in bfloat16."""

import pytest
import torch
from ase.build import add_adsorbate, fcc111

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
    atoms = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=6.0, periodic=True)
    atoms.symbols[4:7] = "Cu"
    add_adsorbate(atoms, "O", 1.3, "fcc")
    for seed, amplitude in enumerate((0.0, 0.05, 0.1)):
        atoms.rattle(amplitude, seed=seed)
        exact, rounded = atoms.copy(), atoms.copy()
        exact.calc = CrackCalculator()
        rounded.calc = CrackCalculator(dtype="bfloat16")
        difference = rounded.get_potential_energy() - exact.get_potential_energy()
        assert abs(difference) < 5e-3
        assert abs(rounded.get_forces() - exact.get_forces()).max() < 5e-3
