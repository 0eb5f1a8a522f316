"""Public checkpoints in every variant seen in the wild, made from the golden files."""

import copy
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from crack_md.errors import CheckpointError
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField
from crack_md.models.importers import import_public
from crack_md.models.importers.references import OC20_ELEMENTS
from crack_md.models.pickles import read_checkpoint
from crack_md.neighbors import build_graph

TINY = Path(__file__).parents[1] / "data" / "eqv2_fairchem_v1_tiny.pt"
GOLDEN = Path(os.environ.get("CRACK_MD_REFERENCES", "../shared")) / "golden"
MEAN, STD = -0.7554450631141663, 2.887317180633545

Content = dict[str, Any]
Variant = Callable[[Content], None]


def golden(name: str) -> Path:
    path = GOLDEN / f"{name}.pt"
    if not path.exists():
        pytest.skip(f"no golden file '{path}'; set CRACK_MD_REFERENCES")
    return path


@pytest.fixture(scope="module")
def public() -> Content:
    content: Content = torch.load(TINY, weights_only=True)
    return content


@pytest.fixture(scope="module")
def reference() -> ForceField:
    return load_model(TINY)


class Reader:
    """Writes a variant of a public file and imports it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "variant.pt"

    def __call__(self, content: Content, **options: Any) -> ForceField:
        torch.save(content, self.path)
        return import_public(read_checkpoint(self.path), **options)


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


def renamed(content: Content, rename: Callable[[str], str]) -> None:
    state = content["state_dict"]
    content["state_dict"] = OrderedDict((rename(k), v) for k, v in state.items())


def bare(name: str) -> str:
    return name.removeprefix("module.module.")


def hydra_name(name: str) -> str:
    head, _, rest = bare(name).partition(".")
    heads = {"energy_block": "energy", "force_block": "forces"}
    if head in heads:
        return f"module.output_heads.{heads[head]}.{head}.{rest}"
    return f"module.backbone.{bare(name)}"


def hydra(content: Content) -> None:
    renamed(content, hydra_name)
    options = content["config"].pop("model_attributes")
    content["config"]["model"] = {
        "name": "hydra",
        "backbone": {"model": "equiformer_v2_backbone", **options},
        "heads": {"energy": {"module": "equiformer_v2_energy_head"}},
    }


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


def two_energy_heads(content: Content) -> None:
    hydra(content)
    for name, tensor in list(content["state_dict"].items()):
        if "output_heads.energy" in name:
            other = name.replace("heads.energy", "heads.omat")
            content["state_dict"][other] = tensor


def option(name: str, value: object) -> Variant:
    return lambda content: content["config"]["model_attributes"].update({name: value})


def without(name: str) -> Variant:
    return lambda content: content["state_dict"].pop(f"module.module.{name}")


def not_a_number(content: Content) -> None:
    name = "module.module.blocks.1.ga.alpha_dot"
    content["state_dict"][name] = torch.full_like(content["state_dict"][name], np.nan)


def gemnet(content: Content) -> None:
    content["config"]["model"] = "gemnet_oc"
    content["state_dict"] = {"module.module.int_blocks.0.weight": torch.ones(2)}


def bad_deviation(content: Content) -> None:
    content["normalizers"]["target"]["std"] = torch.tensor(0.0)


DEFECTS: dict[str, tuple[Variant, str]] = {
    "GemNet": (gemnet, "no EquiformerV2: its model is 'gemnet_oc'"),
    "no weights": (lambda c: c.pop("state_dict"), "it has no state_dict"),
    "no config": (lambda c: c.pop("config"), "does not say its architecture"),
    "foreign config": (lambda c: c.update(config=Path("a")), "does not say its arch"),
    "missing weight": (without("norm.affine_weight"), "1 missing, such as 'norm.aff"),
    "layers": (option("num_layers", 4), "has 4 layers, its weights have 3"),
    "channels": (option("sphere_channels", 8), r"found \(90, 16\), expected \(90, 8\)"),
    "cutoff": (option("max_radius", 6.0), "cutoff of 6.0 Å, its radial basis ends"),
    "energy only": (option("regress_forces", False), "regress_forces=False"),
    "shared": (option("share_atom_edge_embedding", True), "share_atom_edge_embedding"),
    "norm": (option("norm_type", "layer_norm"), "norm_type='layer_norm'"),
    "grid": (option("grid_resolution", None), "grid_resolution=None"),
    "resolutions": (option("lmax_list", [6, 4]), r"lmax_list=\[6, 4\]"),
    "text": (option("num_heads", "many"), "wrong option.*many"),
    "NaN": (not_a_number, r"'blocks\.1\.ga\.alpha_dot' holds NaN"),
    "heads": (two_energy_heads, "several output heads"),
    "deviation": (bad_deviation, "one above zero"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_one_clear_error(read: Reader, public: Content, defect: str) -> None:
    content = copy.deepcopy(public)
    spoil, message = DEFECTS[defect]
    spoil(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read(content)
    assert "variant.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
