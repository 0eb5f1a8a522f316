"""``crack-md doctor``: a whole installation passes, and each fault is named."""

import json

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from crack_md import check_installation
from crack_md.bench import doctor
from crack_md.bench.doctor import EXPECTED, Expected, Finding
from crack_md.cli import app
from crack_md.models.registry import dated_name, model_names


def faults() -> dict[str, str]:
    return {one.name: one.fault for one in check_installation() if one.fault}


def values() -> dict[str, str]:
    return {one.name: one.value for one in check_installation()}


def test_every_packaged_model_has_its_numbers() -> None:
    """A new one gets a line in `EXPECTED`, with what float64 on a CPU gives."""
    assert set(EXPECTED) == {dated_name(name) for name in model_names()}


def test_numbers_are_those_of_float64() -> None:
    from crack_md import CrackCalculator

    for name, expected in EXPECTED.items():
        atoms = doctor.oxygen_on_platinum()
        assert len(atoms) == 13
        atoms.calc = CrackCalculator(name, dtype="float64", device="cpu")
        assert atoms.get_potential_energy() == pytest.approx(
            expected.energy_eV, abs=2e-6
        )
        largest = (atoms.get_forces() ** 2).sum(axis=1).max() ** 0.5
        assert largest == pytest.approx(expected.largest_force_eV_per_A, abs=2e-6)


def test_this_installation_is_whole() -> None:
    assert faults() == {}
    found = values()
    assert found["torch"]
    assert found["model orr-2026-11b (default), cpu"].endswith("as expected")
    assert (
        "crack-md[fairchem]" in found["extra fairchem"]
        or "2.24" in (found["extra fairchem"])
    )
    assert not {"extra dev", "extra all", "extra peers"} & set(found)


def test_wrong_numbers_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**EXPECTED, "orr-2026-11b": Expected(-73.1289, 1.8043)}
    monkeypatch.setattr(doctor, "EXPECTED", wrong)
    assert list(faults()) == ["model orr-2026-11b (default), cpu"]
    assert "expected -73.1289 eV" in faults()["model orr-2026-11b (default), cpu"]
    monkeypatch.setattr(doctor, "EXPECTED", {})
    assert "nothing to compare it with" in values()["model orr-2026-11, cpu"]


def test_a_broken_library_is_a_finding_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> str:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", broken)
    found = check_installation()
    expected = "OSError: libgomp.so.1: cannot open shared object file"
    assert Finding("devices", "not checked", expected) in found
    assert found[-1].name.startswith("model ")


def test_versions_that_do_not_fit() -> None:
    torch = Requirement("torch>=2.8")
    assert doctor._unmet(torch, "2.13.0+cpu") == ""
    assert doctor._unmet(torch, "2.7.1") == (
        "2.7.1 does not fit; install it with: pip install 'torch>=2.8'"
    )
    assert doctor._unmet(torch, None).startswith("missing; install it with: pip")


def test_the_command_ends_with_one_line_for_each_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = CliRunner().invoke(app, ["doctor", "--json"])
    assert whole.exit_code == 0
    assert json.loads(whole.output)["whole"] is True
    broken = (Finding("torch", "2.7.1", "too\nold"), Finding("cpu", "2 cores"))
    monkeypatch.setattr(doctor, "check_installation", lambda: broken)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.stderr == "broken: torch: too old\n"
    assert "2 cores" in result.stdout
    assert "1 broken" in result.stdout
