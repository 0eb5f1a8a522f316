"""Atoms nearer than in training: measured exactly, named once."""

import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import pytest
import torch
from ase.build import bulk
from ase.data import covalent_radii

from crack_md import CrackCalculator
from crack_md.errors import CheckpointError
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.domain import ShortestDistances
from crack_md.models.force_field import ForceField
from tests.cli.commands import crack_md
from tests.factories import tiny_model

KNOWN = ShortestDistances({(8, 78): 1.7, (78, 78): 2.5})


def taught(model: ForceField | None = None) -> ForceField:
    model = model or tiny_model()
    metadata = replace(model.metadata, shortest_distances=KNOWN)
    return ForceField(model.network, model.scale, metadata).eval()


def pair(symbols: str, distance: float) -> ase.Atoms:
    return ase.Atoms(symbols, [[0, 0, 0], [0, 0, distance]])


def test_the_shortest_distances_of_frames_are_found() -> None:
    cell = bulk("Pt", a=4.0, cubic=True)
    frames = [pair("PtO", 1.9), pair("OPt", 1.7004), cell, pair("OO", 6.0)]
    found = ShortestDistances.of(frames)
    assert found.pairs == pytest.approx({(8, 78): 1.7, (78, 78): 2.828}, abs=1e-9)
    assert all(value <= 8**0.5 for value in found.pairs.values())  # rounded down


def test_unknown_pairs_are_measured_by_their_radii() -> None:
    expected = 0.8 * (covalent_radii[1] + covalent_radii[8])
    assert KNOWN.limit(8, 1) == pytest.approx(expected)
    table = KNOWN.table(90)
    assert table[8, 78] == table[78, 8] == 1.7
    assert table[1, 8].item() == pytest.approx(expected)


def test_the_ratio_is_in_the_results() -> None:
    calculator = CrackCalculator(taught(), dtype="float64", device="cpu")
    structures = [pair("PtO", 1.7 / 0.9), pair("PtPt", 5.0), ase.Atoms("O")]
    structures.append(pair("PtO", 2.0) + ase.Atoms("Pt", [[0, 0, -2.6]]))
    found = calculator.calculate_many(structures)
    distances = [one["domain_distance"] for one in found]
    assert distances == pytest.approx([0.9, 0.0, 0.0, 2.5 / 2.6])
    periodic = bulk("Pt", a=2.0**0.5 * 2.5 / 0.8)
    periodic.calc = calculator
    periodic.get_forces()
    assert calculator.results["domain_distance"] == pytest.approx(0.8)
    pressed = bulk("Pt", a=2.0**0.5 * 2.0)
    with pytest.warns(UserWarning, match=r"Pt \(atom 0\) and Pt \(atom 0\) are 2.00"):
        (found,) = calculator.calculate_many([pressed])
    assert found["domain_distance"] == pytest.approx(1.25)


def test_the_nearest_atoms_are_named_once() -> None:
    calculator = CrackCalculator(taught(), dtype="float64", device="cpu")
    fine = pair("PtPt", 2.7)
    near = fine + ase.Atoms("O", [[0, 0.6, -1.0]])
    expected = (
        r"O \(atom 2\) and Pt \(atom 0\) are 1\.17 Å apart, and the shortest such "
        r"distance in training is 1\.70 Å"
    )
    swapped = (
        r"Pt \(atom 0\) and O \(atom 2\) are 1\.17 Å apart, and the shortest such "
        r"distance in training is 1\.70 Å"
    )
    with pytest.warns(UserWarning, match=f"{expected}|{swapped}"):
        found = calculator.calculate_many([fine, near])
    assert found[1]["domain_distance"] == pytest.approx(1.7 / 1.36**0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator.calculate_many([near])


def test_pairs_that_training_never_had_are_named_as_such() -> None:
    calculator = CrackCalculator(taught(), dtype="float64", device="cpu")
    with pytest.warns(UserWarning, match=r"no such pair; bonds end at 0\.78 Å"):
        calculator.calculate_many([pair("OH", 0.7)])


def test_models_without_the_distances_say_nothing() -> None:
    calculator = CrackCalculator(tiny_model(), dtype="float64", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = calculator.calculate_many([pair("PtO", 0.8)])
    assert "domain_distance" not in found


def test_committees_copies_and_pickles_measure_too() -> None:
    members = [taught(tiny_model(seed=seed)) for seed in (0, 1)]
    calculator = CrackCalculator(members, dtype="float64", device="cpu")
    again = pickle.loads(pickle.dumps(calculator))
    for one in (calculator, again):
        (found,) = one.calculate_many([pair("PtO", 1.7 / 0.9)])
        assert found["domain_distance"] == pytest.approx(0.9)
        assert "energy_std" in found


def test_files_carry_the_distances(tmp_path: Path) -> None:
    save_model(taught(), tmp_path / "a.pt")
    save_model(tiny_model(), tmp_path / "b.pt")
    loaded = load_model(tmp_path / "a.pt").metadata.shortest_distances
    assert loaded == KNOWN
    assert load_model(tmp_path / "b.pt").metadata.shortest_distances is None
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    for wrong in ([[1, 2]], [[8, 78, -1.0]], [[78, 8, 1.7]], ["x"], [[0, 1, 1.0]]):
        torch.save({**content, "shortest_distances": wrong}, tmp_path / "c.pt")
        with pytest.raises(CheckpointError, match="shortest distances") as caught:
            load_model(tmp_path / "c.pt")
        assert "\n" not in str(caught.value)


def test_domain_and_info_know_them(tmp_path: Path) -> None:
    save_model(tiny_model(dtype=torch.float32), tmp_path / "bare.pt")
    frames = [pair("PtO", 1.8), pair("PtPt", 2.6)]
    for frame in frames:
        frame.center(vacuum=3.0)
    ase.io.write(tmp_path / "frames.extxyz", frames * 2)
    out = tmp_path / "taught.pt"
    crack_md("domain", tmp_path / "bare.pt", tmp_path / "frames.extxyz", "--out", out)
    found = load_model(out).metadata.shortest_distances
    assert found.pairs == pytest.approx({(8, 78): 1.8, (78, 78): 2.6}, abs=2e-3)
    told = json.loads(crack_md("info", out, "--json").stdout)
    assert told["shortest_distances_A"] == found.plain()
    assert told["short_range"] == "none"
    text = crack_md("info", tmp_path / "bare.pt").stdout
    assert "no repulsion of its own" in " ".join(text.split())
    assert "not stored" in text
