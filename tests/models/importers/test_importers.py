"""Public checkpoints in every variant seen in the wild, made from the golden files."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField
from crack_md.models.importers import import_public
from crack_md.models.importers.references import OC20_ELEMENTS
from crack_md.models.pickles import read_checkpoint
from crack_md.neighbors import build_graph
from tests.public_files import (
    TINY,
    Content,
    Reader,
    Variant,
    bare,
    golden,
    hydra,
    renamed,
)

MEAN, STD = -0.7554450631141663, 2.887317180633545


@pytest.fixture(scope="module")
def public() -> Content:
    content: Content = torch.load(TINY, weights_only=True)
    return content


@pytest.fixture(scope="module")
def reference() -> ForceField:
    return load_model(TINY)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def assert_equal_models(found: ForceField, expected: ForceField) -> None:
    assert found.network.config == expected.network.config
    assert found.scale == expected.scale
    assert found.metadata.energy_reference == expected.metadata.energy_reference
    weights, other = found.network.state_dict(), expected.network.state_dict()
    assert weights.keys() == other.keys()
    assert all(torch.equal(weights[name], other[name]) for name in weights)


def options_inside_model(content: Content) -> None:
    options = content["config"].pop("model_attributes")
    content["config"]["model"] = {"name": "equiformer_v2", **options}


def fairchem_normalizers(content: Content) -> None:
    content["normalizers"] = {
        new: {"mean": old["mean"], "rmsd": old["std"]}
        for new, old in (
            ("energy", content["normalizers"]["target"]),
            ("forces", content["normalizers"]["grad_target"]),
        )
    }


def configured_normalizers(content: Content) -> None:
    content["normalizers"] = {}


def transforms(content: Content) -> None:
    content["normalizers"] = {}
    normalizer = {
        "oc20_energy": {"mean": MEAN, "stdev": STD},
        "oc20_forces": {"mean": 0.0, "stdev": STD},
    }
    train = {"transforms": {"normalizer": normalizer}}
    content["config"]["dataset"] = {"train": train, "val": {}}


def dataset_list(content: Content) -> None:
    content["normalizers"] = {}
    content["config"]["dataset"] = [content["config"]["dataset"], {"src": "val"}]


VARIANTS: dict[str, Variant] = {
    "two prefixes": lambda content: None,
    "one prefix": lambda content: renamed(content, lambda n: f"module.{bare(n)}"),
    "no prefix": lambda content: renamed(content, bare),
    "hydra": hydra,
    "options in model": options_inside_model,
    "energy and forces": fairchem_normalizers,
    "normalisers in config": configured_normalizers,
    "normalisers in transforms": transforms,
    "list of datasets": dataset_list,
    "empty ema": lambda content: content.update(ema={"shadow_params": []}),
    "no ema key": lambda content: content.pop("ema"),
    "foreign optimizer": lambda content: content.update(optimizer=Path("inert")),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_the_same_model(
    read: Reader, public: Content, reference: ForceField, variant: str
) -> None:
    content = copy.deepcopy(public)
    VARIANTS[variant](content)
    model = read(content)
    assert abs(model.scale.std - STD) < 1e-6
    if "config" in variant or "transforms" in variant or "datasets" in variant:
        assert model.scale.mean == MEAN  # double precision here, single in the file
        model.scale = reference.scale
    assert_equal_models(model, reference)


def test_meaning_of_the_tiny_model(reference: ForceField) -> None:
    config = reference.network.config
    assert (config.num_layers, config.lmax, config.mmax) == (3, 4, 2)
    assert config.average_atoms == 77.81317
    assert reference.forces == "direct"
    assert reference.metadata.energy_reference == "adsorption"
    assert reference.metadata.elements == OC20_ELEMENTS
    assert len(OC20_ELEMENTS) == 56
    assert reference.metadata.provenance["source"].startswith("OCP/fairchem v1")
    assert reference.metadata.provenance["weights"] == "raw"


def test_energies_and_forces_are_physical(reference: ForceField) -> None:
    data = np.load(TINY.with_suffix(".npz"))
    for system in range(4):
        numbers, positions, cell = (
            data[f"{system}_{name}"] for name in ("numbers", "positions", "cell")
        )
        atoms = Atoms(numbers, positions, cell=cell, pbc=True)
        prediction = reference(build_graph(atoms, reference.rule))
        energy = float(data[f"{system}_energy_k0"].item()) * STD + MEAN
        assert prediction.energy.item() == pytest.approx(energy, rel=5e-5)
        forces = torch.from_numpy(data[f"{system}_forces_k0"] * STD)
        error = (prediction.forces - forces).abs().max() / forces.abs().max()
        assert error < 5e-5


@pytest.mark.parametrize("kind", ["tiny", "wide", "strong"])
def test_golden_weights_arrive_unchanged(kind: str) -> None:
    path = golden(f"eqv2_fairchem_v1_{kind}")
    state = {
        bare(name): tensor
        for name, tensor in torch.load(path, weights_only=True)["state_dict"].items()
    }
    for name, tensor in load_model(path).network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_crack_release(part: str, tmp_path: Path) -> None:
    path = golden("crack_official_tiny")
    raw = read_checkpoint(path)
    model = import_public(raw, part=part)  # type: ignore[arg-type]
    suffix = "_student" if part == "student" else ""
    state = {bare(name): tensor for name, tensor in raw.content["state_dict"].items()}
    for name, tensor in model.network.state_dict().items():
        head, _, rest = name.partition(".")
        old = name
        if head in ("blocks", "norm", "energy_block", "delta"):
            old = f"{head}{suffix}.{rest}"
        assert torch.equal(tensor, state[old]), name
    config = model.network.config
    assert config.num_layers == (2 if part == "student" else 3)
    assert config.delta == (part == "student")
    assert model.metadata.energy_reference == "adsorption"
    assert "O*" in model.metadata.provenance["data"]
    data = np.load(path.with_suffix(".npz"))
    positions, cell = data["0_positions"], data["0_cell"]
    atoms = Atoms(data["0_numbers"], positions, cell=cell, pbc=True)
    key = "0_energy_k0" if part == "student" else "0_teacher_energy_k0"
    energy = float(data[key].item()) * STD + MEAN
    found = model(build_graph(atoms, model.rule)).energy.item()
    assert found == pytest.approx(energy, rel=5e-5)
    save_model(model, tmp_path / "student.pt")
    assert_equal_models(load_model(tmp_path / "student.pt"), model)


FROZEN = (
    "sphere_embedding",
    "edge_degree_embedding",
    "blocks.",
    "norm.",
    "energy_block.",
)


def averaged(content: Content, trained: Callable[[str], bool]) -> Content:
    """Give the file a moving average: every trained parameter plus one."""
    content = copy.deepcopy(content)
    constants = ("offset", "expand_index", "balance_degree_weight", "_mat")
    shadow = [
        tensor + 1.0
        for name, tensor in content["state_dict"].items()
        if trained(bare(name))
        and ".mapping." not in name
        and "mappingReduced" not in name
        and not name.endswith(constants)
    ]
    content["ema"] = {"decay": 0.999, "num_updates": 9, "shadow_params": shadow}
    return content


def test_moving_average_is_preferred(
    read: Reader, public: Content, reference: ForceField
) -> None:
    model = read(averaged(public, lambda name: True))
    before, after = reference.network.state_dict(), model.network.state_dict()
    assert all(torch.equal(after[name], before[name] + 1.0) for name in before)
    assert model.metadata.provenance["weights"] == "moving average"


@pytest.mark.parametrize("unused_head", [True, False])
def test_moving_average_of_crack_holds_the_student_only(
    read: Reader, unused_head: bool
) -> None:
    public = torch.load(golden("crack_official_tiny"), weights_only=True)
    raw = read(public)
    content = averaged(
        public,
        lambda name: (
            not name.startswith(FROZEN)
            and (unused_head or not name.startswith("proj_teacher"))
        ),
    )
    model = read(content)
    before, after = raw.network.state_dict(), model.network.state_dict()
    for name, tensor in before.items():
        frozen = name.startswith(("sphere_embedding", "edge_degree_embedding"))
        assert torch.equal(after[name], tensor + (0.0 if frozen else 1.0)), name


def test_unmatched_moving_average_is_said(
    read: Reader, public: Content, reference: ForceField
) -> None:
    content = averaged(public, lambda name: not name.startswith("blocks.1"))
    with pytest.warns(UserWarning, match="does not match"):
        model = read(content)
    assert_equal_models(model, reference)
    assert model.metadata.provenance["weights"] == "raw"


def test_fairchem_element_references_make_total_energies(
    read: Reader, public: Content
) -> None:
    table = torch.zeros(119, dtype=torch.float64)
    table[8], table[78] = -432.5, -2805.25
    content = {**public, "elementrefs": {"energy": {"element_references": table}}}
    model = read(content)
    assert model.scale.element_references == {8: -432.5, 78: -2805.25}
    assert model.metadata.energy_reference == "total"
    assert model.metadata.elements == (8, 78)


def test_oc22_references_are_in_units_of_the_normaliser(
    read: Reader, public: Content
) -> None:
    table = torch.zeros(90)
    table[78] = -10.0
    state = {**public["state_dict"], "module.module.energy_lin_ref": table}
    model = read({**public, "state_dict": state})
    energy = model.scale.element_references[78]
    assert energy == pytest.approx(-10.0 * STD, rel=1e-7)
    assert model.metadata.energy_reference == "total"


def test_total_energy_data_and_override(read: Reader, public: Content) -> None:
    content = copy.deepcopy(public)
    content["config"]["task"]["dataset"] = "oc22_lmdb"
    assert read(content).metadata.energy_reference == "total"
    model = read(content, energy_reference="adsorption", elements=[78, 8])
    assert model.metadata.energy_reference == "adsorption"
    assert model.metadata.elements == (8, 78)


def test_references_that_are_elsewhere_are_said(read: Reader, public: Content) -> None:
    content = copy.deepcopy(public)
    content["config"]["dataset"]["lin_ref"] = "oc22_linfit_coeffs.npz"
    with pytest.warns(UserWarning, match="its energies lack them"):
        assert read(content).metadata.energy_reference == "total"


def test_missing_normaliser_is_said(read: Reader, public: Content) -> None:
    content = copy.deepcopy(public)
    content["normalizers"], content["config"]["dataset"] = {}, {}
    with pytest.warns(UserWarning, match="no normaliser"):
        assert (read(content).scale.mean, read(content).scale.std) == (0.0, 1.0)


def test_other_heads_are_left_out(
    read: Reader, public: Content, reference: ForceField
) -> None:
    content = copy.deepcopy(public)
    hydra(content)
    content["state_dict"]["module.output_heads.stress.block.weight"] = torch.ones(2)
    with pytest.warns(UserWarning, match="stress"):
        assert_equal_models(read(content), reference)
