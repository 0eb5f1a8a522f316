import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from crack_md.api.inputs import domain_distance, load_potential
from crack_md.calculators import CrackCalculator
from crack_md.calculators.crack import training_statistics
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import ForceField, ModelMetadata
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.surfaces.adsorbates import parse_adsorbates
from crack_md.workflows.surfaces.outcome import neighbor_distance
from tests.factories import oxygen_slab, tiny_model


def test_emt_does_not_say_whether_it_knows_spin() -> None:
    _, info = load_potential("emt", gas_energies={"H2O": 1.0})
    assert info.spin_polarised is None
    assert info.forces == "gradient"
    assert info.gas_references == {"H2O": 1.0}


@pytest.mark.parametrize(
    ("energy_reference", "provenance", "spin"),
    [
        ("total", {}, None),
        ("total", {"teacher": "nequix-oam-1"}, True),
        ("adsorption", {}, False),
        ("adsorption", {"spin_polarised": True}, True),
        ("total", {"spin_polarised": False, "teacher": "nequix-oam-1"}, False),
    ],
)
def test_spin_of_the_training_data(
    tmp_path, energy_reference: str, provenance: dict[str, object], spin: bool | None
) -> None:
    metadata = ModelMetadata(energy_reference, (8, 78), provenance=provenance)  # type: ignore[arg-type]
    save_model(tiny_model(metadata=metadata, forces="direct"), tmp_path / "a.pt")
    _, info = load_potential(str(tmp_path / "a.pt"))
    assert info.spin_polarised is spin
    assert info.forces == "direct"


def test_distance_is_that_of_features_where_there_are_statistics() -> None:
    frames = [oxygen_slab(seed=seed) for seed in range(8)]
    bare = tiny_model()
    statistics = training_statistics(bare, frames)
    metadata = ModelMetadata("total", (8, 78), feature_statistics=statistics)
    taught = ForceField(bare.network, bare.scale, metadata)
    distance = domain_distance(CrackCalculator(taught, dtype="float64"))
    squeezed = frames[0].copy()
    squeezed.set_cell(squeezed.cell * 0.8, scale_atoms=True)
    assert distance(squeezed)[0] > neighbor_distance(squeezed)[0]
    # What is broken is found with features too.
    alone = Atoms("Pt2", [[0, 0, 0], [0, 0, 9.0]], cell=[20.0] * 3, pbc=True)
    assert distance(alone)[0] == np.inf


def test_distance_is_that_of_neighbors_for_all_others() -> None:
    for calculator in (EMT(), CrackCalculator(tiny_model())):
        assert domain_distance(calculator) is neighbor_distance


def test_model_must_know_the_adsorbate() -> None:
    info = ModelInfo("m", "0", "adsorption", {}, frozenset(["Pt", "O"]))
    ScreenSettings().check_for(info)
    with pytest.raises(ConfigError, match=r"not know C, which CO holds.*O, Pt"):
        ScreenSettings(adsorbates=parse_adsorbates("CO:C")).check_for(info)
