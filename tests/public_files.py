"""Public checkpoints and the ways in which training codes have written them."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crack_md.models.force_field import ForceField
from crack_md.models.importers import import_public
from crack_md.models.pickles import read_checkpoint

TINY = Path(__file__).parent / "data" / "eqv2_fairchem_v1_tiny.pt"
GOLDEN = Path(os.environ.get("CRACK_MD_REFERENCES", "../shared")) / "golden"
Content = dict[str, Any]
Variant = Callable[[Content], None]


def golden(name: str) -> Path:
    path = GOLDEN / f"{name}.pt"
    if not path.exists():
        pytest.skip(f"no golden file '{path}'; set CRACK_MD_REFERENCES")
    return path


class Reader:
    """Writes a variant of a public file and imports it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "variant.pt"

    def __call__(self, content: Content, **options: Any) -> ForceField:
        torch.save(content, self.path)
        return import_public(read_checkpoint(self.path), **options)


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
