"""bfloat16 where it is fast, float32 with one warning where it is not."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from crack_md.calculators import CrackCalculator
from crack_md.models import precision
from crack_md.models.checkpoint import load_model
from crack_md.training.config import check_config
from crack_md.training.loop.train import train
from tests.factories import oxygen_slab, tiny_model
from tests.training.factories import labelled, recipe, write_dataset

PROBE = precision.slowdown
"""The real one; other tests have one that says bfloat16 is fast."""


@pytest.fixture(autouse=True)
def _fresh_probe() -> None:
    PROBE.cache_clear()
    precision.warn_once.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    monkeypatch.setattr(precision, "slowdown", lambda _device: factor)


def test_the_probe_times_both_types(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.05 < PROBE("cpu") < 100
    # a clock on which products in float32 take 1 s and those in bfloat16 5.6 s
    ticks = [t for _ in range(precision.REPEATS + 1) for t in (0.0, 1.0, 0.0, 5.6)]
    PROBE.cache_clear()
    monkeypatch.setattr(precision.time, "perf_counter", iter(ticks).__next__)
    assert PROBE("cpu") == pytest.approx(5.6)
    assert PROBE("cpu") == pytest.approx(5.6)  # probed once


def test_a_calculator_falls_back_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(dtype=torch.float32, activation="s2", ffn="grid")
    exact = CrackCalculator(model, device="cpu")
    pretend(monkeypatch, 5.6)
    with pytest.warns(UserWarning, match="5.6 times as long") as caught:
        models = [CrackCalculator(model, device="cpu", dtype="bfloat16") for _ in "12"]
    assert len(caught) == 1
    slab = oxygen_slab()
    for calculator in models:
        forces = calculator.get_property("forces", slab)
        np.testing.assert_array_equal(forces, exact.get_property("forces", slab))


def test_a_fast_processor_keeps_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dtype=torch.float32, activation="s2", ffn="grid")
    pretend(monkeypatch, 0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator = CrackCalculator(model, device="cpu", dtype="bfloat16")
    assert calculator.models[0].products == "bfloat16"


@pytest.mark.parametrize(("factor", "precision"), [(5.6, "float32"), (0.6, "bfloat16")])
def test_training_says_what_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, precision: str
) -> None:
    dataset = write_dataset(
        tmp_path / "data.db", [labelled(number) for number in range(4)]
    )
    tree = recipe(dataset, tmp_path / "run", max_steps=1, precision="bfloat16")
    pretend(monkeypatch, factor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(check_config(tree, source="test"), quiet=True)
    told = [str(one.message) for one in caught if "bfloat16" in str(one.message)]
    assert len(told) == (precision == "float32")
    provenance = load_model(tmp_path / "run" / "student.pt").metadata.provenance
    assert provenance["config"]["run"]["precision"] == precision
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "precision: bfloat16" in kept  # it may go on on another machine
