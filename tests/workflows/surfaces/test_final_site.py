import numpy as np
import pytest
from ase.build import fcc111

from crack_md.workflows.surfaces.adsorbates import (
    ADSORBATES,
    Placement,
    place,
    random_starts,
)
from crack_md.workflows.surfaces.outcome import find_final_site
from crack_md.workflows.surfaces.sites import Site, find_sites, random_sites
from crack_md.workflows.surfaces.slab import Slab, prepare_slab

OXYGEN = ADSORBATES["O"]


@pytest.fixture(scope="module")
def slab() -> Slab:
    atoms = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    return prepare_slab(atoms)


@pytest.fixture(scope="module")
def sites(slab: Slab) -> dict[str, Site]:
    return {site.label: site for site in find_sites(slab)}


@pytest.mark.parametrize("start", ["ontop", "bridge", "fcc", "hcp"])
@pytest.mark.parametrize("end", ["ontop", "bridge", "fcc", "hcp"])
def test_knows_every_image_of_every_site(
    slab: Slab, sites: dict[str, Site], start: str, end: str
) -> None:
    begin = Placement(OXYGEN, sites[start])
    placed = place(slab, begin, relaxed=slab.atoms)
    for member in sites[end].members:
        placed.positions[-1] = member + slab.atoms.cell[0] + [0.1, 0.0, 0.05]
        found = find_final_site(
            placed, slab=slab, start=begin, sites=tuple(sites.values())
        )
        assert found.site == end
        assert found.migrated == (start != end)


@pytest.mark.parametrize(
    ("label", "coordination"), [("ontop", 1), ("bridge", 2), ("fcc", 3), ("hcp", 3)]
)
def test_coordination_is_counted_where_it_ended(
    slab: Slab, sites: dict[str, Site], label: str, coordination: int
) -> None:
    start = Placement(OXYGEN, sites[label])
    placed = place(slab, start, relaxed=slab.atoms)
    placed.positions[-1] += 3 * slab.atoms.cell[0]
    found = find_final_site(placed, slab=slab, start=start, sites=tuple(sites.values()))
    assert found.coordination == coordination
    assert found.elements == ("Pt" if coordination == 1 else f"Pt{coordination}")
    top = slab.atoms.positions[:, 2].max()
    assert found.height == pytest.approx(sites[label].position[2] - top, abs=1e-6)


def test_elements_are_those_in_touch() -> None:
    atoms = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    atoms.numbers[12] = 44
    slab = prepare_slab(atoms)
    sites = find_sites(slab)
    start = Placement(OXYGEN, next(s for s in sites if s.environment == "fcc-Pt2Ru"))
    placed = place(slab, start, relaxed=slab.atoms)
    assert (
        find_final_site(placed, slab=slab, start=start, sites=sites).elements == "Pt2Ru"
    )
    placed.positions[-1, 2] += 5.0
    far = find_final_site(placed, slab=slab, start=start, sites=sites)
    assert (far.coordination, far.elements) == (0, "")


def test_random_places_are_named_but_never_migrate(slab: Slab) -> None:
    sites = find_sites(slab)
    drawn = random_sites(slab, count=20, seed=0)
    names = set()
    for start in random_starts(OXYGEN, drawn, seed=0):
        placed = place(slab, start, relaxed=slab.atoms)
        found = find_final_site(placed, slab=slab, start=start, sites=sites)
        assert not found.migrated
        names.add(found.site)
    assert names == {"ontop", "bridge", "fcc", "hcp"}
    assert np.isfinite(found.height)
