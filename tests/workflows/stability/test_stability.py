import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT

from crack_md.workflows.stability.metals import (
    ELECTRODES,
    dissolution_potential,
    relax_metal,
)
from crack_md.workflows.stability.stability import (
    SlabStability,
    SlabVariants,
    VariantEnergy,
)
from crack_md.workflows.surfaces.slab import prepare_slab
from tests.workflows.stability.bonds import LENGTH_A, Bonds, platinum, sandwich

P, N, X = 0.8, 0.6, 0.9
"""Bonds Pt–Pt, Ni–Ni, Pt–Ni in eV."""


def test_dissolution_by_hand() -> None:
    assert dissolution_potential("Pt", 1.0) == pytest.approx(1.18 + 0.5)
    assert dissolution_potential("Ag", -0.2) == pytest.approx(0.5996)
    assert dissolution_potential("Xe", 0.0) is None
    assert ELECTRODES["Ni"].electrons == 2


def test_metal_of_bonds() -> None:
    """Six bonds for each atom, in fcc and hcp alike."""
    metal = relax_metal("Pt", Bonds())
    assert (metal.lattice, metal.is_natural) == ("fcc", True)
    assert metal.energy_eV == pytest.approx(-6 * P, abs=1e-4)
    assert metal.packed_eV["hcp"] == pytest.approx(-6 * P, abs=1e-4)
    assert metal.neighbor_A == pytest.approx(LENGTH_A, abs=1e-3)


def test_metal_that_is_not_packed_in_nature() -> None:
    """Carbon, which EMT knows, is diamond: it is taken as fcc, and said to be so."""
    carbon = relax_metal("C", EMT())
    assert (carbon.lattice, carbon.is_natural) == ("fcc", False)
    assert carbon.packed_eV["fcc"] == carbon.energy_eV


def assess(atoms: object, shift_eV: float | None = None) -> SlabStability:
    """Return the stability by unrelaxed energies: no bond would change its length."""
    slab = prepare_slab(atoms)
    metals = {s: relax_metal(s, Bonds()) for s in set(map(str, slab.atoms.symbols))}

    def energy(each: object) -> float:
        copied = each.copy()
        copied.calc = Bonds()
        return float(copied.get_potential_energy())

    compared = SlabVariants(slab, energy(slab.atoms), metals)
    energies = [
        VariantEnergy(variant, energy(variant.slab.atoms), "converged")
        for variant in compared.all
    ]
    return compared.assess(energies, lambda variant: shift_eV)


def test_vacancy_of_platinum_by_bonds() -> None:
    """Nine bonds break at the surface, six are made in the bulk; two electrons."""
    found = assess(platinum())
    (atom,) = found.atoms
    assert atom.dissolution_V == pytest.approx(1.18 + 3 * P / 2, abs=1e-3)
    assert atom.segregation_eV is None
    assert found.formation_eV == pytest.approx(0.0, abs=1e-4)
    assert found.notes == ("no segregation energy: one element",)


def test_sandwich_by_bonds() -> None:
    """Bonds of the swap: 8 Pt–Ni, 6 Ni–Ni, 6 Pt–Pt become 13, 2 and 5.

    Of the slab's 84 bonds 48 are Pt–Pt, 12 Ni–Ni and 24 Pt–Ni; the slabs of the
    elements have 84 each. A surface atom has 6 Pt–Pt and 3 Pt–Ni bonds.
    """
    found = assess(sandwich())
    nickel, pt = found.atoms
    assert nickel.segregation_eV == pytest.approx(-5 * X + 4 * N + P, abs=1e-4)
    assert nickel.dissolution_V is None
    assert pt.segregation_eV is None
    removal = 6 * P + 3 * X - 6 * P
    assert pt.dissolution_V == pytest.approx(1.18 + removal / 2, abs=1e-3)
    mixed = (15 * P + 9 * N - 24 * X) / 16
    assert found.formation_eV == pytest.approx(mixed, abs=1e-3)
    assert found.rises == nickel
    assert found.dissolves == pt
    assert found.notes == ()


@pytest.mark.parametrize(("shift", "turned"), [(1.5, ("Ni",)), (1.2, ()), (None, ())])
def test_adsorbate_reverses_segregation(
    shift: float | None, turned: tuple[str, ...]
) -> None:
    """Nickel rises by -1.3 eV; an adsorbate that shuns it by more keeps it down."""
    found = assess(sandwich(), shift)
    assert found.reversed_elements == turned
    covered = found.atoms[0].segregation_adsorbed_eV
    assert covered == (None if shift is None else pytest.approx(-1.3 + shift, abs=1e-4))


def test_notes_say_what_is_missing() -> None:
    """An open slab has no formation energy, an unknown metal no dissolution."""
    slab = prepare_slab(fcc111("Pt", (2, 2, 2), a=LENGTH_A * 2**0.5, vacuum=8.0))
    compared = SlabVariants(slab, 0.0, {"Pt": None})
    failed = [VariantEnergy(v, None, "not_converged") for v in compared.all]
    found = compared.assess(failed, lambda variant: None)
    assert found.formation_eV is None
    assert found.dissolves is None
    assert found.notes == (
        "bulk Pt is no crystal the model knows",
        "no formation energy: the slab is not close-packed, or thin",
        "1 Pt vacancy: not_converged",
        "no segregation energy: one element",
    )
