"""The whole check on molecules whose potential is a formula, and on MD17 itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crack_md.data.torsions import dihedral_angles
from crack_md.errors import ConfigError, DataError
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.sampling.analysis import SampleFrames, analyse
from crack_md.workflows.sampling.chains import (
    ChainReplicas,
    LangevinSettings,
    SamplingSettings,
)
from crack_md.workflows.sampling.check import (
    SamplingCheck,
    Verdict,
    check_halves,
    compare_chains,
    judge,
)
from crack_md.workflows.sampling.molecule import find_molecule
from crack_md.workflows.sampling.reference import ReferenceFrames, read_reference
from crack_md.workflows.sampling.temperature import measure_thermometers
from tests.workflows.sampling.toys import HYDROGEN_PEROXIDE, Peroxide, peroxide_start

TOY = ModelInfo("toy", "sha", "total")
T = 500.0
# 16 chains of 5 ps are few: at some seeds a metric is a little above its limit
SETTINGS = SamplingSettings(T, n_chains=16, steps=10_000, record_every=40, seed=3)


def sampled(
    potential: Peroxide, *, temperature_K: float = T, chains: int = 64, frames: int = 60
) -> ReferenceFrames:
    """Return frames of independent chains, one chain after the other."""
    starts = np.repeat(peroxide_start()[None], chains, axis=0)
    dynamics = ChainReplicas(
        HYDROGEN_PEROXIDE,
        starts,
        potential,
        LangevinSettings(temperature_K, seed=99),
        starts,
    )
    dynamics.advance(600)
    found = []
    for _ in range(frames):
        dynamics.advance(40)
        found.append(dynamics.positions.copy())
    positions = np.swapaxes(found, 0, 1).reshape(-1, 4, 3)
    energies, forces = potential.energies_and_forces(positions)
    return ReferenceFrames(
        "toy", HYDROGEN_PEROXIDE, positions, energies, forces, temperature_K
    )


@pytest.fixture(scope="module")
def reference() -> ReferenceFrames:
    return sampled(Peroxide())


def check(
    reference: ReferenceFrames,
    folder: Path,
    model: Peroxide | None = None,
    **changes: Any,
) -> SamplingCheck:
    settings = replace(SETTINGS, **changes)
    return compare_chains(
        replace(reference, temperature_K=settings.temperature_K),
        model or Peroxide(),
        model=TOY,
        settings=settings,
        folder=folder,
    )


def beside(reference: ReferenceFrames, frames: ReferenceFrames) -> Verdict:
    """Return the verdict on the frames of another trajectory."""
    molecule = find_molecule(reference.numbers, reference.positions)
    return judge(
        analyse(reference, SampleFrames.of_reference(frames), molecule=molecule),
        thermometers=measure_thermometers(
            reference.positions, reference.forces, molecule.graph
        ),
        temperature_K=reference.known_temperature,
    )


def test_the_potential_that_made_the_reference_passes(
    reference: ReferenceFrames, tmp_path: Path
):
    found = check(reference, tmp_path)
    assert found.verdict.status == "PASS", found.verdict
    assert found.on_reference is not None
    assert found.on_reference.energy_mae == pytest.approx(0.0, abs=1e-9)
    assert found.on_reference.force_mae == pytest.approx(0.0, abs=1e-9)
    assert found.dynamics is not None
    assert found.dynamics.survival == 1.0
    assert found.thermometers.bonds is not None
    assert found.thermometers.bonds.value == pytest.approx(T, rel=0.05)
    names = {one.name for one in found.analysis.comparisons}
    assert "H2–O0–O1–H3" in names
    assert {"energy", "energy, by the model", "all pairs", "H–O", "O–O"} <= names


def test_a_constant_in_the_energy_changes_nothing(
    reference: ReferenceFrames, tmp_path: Path
):
    assert reference.energies is not None
    shifted = replace(reference, energies=reference.energies - 4000.0)
    found = check(shifted, tmp_path)
    assert found.verdict.status == "PASS", found.verdict
    assert found.on_reference is not None
    assert found.on_reference.offset == pytest.approx(4000.0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Peroxide(tilt=0.12), "H2–O0–O1–H3: RMSE of F"),  # another well is filled
        (Peroxide(stiffness=0.7), "energy: Wasserstein"),
    ],
)
def test_wrong_models_fail(
    reference: ReferenceFrames, tmp_path: Path, wrong: Peroxide, told: str
):
    found = check(reference, tmp_path, wrong)
    assert found.verdict.status == "FAIL", found.verdict
    assert any(line.startswith(told) for line in found.verdict.failures)


def test_a_sampler_that_is_too_hot_fails(reference: ReferenceFrames, tmp_path: Path):
    hot = sampled(Peroxide(), temperature_K=900.0)
    with pytest.raises(ConfigError, match="at one temperature"):
        compare_chains(
            reference,
            Peroxide(),
            model=TOY,
            settings=replace(SETTINGS, temperature_K=900.0),
            folder=tmp_path,
        )
    found = beside(reference, hot)
    assert found.status == "FAIL"
    told = " ".join(found.failures)
    assert "energy: Wasserstein" in told
    assert "frames are spurious" in told


def test_a_reference_of_another_temperature_cannot_decide(
    reference: ReferenceFrames, tmp_path: Path
):
    found = check(reference, tmp_path, temperature_K=900.0)
    assert found.verdict.status == "INCONCLUSIVE", found.verdict
    assert "give its --temperature" in " ".join(found.verdict.doubts)


def test_too_few_steps_are_inconclusive(reference: ReferenceFrames, tmp_path: Path):
    found = check(reference, tmp_path, steps=200, record_every=10, n_chains=4)
    assert found.verdict.status == "INCONCLUSIVE", found.verdict
    assert "sample longer" in " ".join(found.verdict.doubts)


def test_too_few_frames_are_inconclusive(reference: ReferenceFrames, tmp_path: Path):
    few = reference.thin(40)
    found = check(few, tmp_path)
    assert found.verdict.status == "INCONCLUSIVE", found.verdict
    assert "40 frames of the reference are worth" in " ".join(found.verdict.doubts)
    assert check_halves(few).verdict.status == "INCONCLUSIVE"
    with pytest.raises(DataError, match="half of them are too few"):
        check_halves(reference.thin(20))


class Tearing(Peroxide):
    """Bonds of a well-behaved molecule that end at some length, seldom reached."""

    def __init__(self, ends: float = 1.08) -> None:
        super().__init__()
        self.ends = ends

    def energies_and_forces(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, forces = super().energies_and_forces(x)
        vector = x[:, 2] - x[:, 0]
        length = np.linalg.norm(vector, axis=1)
        torn = length > self.ends
        forces[torn, 2] += 12.0 * (vector / length[:, None])[torn]
        return energy, forces


def test_molecules_that_fall_apart_fail(reference: ReferenceFrames, tmp_path: Path):
    found = check(reference, tmp_path, Tearing())
    assert found.verdict.status == "FAIL"
    assert found.chains is not None
    assert found.chains.survival < 1
    assert any("lived to the end" in line for line in found.verdict.failures)


def test_direct_forces_do_not_pass(reference: ReferenceFrames, tmp_path: Path):
    model = Peroxide()
    model.forces_kind = "direct"  # type: ignore[attr-defined]
    found = check(reference, tmp_path, model)
    assert found.verdict.status == "INCONCLUSIVE"
    assert found.verdict.doubts == (
        "forces are direct, not the gradient of the energy: the chains are not samples "
        "of exp(−U/kT), whatever their distribution is",
    )


def test_adsorption_energies_are_refused(reference: ReferenceFrames, tmp_path: Path):
    with pytest.raises(ConfigError, match="no molecule alone has"):
        compare_chains(
            reference,
            Peroxide(),
            model=replace(TOY, energy_reference="adsorption"),
            settings=SETTINGS,
            folder=tmp_path,
        )


def test_halves_of_ethanol_pass(references: Path):
    found = check_halves(
        read_reference(references / "data" / "rmd17", molecule="ethanol")
    )
    assert found.verdict.status == "PASS", found.verdict


def test_ethanol_at_the_nominal_temperature_cannot_decide(references: Path):
    path = references / "data" / "rmd17"
    nominal = read_reference(path, molecule="ethanol", temperature_K=500.0)
    found = check_halves(nominal)
    assert found.verdict.status == "INCONCLUSIVE"
    assert "bonds of the reference show 6" in " ".join(found.verdict.doubts)


def test_recomputed_labels_cannot_decide(references: Path):
    path = references / "data" / "rmd17"
    found = check_halves(read_reference(path, molecule="ethanol", labels="recomputed"))
    assert found.verdict.status == "INCONCLUSIVE"
    assert "not sampled with the potential" in " ".join(found.verdict.doubts)


def test_halves_of_aspirin_are_inconclusive(references: Path):
    """Its carboxyl group turns over a few times in all of the trajectory."""
    found = check_halves(
        read_reference(references / "data" / "rmd17", molecule="aspirin")
    )
    assert found.verdict.status == "INCONCLUSIVE", found.verdict
    assert any(
        line.startswith("C6–C5–C10–O") and "independent ones" in line
        for line in found.verdict.doubts
    )


def test_one_well_that_is_filled_wrongly_fails(references: Path):
    reference = read_reference(references / "data" / "rmd17", molecule="ethanol")
    molecule = find_molecule(reference.numbers, reference.positions)
    hydroxyl = next(torsion for torsion in molecule.torsions if torsion.fold == 1)
    half = len(reference) // 2
    first, second = reference.select(slice(half)), reference.select(slice(half, None))
    angles = np.abs(dihedral_angles(second.positions, hydroxyl.atoms)[:, 0])
    lost = (angles > 120) & (np.arange(len(angles)) % 8 > 0)
    assert beside(first, second).status == "PASS"
    found = beside(first, second.select(np.flatnonzero(~lost)))
    assert found.status == "FAIL", found
    assert any(hydroxyl.name in line for line in found.failures)


def test_nothing_but_blow_ups_fails(reference: ReferenceFrames, tmp_path: Path):
    found = check(reference, tmp_path, Tearing(ends=0.9))
    assert found.verdict.status == "FAIL"
    assert found.analysis.n_frames == 0
    assert found.chains is not None
    # and ends long before all steps are taken
    assert found.chains.positions.shape[1] < 60
    assert len(found.chains.blow_ups) < 250
