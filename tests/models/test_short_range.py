"""The repulsion of nuclei: closed forms, where it ends, and what it leaves alone."""

import math

import ase
import numpy as np
import pytest
import torch
from ase.build import fcc111

from crack_md.data.dataset import LabelledStructure
from crack_md.data.statistics import fit_energy_scale, without_short_range
from crack_md.models.force_field import EnergyScale
from crack_md.models.short_range import ShortRange, switch_off
from tests.factories import graph_of, oxygen_slab, tiny_model, water

ZBL = ShortRange(num_elements=90, cutoff=5.0).double()
H, OXYGEN, CU, PT = (torch.tensor([z]) for z in (1, 8, 29, 78))
METALS = ase.Atoms("AgAuCoCuFeIrNiPdPtRhRuZnGaInSnPbBiScYTiOsRe").get_chemical_symbols()

BONDS = {"OH": 0.97, "HH": 0.74, "OO": 1.21, "PtO": 1.62, "RuO": 1.70, "NiO": 1.62}
BONDS |= {"CuO": 1.62, "ReO": 1.74, "PtH": 1.53, "CuCu": 2.22, "NiNi": 2.15}
BONDS |= {"PtPt": 2.33, "AgAg": 2.53, "AuAu": 2.47}
"""Shortest bonds known in Å: gas molecules, metal dimers, oxo groups."""


def at(*lengths: float) -> torch.Tensor:
    return torch.tensor(lengths, dtype=torch.float64)


def test_hydrogen_at_one_screening_length() -> None:
    a = 0.8854 * 0.529177210903 / 2
    phi = 0.0074102 + 0.1987103 + 0.1872931 + 0.0230263  # the four terms at x = 1
    x = a / (0.8 * 0.62)
    u = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    expected = 14.3996454 / a * phi * u
    assert ZBL.energies(at(a), H, H).item() == pytest.approx(expected, rel=5e-6)
    assert expected == pytest.approx(22.75, abs=0.01)


def test_contact_is_the_bare_coulomb_law() -> None:
    energy = ZBL.energies(at(1e-5), OXYGEN, PT).item()
    assert energy == pytest.approx(14.3996454 * 8 * 78 / 1e-5, rel=1e-3)


def test_the_switch_ends_with_two_vanishing_slopes() -> None:
    x = at(0.0, 0.5, 1.0 - 1e-9, 1.2).requires_grad_()
    value = switch_off(x)
    assert value.tolist() == pytest.approx([1, 1 - 28 / 64 + 48 / 128 - 21 / 256, 0, 0])
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert slope[2:].abs().max() < 1e-12
    assert bend[2:].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("pair", "bond"),
    list(BONDS.items()),
)
def test_bonds_feel_nothing(pair: str, bond: float) -> None:
    first, second = (torch.tensor([z]) for z in ase.Atoms(pair).numbers)
    assert ZBL.energies(at(bond), first, second).item() == 0.0
    assert ZBL.seen(at(bond), first, second).item() == bond


def test_what_a_network_sees_levels_off_smoothly() -> None:
    total = 1.36 + 0.66
    lengths = torch.linspace(0.05, 2.0, 4001, dtype=torch.float64).requires_grad_()
    first, second = OXYGEN.expand(4001), PT.expand(4001)
    seen = ZBL.seen(lengths, first, second)
    (slope,) = torch.autograd.grad(seen.sum(), lengths, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), lengths)
    assert seen[lengths < 0.6 * total].detach().numpy() == pytest.approx(0.7 * total)
    assert slope[lengths < 0.6 * total].abs().max() == 0
    assert (slope[lengths > 0.8 * total] == 1).all()
    assert (slope.diff() >= -1e-12).all()
    middle = (lengths - 0.7 * total).abs().argmin()
    assert slope[middle].item() == pytest.approx(0.5, abs=2e-3)
    assert bend.diff().abs().max() < 0.05  # no jump in the second derivative


@pytest.mark.parametrize("light", ["H", "O", None])
@pytest.mark.parametrize("metal", METALS)
def test_pairs_repel_ever_more(metal: str, light: str | None) -> None:
    """The repulsion itself is monotonic and strong: tens of eV at 0.3 Å."""
    first, second = ase.Atoms([metal, light or metal]).numbers
    n = 1000
    lengths = torch.linspace(0.3, 3.1, n, dtype=torch.float64)
    energies = ZBL.energies(
        lengths, torch.tensor([first] * n), torch.tensor([second] * n)
    )
    assert (energies.diff() <= 0).all()
    inside = lengths < 0.79 * ZBL.reach(*(torch.tensor([z]) for z in (first, second)))
    assert (energies[inside].diff() < 0).all()
    assert energies[0] > 60


