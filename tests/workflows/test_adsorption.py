import numpy as np
import pytest
from ase.build import fcc111

from crack_md.errors import ConfigError
from crack_md.workflows.adsorption import (
    adsorbate_named,
    gas_energy,
    landing,
    place,
)
from crack_md.workflows.sites import Site, find_sites
from crack_md.workflows.slab import Slab, prepare_slab

OXYGEN = adsorbate_named("O")


@pytest.fixture(scope="module")
def slab() -> Slab:
    return prepare_slab(fcc111("Pt", (2, 2, 4), vacuum=8.0))


@pytest.fixture(scope="module")
def sites(slab: Slab) -> dict[str, Site]:
    return {site.label: site for site in find_sites(slab)}


def test_oxygen_is_water_minus_hydrogen() -> None:
    assert gas_energy(OXYGEN, {"H2O": -14.0, "H2": -6.5}) == -7.5


def test_missing_gas_energy_is_named() -> None:
    with pytest.raises(ConfigError, match=r"missing: H2;.*--gas-reference"):
        gas_energy(OXYGEN, {"H2O": -14.0})


def test_unknown_adsorbate() -> None:
    with pytest.raises(ConfigError, match="unknown adsorbate 'CO2'; expected"):
        adsorbate_named("CO2")


def test_adsorbate_rides_on_the_relaxed_surface(
    slab: Slab, sites: dict[str, Site]
) -> None:
    relaxed = slab.atoms.copy()
    relaxed.positions[12:, 2] += 0.1
    placed = place(slab, sites["fcc"], OXYGEN, relaxed=relaxed)
    assert placed.symbols[-1] == "O"
    assert placed.get_tags()[-1] == 2
    assert placed.positions[-1] == pytest.approx(
        np.add(sites["fcc"].position, [0, 0, 0.1])
    )
    assert [i for c in placed.constraints for i in c.get_indices()] == list(range(8))


@pytest.mark.parametrize("start", ["ontop", "bridge", "fcc", "hcp"])
@pytest.mark.parametrize("end", ["ontop", "bridge", "fcc", "hcp"])
def test_landing_knows_every_image_of_every_site(
    slab: Slab, sites: dict[str, Site], start: str, end: str
) -> None:
    placed = place(slab, sites[start], OXYGEN, relaxed=slab.atoms)
    for member in sites[end].members:
        placed.positions[-1] = member + slab.atoms.cell[0] + [0.1, 0.0, 0.05]
        found = landing(
            placed, slab=slab, start=sites[start], sites=tuple(sites.values())
        )
        assert found.site == end
        assert found.migrated == (start != end)
        assert found.anomaly is None


@pytest.mark.parametrize(
    ("lift", "anomaly"), [(5.0, "desorbed"), (-3.0, "intercalated")]
)
def test_anomalies(
    slab: Slab, sites: dict[str, Site], lift: float, anomaly: str
) -> None:
    placed = place(slab, sites["fcc"], OXYGEN, relaxed=slab.atoms)
    placed.positions[-1, 2] += lift
    found = landing(placed, slab=slab, start=sites["fcc"], sites=tuple(sites.values()))
    assert found.anomaly == anomaly
    assert not found.migrated
    assert np.isfinite(found.height)
