"""What an importer refuses, and with which words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crack_md.errors import CheckpointError
from tests.public_files import TINY, Content, Reader, Variant, hydra


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
def test_defect_is_one_clear_error(tmp_path: Path, defect: str) -> None:
    content: Content = torch.load(TINY, weights_only=True)
    spoil, message = DEFECTS[defect]
    spoil(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Reader(tmp_path)(content)
    assert "variant.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
