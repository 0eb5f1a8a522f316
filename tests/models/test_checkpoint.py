"""The student.pt format: exact round trips, and one clear error for each defect."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crack_md.errors import CheckpointError
from crack_md.models import registry
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.equiformer.equiformer_v2 import Forces
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.models.limits import Limits
from crack_md.models.pickles import file_sha256
from tests.factories import graph_of, tiny_model, water


def small_model(forces: Forces = "direct") -> ForceField:
    metadata = ModelMetadata(
        energy_reference="total",
        elements=(1, 8),
        gas_references={"H2O": -12.8, "H2": -6.7},
        provenance={"teacher": "none", "config": {"path": Path("a.yaml")}},
    )
    return tiny_model(
        dtype=torch.float32,
        scale=EnergyScale(0.1, 2.0, 3.0, {1: -1.5, 8: -2000.125}),
        metadata=metadata,
        forces=forces,
    )


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    save_model(small_model(), tmp_path / "good.pt")
    loaded: dict[str, Any] = torch.load(tmp_path / "good.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_round_trip_is_exact(tmp_path: Path, forces: Forces) -> None:
    model, path = small_model(forces), tmp_path / "student.pt"
    save_model(model, path, provenance={"metrics": {"force_mae_meV_per_A": 80.0}})
    again = load_model(path)
    graph = graph_of(model, water())
    before, after = model(graph), again(graph)
    assert torch.equal(before.energy, after.energy)
    assert torch.equal(before.forces, after.forces)
    assert again.network.config == model.network.config
    assert again.scale == model.scale
    assert again.metadata.energy_reference == "total"
    assert again.metadata.elements == (1, 8)
    assert again.metadata.gas_references == {"H2O": -12.8, "H2": -6.7}
    assert again.metadata.provenance == {
        "teacher": "none",
        "config": {"path": "a.yaml"},
        "metrics": {"force_mae_meV_per_A": 80.0},
    }
    assert again.metadata.sha256 == file_sha256(path)
    assert not again.training


def test_file_holds_the_documented_keys(content: dict[str, Any]) -> None:
    assert set(content) == {
        "format_version",
        "architecture",
        "state_dict",
        "energy_scale",
        "energy_reference",
        "element_references",
        "gas_references",
        "elements",
        "forces",
        "provenance",
        "checksum",
    }
    assert content["format_version"] == 1
    assert content["element_references"] == {1: -1.5, 8: -2000.125}


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "a.pt")
    save_model(small_model(), tmp_path / "another_name.pt")
    assert file_sha256(tmp_path / "a.pt") == file_sha256(tmp_path / "another_name.pt")


def test_precision_is_chosen_on_loading(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "student.pt")
    model = load_model(str(tmp_path / "student.pt"), dtype=torch.float64)
    assert model.dtype == torch.float64


def test_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        save_model(small_model(), tmp_path / "missing" / "student.pt")
    path = tmp_path / "student.pt"
    path.write_text("precious")

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(small_model(), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def not_a_number(content: dict[str, Any]) -> None:
    content["state_dict"]["norm.affine_weight"][0, 0] = float("nan")


def other_shape(content: dict[str, Any]) -> None:
    content["state_dict"]["sphere_embedding.weight"] = torch.zeros(90, 5)


def other_network(content: dict[str, Any]) -> None:
    content["state_dict"] = {"int_blocks.0.weight": torch.zeros(3)}


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer version": (lambda c: c.update(format_version=2), "format version 2"),
    "no version": (lambda c: c.pop("format_version"), "does not say its architecture"),
    "no weights": (lambda c: c.pop("state_dict"), "'state_dict': found nothing"),
    "numbers": (lambda c: c.update(state_dict={"a": 1}), "else than tensors"),
    "NaN": (not_a_number, r"'norm\.affine_weight' holds NaN"),
    "shape": (other_shape, r"found \(90, 5\), expected \(90, 8\)"),
    "network": (other_network, "1 unknown, such as 'int_blocks"),
    "option": (lambda c: c["architecture"].update(depth=3), "'architecture'.*depth"),
    "type": (lambda c: c["architecture"].update(lmax="six"), "lmax is .six"),
    "norm": (lambda c: c["architecture"].update(norm="batch"), "norm is .batch"),
    "name": (lambda c: c["architecture"].update(name="gnn"), "name is .gnn.; expected"),
    "cutoff": (lambda c: c["architecture"].update(cutoff=1e9), "expected 0.5 to 50"),
    "reference": (lambda c: c.update(energy_reference="free"), "'free', expected tot"),
    "forces": (lambda c: c.update(forces="gradient"), "'forces': found 'gradient'"),
    "scale": (lambda c: c.update(energy_scale={"sigma": 1.0}), "energy_scale.*sigma"),
    "elements": (lambda c: c.update(elements="Pt"), "'elements': found a str"),
    "foreign": (lambda c: c.update(notes=Path("a")), "which was not run"),
}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.wrong_types
def test_defect_is_one_clear_error(
    tmp_path: Path, content: dict[str, Any], defect: str
) -> None:
    spoil, message = DEFECTS[defect]
    spoil(content)
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "bad.pt")
    assert "bad.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_packaged_models_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_RESOURCES", tmp_path)
    assert registry.model_names() == []
    with pytest.raises(CheckpointError, match="0 packaged models"):
        load_model("default")
    with pytest.raises(CheckpointError, match="no model file at 'student'"):
        load_model("student")
    save_model(small_model(), tmp_path / "student.pt")
    assert registry.model_names() == ["default", "student"]
    for name in ("default", "student"):
        assert registry.model_path(name) == tmp_path / "student.pt"
        assert registry.dated_name(name) == "student"
        assert load_model(name).metadata.elements == (1, 8)
    assert registry.model_path("other/student") == Path("other/student")
    assert registry.dated_name("other/student") is None


def test_aliases_of_several_packaged_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_RESOURCES", tmp_path)
    for name in ("orr-2026-11", "orr-2026-11-accurate"):
        save_model(small_model(), tmp_path / f"{name}.pt")
    with pytest.raises(CheckpointError, match="2 packaged models and none"):
        registry.model_path("default")
    table = {"default": "orr-2026-11", "accurate": "orr-2026-11-accurate"}
    (tmp_path / "aliases.json").write_text(json.dumps(table))
    assert registry.model_names() == sorted([*table, *table.values()])
    for alias, name in table.items():
        assert registry.dated_name(alias) == registry.dated_name(name) == name
        assert registry.model_path(alias) == tmp_path / f"{name}.pt"
    (tmp_path / "orr-2026-11.pt").unlink()
    with pytest.raises(CheckpointError, match="'default' is 'orr-2026-11', which is"):
        registry.model_names()
    (tmp_path / "aliases.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*aliases"):
        registry.model_path("default")


def test_limits_travel_with_the_model(tmp_path: Path) -> None:
    limits = Limits(adsorbates=("O", "OH"), largest_shares={26: 0.25})
    model = small_model()
    metadata = dataclasses.replace(model.metadata, limits=limits)
    save_model(ForceField(model.network, model.scale, metadata), tmp_path / "new.pt")
    assert load_model(tmp_path / "new.pt").metadata.limits == limits
    save_model(model, tmp_path / "old.pt")
    assert load_model(tmp_path / "old.pt").metadata.limits is None
