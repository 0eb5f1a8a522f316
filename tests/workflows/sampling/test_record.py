import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import units

from crack_md.workflows.sampling.check import SamplingCheck, check_halves
from crack_md.workflows.sampling.record import energy_columns, summarize
from crack_md.workflows.sampling.reference import ReferenceFrames
from tests.workflows.sampling.test_check import check, sampled
from tests.workflows.sampling.toys import Peroxide


@pytest.fixture(scope="module")
def reference() -> ReferenceFrames:
    return sampled(Peroxide())


@pytest.fixture(scope="module")
def checked(
    reference: ReferenceFrames, tmp_path_factory: pytest.TempPathFactory
) -> SamplingCheck:
    return check(reference, tmp_path_factory.mktemp("out"), Peroxide(tilt=0.12))


def test_a_record_is_strict_json_and_says_it_all(checked: SamplingCheck):
    record = summarize(checked, command="crack-md sample", seconds=1.0)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["verdict"] == checked.verdict.status
    assert record["reference"]["formula"] == "H2O2"
    assert record["reference"]["virial_temperature_K"] > 0
    assert record["model"]["forces"] == "gradient"
    assert record["chains"]["survival"] == 1.0
    assert record["limits"]["survival"] == 0.99
    assert record["command"] == "crack-md sample"
    names = {row["observable"] for row in record["metrics"]}
    assert {"energy", "all pairs", "H2–O0–O1–H3"} <= names
    assert all(row["ratio"] is not None for row in record["metrics"])


def test_three_columns_of_energies_by_hand(checked: SamplingCheck):
    on_reference = checked.on_reference
    assert on_reference is not None
    assert checked.reference.energies is not None
    rows = {row["what"]: row for row in energy_columns(checked)}
    zero = checked.reference.energies.min()
    assert rows["reference"]["min_eV"] == 0.0
    assert rows["reference"]["mean_eV"] == pytest.approx(
        checked.reference.energies.mean() - zero
    )
    by_model, _ = Peroxide(tilt=0.12).energies_and_forces(
        checked.reference.thin(2000).positions
    )
    by_reference = checked.reference.thin(2000).energies
    shift = np.median(by_model - by_reference)
    assert on_reference.offset == pytest.approx(shift)
    assert rows["model on the reference"]["mean_eV"] == pytest.approx(
        (by_model - shift).mean() - zero
    )
    assert rows["model on its chains"]["n_frames"] == 16 * 200
    spread = np.sqrt(3) * units.kB * 500.0  # √(n/2) kT with n = 6
    assert rows["harmonic oscillators"]["std_eV"] == pytest.approx(spread)


def test_halves_have_no_model(reference: ReferenceFrames):
    record = summarize(check_halves(reference))
    assert record["model"] is None
    assert record["chains"] is None
    assert [row["what"] for row in record["energies"]] == [
        "second half",
        "reference",
        "harmonic oscillators",
    ]


def test_bare_frames_are_compared_too(reference: ReferenceFrames, tmp_path: Path):
    bare = replace(reference, energies=None, forces=None)
    found = check(bare, tmp_path)
    assert found.verdict.status == "INCONCLUSIVE"
    record = summarize(found)
    assert record["reference"]["virial_temperature_K"] is None
    assert record["model"]["force_mae_eV_per_A"] is None
    assert "energy, by the model" in {row["observable"] for row in record["metrics"]}
    assert json.dumps(record, allow_nan=False)
