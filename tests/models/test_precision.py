"""Large products in bfloat16 and TF32."""

import pytest
import torch
from ase.build import add_adsorbate, fcc111
from ase.optimize import LBFGS
from torch import Tensor

from benchmarks.models import random_22m
from crack_md import CrackCalculator
from crack_md.bench.speed import platinum_slab
from crack_md.errors import ConfigError
from crack_md.graph import AtomGraph
from crack_md.models.force_field import ForceField, with_products_in, with_tf32_products
from crack_md.models.precision import tf32_products
from tests.factories import graph_of, oxygen_slab, tiny_model
from tests.rounding import Tf32Products, tf32

BOUND = 0.01
"""Of the largest force: how far rounded products may move forces of random weights."""


def rounded_forces(model: ForceField, graph: AtomGraph, how: str) -> Tensor:
    """Return forces with bfloat16 products, or with those a GPU rounds to TF32."""
    with torch.no_grad():
        if how == "bfloat16":
            return with_products_in(model, torch.bfloat16)(graph).forces
        with Tf32Products():
            return model(graph).forces


def test_tf32_has_ten_bits() -> None:
    one, step = 1.0, 2.0**-10
    given = torch.tensor([one, one + 0.49 * step, one + 0.51 * step, one + 1.5 * step])
    assert tf32(given).tolist() == [one, one, one + step, one + 2 * step]
    with Tf32Products():
        assert (given[:, None] @ torch.ones(1, 1)).flatten().tolist()[2] == one + step


@pytest.mark.parametrize("how", ["bfloat16", "tf32"])
@pytest.mark.parametrize("activation", ["s2", "gate"])
@pytest.mark.parametrize("ffn", ["grid", "gate"])
def test_random_weights_move_forces_by_a_percent(
    activation: str, ffn: str, how: str
) -> None:
    model = tiny_model(
        dtype=torch.float32, activation=activation, ffn=ffn, forces="direct"
    )
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        exact = model(graph).forces
    error = (rounded_forces(model, graph, how) - exact).abs().max()
    assert 0 < error < BOUND * exact.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["bfloat16", "tf32"])
def test_the_published_size_moves_forces_by_a_percent(how: str) -> None:
    model, slab = random_22m(), platinum_slab(46)
    graph = graph_of(model, slab)
    with torch.no_grad():
        exact = model(graph).forces
    error = (rounded_forces(model, graph, how) - exact).abs().max()
    assert 0 < error < BOUND * exact.abs().max()


def test_tf32_keeps_the_stress() -> None:
    """Positions rounded in their products with forces would make it 2 % wrong here."""
    model = tiny_model(dtype=torch.float32)
    slab = oxygen_slab()
    slab.translate([400.0, 700.0, 0.0])
    graph = graph_of(model, slab)
    with torch.no_grad():
        exact = model(graph, stress=True).stress
        with Tf32Products():
            rounded = model(graph, stress=True).stress
    assert (rounded - exact).abs().max() < 2e-3 * exact.abs().max()


def test_weights_and_outputs_keep_their_precision() -> None:
    model = tiny_model(dtype=torch.float32)
    before = {name: weight.dtype for name, weight in model.state_dict().items()}
    rounded = with_products_in(model, torch.bfloat16)(graph_of(model, oxygen_slab()))
    assert {n: w.dtype for n, w in model.state_dict().items()} == before
    assert rounded.forces.dtype == rounded.node_features.dtype == torch.float32


def test_the_packaged_student_keeps_energies_and_forces() -> None:
    """Along a relaxation from a rattled start; forces of eV/Å move by 0.2 % at most."""
    atoms = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=6.0, periodic=True)
    atoms.symbols[4:7] = "Cu"
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.rattle(0.1, seed=0)
    atoms.calc = CrackCalculator("accurate")  # EquiformerV2; ACE has no such products
    rounded = atoms.copy()
    rounded.calc = CrackCalculator("accurate", dtype="bfloat16")
    largest = []
    for _ in LBFGS(atoms, logfile=None).irun(fmax=0.05, steps=40):
        rounded.positions = atoms.positions
        difference = rounded.get_potential_energy() - atoms.get_potential_energy()
        assert abs(difference) < 5e-3
        largest.append(abs(atoms.get_forces()).max())
        moved = abs(rounded.get_forces() - atoms.get_forces()).max()
        assert moved < max(5e-3, 2e-3 * largest[-1])
    assert largest[0] > 1 > 0.1 > largest[-1]


def test_tf32_holds_for_one_call_alone() -> None:
    """What a GPU makes of it is for a GPU; that it is asked, and no longer, is not."""
    model = with_tf32_products(tiny_model(dtype=torch.float32))
    seen = []
    model.network.norm.register_forward_hook(
        lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    before = torch.get_float32_matmul_precision()
    assert before != "high"
    model(graph_of(model, oxygen_slab()))
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ZeroDivisionError), tf32_products(wanted=True):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


def test_tf32_of_two_threads_is_put_back_by_the_last() -> None:
    before = torch.get_float32_matmul_precision()
    one, other = tf32_products(wanted=True), tf32_products(wanted=True)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "high"
    other.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == before


def test_tf32_leaves_the_model_that_was_given() -> None:
    model = tiny_model()
    assert with_tf32_products(model).products == "tf32"
    assert model.products == "exact"


def test_tf32_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="'tf32' is a format of GPUs"):
        CrackCalculator(tiny_model(), device="cpu", dtype="tf32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tf32_moves_forces_by_little() -> None:
    exact, rounded = oxygen_slab(), oxygen_slab()
    exact.calc = CrackCalculator(compile=False)
    rounded.calc = CrackCalculator(compile=False, dtype="tf32")
    assert abs(rounded.get_forces() - exact.get_forces()).max() < 5e-3
