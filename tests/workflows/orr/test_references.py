import pytest

from crack_md.errors import ConfigError
from crack_md.workflows.orr import (
    REFERENCES,
    gas_energy,
    gas_molecules,
    reference_named,
)


@pytest.mark.parametrize(
    ("composition", "gases"),
    [
        ({"O": 1}, {"H2O": 1.0, "H2": -1.0}),
        ({"O": 1, "H": 1}, {"H2O": 1.0, "H2": -0.5}),
        ({"O": 2, "H": 1}, {"H2O": 2.0, "H2": -1.5}),
        ({"O": 1, "H": 2}, {"H2O": 1.0}),
        ({"C": 1, "O": 1}, {"CO": 1.0}),
        ({"N": 1, "H": 3}, {"N2": 0.5, "H2": 1.5}),
        # CH3OH: CO + 2 H2
        ({"C": 1, "O": 1, "H": 4}, {"CO": 1.0, "H2": 2.0}),
    ],
)
def test_adsorbates_are_made_of_gas_molecules(
    composition: dict[str, int], gases: dict[str, float]
) -> None:
    assert gas_molecules(composition) == gases


def test_oc20_energies_per_atom() -> None:
    """H -3.477, O -7.204, C -7.282, N -8.083 eV: published with the data set."""
    energies = REFERENCES["OC20"].gas_energies
    assert energies is not None
    for symbol, expected in {
        "H": -3.477,
        "O": -7.204,
        "C": -7.282,
        "N": -8.083,
    }.items():
        assert gas_energy(symbol, {symbol: 1}, energies) == pytest.approx(expected)


def test_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match=r"'O2'.*H2O-H2, half-O2, OC20"):
        reference_named("O2")
    with pytest.raises(ConfigError, match="no gas-phase reference for S"):
        gas_molecules({"S": 1, "H": 2})
    with pytest.raises(ConfigError, match=r"H2O and H2.*missing: H2;"):
        gas_energy("O", {"O": 1}, {"H2O": -14.0})
