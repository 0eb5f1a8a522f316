"""Peers in their environments, where `make peers` has made them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.contest import run_contest
from benchmarks.contestant import Settings
from benchmarks.dft_sets import references
from benchmarks.engines import OURS, PEERS, Engine
from benchmarks.results import records
from benchmarks.work import cases
from crack_md.models.checkpoint import save_model
from tests.factories import tiny_model

pytestmark = pytest.mark.slow

PUBLIC: dict[str, Any] = {
    "neighbors": "strict",
    "forces": "direct",
    "delta": True,
    "activation": "s2",
    "ffn": "grid",
    "num_distance_basis": 600,
    "average_degree": 23.395238876342773,
    "average_atoms": 77.81317,
}
"""What the public class can do."""
SMALL_UMA = {
    "num_experts": 2,
    "sphere_channels": 8,
    "edge_channels": 8,
    "hidden_channels": 8,
    "num_layers": 1,
}


def needs(environment: str) -> pytest.MarkDecorator:
    there = (PEERS / environment / "bin" / "python").exists()
    return pytest.mark.skipif(not there, reason=f"no {environment}: make peers")


def measured(folder: Path, *engines: Engine) -> dict[str, Any]:
    settings = Settings(
        rounds=1, round_s=0.0, md_steps=2, md_warm_up=1, logs=folder / "logs"
    )
    work = cases(
        ["single", "network", "batch", "md"], atoms=[46], batch=2, md_atoms=[46]
    )
    return records(run_contest(engines, work, settings), settings)


@needs("fairchem-v1")
def test_the_public_class_computes_the_same_function(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    save_model(tiny_model(dtype=torch.float32, **PUBLIC), model)
    ours = Engine("ours", "ours", OURS, "crack.py", {"model": str(model)}, function="f")
    theirs = Engine(
        "theirs",
        "theirs",
        "fairchem-v1",
        "fairchem_v1.py",
        {"weights": str(model)},
        function="f",
    )
    content = measured(tmp_path, ours, theirs)
    assert [row["not_run"] for row in content["rows"]] == [None] * 8
    ours_about, theirs_about = content["engines"].values()
    assert ours_about["weights"] == theirs_about["weights"]
    (same,) = content["agreement"]
    # not nearer: the public code rolls its frames at random, and grids are finite
    assert same["force_eV_per_A"] < 1e-3 * same["largest_force_eV_per_A"]


@needs("fairchem-v1")
def test_the_original_forward_runs_the_teacher_too(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    save_model(tiny_model(dtype=torch.float32, **PUBLIC), model)
    options = {"weights": str(model), "teacher_layers": 2}
    both = Engine("both", "both", "fairchem-v1", "fairchem_v1.py", options)
    content = measured(tmp_path, both)
    assert [row["not_run"] for row in content["rows"]] == [None] * 4
    # two of the 20 layers of the 153M model
    assert content["engines"]["both"]["weights"] > 20_000_000


@needs("nequix")
def test_nequix_does_every_kind_of_work(tmp_path: Path) -> None:
    weights = references() / "nequix" / "nequix-oam-1.nqx"
    if not weights.is_file():
        pytest.skip(f"no weights {weights}; set CRACK_MD_REFERENCES")
    options = {"weights": str(weights)}
    engine = Engine("n", "n", "nequix", "nequix_torch.py", options)
    content = measured(tmp_path, engine)
    assert [row["not_run"] for row in content["rows"]] == [None] * 4
    assert content["engines"]["n"]["weights"] == 707_569
    assert not list(weights.parent.glob("*.pt"))  # it writes beside what it reads


@needs("fairchem-v2")
def test_uma_is_built_by_its_own_code(tmp_path: Path) -> None:
    options = {"settings": "batch", "backbone": SMALL_UMA}
    engine = Engine("u", "u", "fairchem-v2", "fairchem_v2.py", options)
    content = measured(tmp_path, engine)
    single, network, batch, dynamics = (row["not_run"] for row in content["rows"])
    assert (single, batch, dynamics) == (None, None, None)
    assert network == "the graph is made inside the model"