def pressed() -> ase.Atoms:
    """Return O above a surface atom, much too near, and two metal atoms likewise."""
    atoms = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    atoms.rattle(0.1, seed=3)
    top = atoms.positions[5]
    atoms += ase.Atoms(
        "OPt", [top + np.array([0.2, 0.1, 1.1]), atoms.positions[1] + [0, 1.0, -1]]
    )
    atoms.pbc = True
    return atoms


def test_pressed_atoms_have_right_forces_and_stress() -> None:
    model = tiny_model(short_range="zbl")
    atoms = pressed()
    prediction = model(graph_of(model, atoms), stress=True)
    assert model.network.pair_energy(graph_of(model, atoms)).sum() > 10
    step = 1e-5
    for atom, axis in ((8, 2), (5, 2), (5, 0), (9, 1), (1, 1), (0, 0)):
        values = []
        for sign in (-1, 1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            values.append(model(graph_of(model, moved)).energy.item())
        slope = (values[1] - values[0]) / (2 * step)
        assert prediction.forces[atom, axis].item() == pytest.approx(-slope, rel=1e-6)
    values = []
    for sign in (-1, 1):
        moved = atoms.copy()
        strain = np.diag([0, 0, sign * step])
        moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        values.append(model(graph_of(model, moved)).energy.item())
    slope = (values[1] - values[0]) / (2 * step) / atoms.cell.volume
    assert prediction.stress[0, 2, 2].item() == pytest.approx(slope, rel=1e-6)


def test_half_of_the_repulsion_goes_to_each_atom() -> None:
    model = tiny_model(short_range="zbl", scale=EnergyScale())
    pair = ase.Atoms("CuO", [[0, 0, 0], [0, 0, 1.0]])
    halves = model.network.pair_energy(graph_of(model, pair))
    whole = ZBL.energies(at(1.0), CU, OXYGEN).item()
    assert halves.tolist() == pytest.approx([whole / 2, whole / 2])


def test_compact_and_padded_edges_repel_alike() -> None:
    network = tiny_model(short_range="zbl").network
    graph = graph_of(tiny_model(), pressed(), water())
    compact, padded = (network(graph, compact=one) for one in (True, False))
    assert compact.pair_energy.sum() > 10
    torch.testing.assert_close(compact.pair_energy, padded.pair_energy)
    torch.testing.assert_close(compact.node_energy, padded.node_energy)


def test_structures_without_near_atoms_are_as_before() -> None:
    with_term, without = tiny_model(short_range="zbl"), tiny_model()
    graph = graph_of(without, oxygen_slab(rattle=0.02))
    with torch.no_grad():
        one, other = with_term(graph), without(graph)
    assert one.energy.item() == other.energy.item()
    torch.testing.assert_close(one.forces, other.forces, rtol=0, atol=0)


def frame(atoms: ase.Atoms, energy: float, forces: np.ndarray) -> LabelledStructure:
    return LabelledStructure(
        atoms, energy, forces, None, "g", "made", np.ones(len(atoms), bool)
    )


def test_labels_lose_the_repulsion_and_pressed_frames_set_no_scale() -> None:
    pair = ase.Atoms("CuO", [[0, 0, 0], [0, 0, 1.0]])
    whole = ZBL.energies(at(1.0), CU, OXYGEN).item()
    far = pair.copy()
    far.positions[1, 2] = 1.8
    push = np.zeros((2, 3))
    push[1, 2] = 1000.0
    hard = frame(pair, whole - 7.0, push)
    soft = frame(far, -7.0, push / 1000)
    (_, left), repulsion = without_short_range([soft, hard], ZBL)
    assert repulsion == pytest.approx([0, whole])
    assert left.energy == pytest.approx(-7.0)
    assert left.forces[1, 2] < 1000 - whole  # its slope is steeper than 1/Å
    assert left.forces[0, 2] == pytest.approx(1000 - left.forces[1, 2])
    scale = fit_energy_scale([soft, hard], short_range=ZBL)
    assert scale.force_std == pytest.approx(math.sqrt(1 / 6))
    assert sum(scale.element_references.values()) == pytest.approx(-7.0)
    alone = fit_energy_scale([hard], short_range=ZBL)  # its elements occur nowhere else
    assert sum(alone.element_references.values()) == pytest.approx(-7.0, rel=1e-5)


@pytest.mark.parametrize("changes", [{"neighbors": "strict"}, {"forces": "direct"}])
def test_where_the_term_has_no_meaning_it_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="short_range 'zbl' is part of an energy"):
        tiny_model(short_range="zbl", **changes)
