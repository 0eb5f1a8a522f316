"""From configuration to objects: which frames, which units."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from crack_md.data.dataset import LabelledStructure
from crack_md.data.statistics import fit_element_references, fit_energy_scale
from crack_md.errors import ConfigError, DataError
from crack_md.training.config import DataConfig, check_config
from crack_md.training.data.source import read_training_data, usable
from crack_md.training.losses import (
    Contrast,
    CrackLoss,
    HessianLoss,
    InstanceLoss,
    NodeEnergyLoss,
    NodeToNodeLoss,
    TripletLoss,
    WeightedTerm,
    build_terms,
)
from crack_md.training.losses.base import TrainedOn, energy_spread
from crack_md.training.losses.node_energy import node_energy_spread
from tests.factories import tiny_model
from tests.training.factories import labelled, recipe

MODEL = tiny_model()
FRAMES = [labelled(1)]


def frame(formula: str, energy: float = 0.0) -> LabelledStructure:
    atoms = Atoms(formula)
    n = len(atoms)
    return dataclasses.replace(
        labelled(0),
        atoms=atoms,
        energy=energy,
        forces=np.full((n, 3), 2.0),
        free=np.ones(n, dtype=bool),
    )


def test_combinations_leave_frames_out() -> None:
    frames = [frame(formula) for formula in ("Ni2", "NiO", "PtO", "NiPt", "NiPtO")]

    def kept(*entries: str) -> list[str]:
        data = DataConfig(path=Path("unused"), leave_out=entries)
        return [str(one.atoms.symbols) for one in usable(frames, data)]

    assert kept() == ["Ni2", "NiO", "PtO", "NiPt", "NiPtO"]
    assert kept("Ni") == ["PtO"]
    assert kept("Ni-O") == ["Ni2", "PtO", "NiPt"]
    assert kept("Ni-O", "Pt") == ["Ni2"]


def test_references_solve_the_exact_case() -> None:
    frames = [frame("Ni2", -8.0), frame("NiO", -6.5), frame("O2", -5.0)]
    found = fit_element_references(frames)
    assert found[28] == pytest.approx(-4.0)
    assert found[8] == pytest.approx(-2.5)


def test_total_energies_get_references_and_a_unit_of_force() -> None:
    scale = fit_energy_scale([frame("Ni2", -8.0)], average_atoms=3.0)
    assert (scale.mean, scale.force_std) == (0.0, 2.0)
    assert scale.std == pytest.approx(6.0)
    assert scale.element_references[28] == pytest.approx(-4.0)


def test_adsorption_energies_get_mean_and_spread() -> None:
    frames = [frame("NiO", 1.0), frame("NiO", 3.0)]
    scale = fit_energy_scale(frames, energy_reference="adsorption")
    assert (scale.mean, scale.std) == (2.0, 1.0)
    assert not scale.element_references


def test_energy_spread_is_without_references() -> None:
    frames = [frame("Ni2", -8.0 + shift) for shift in (-1.0, 1.0)]
    scale = fit_energy_scale(frames)
    assert energy_spread(frames, scale, per_atom=False) == pytest.approx(1.0)
    assert energy_spread(frames, scale, per_atom=True) == pytest.approx(0.5)
    assert energy_spread(frames[:1], scale, per_atom=True) == 1.0


def test_node_energy_spread_is_around_the_mean_of_the_element() -> None:
    frames = []
    for formula, energies in (("NiO", [5.0, 1.0]), ("OO", [3.0, 2.0])):
        one = frame(formula)
        teacher = dataclasses.replace(one.teacher, node_energy=np.array(energies))
        frames.append(dataclasses.replace(one, teacher=teacher))
    # nickel is always at its mean; oxygen at -1, +1 and 0 from it
    assert node_energy_spread(frames) == pytest.approx(0.5**0.5)
    assert node_energy_spread(frames[:1]) == 1.0


def terms_of(*losses: dict[str, object]) -> list[WeightedTerm]:
    config = check_config(
        {
            "student": {"architecture": {"num_layers": 1}},
            "data": {"path": "train.aselmdb"},
            "losses": list(losses),
            "optimizer": {"lr": 1e-3},
            "run": {"folder": "run", "batch_size": 1, "max_steps": 1},
        },
        source="test",
    )
    return build_terms(config.losses, TrainedOn(MODEL, FRAMES, FRAMES))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            {"kind": "instance", "temperature": 0.1, "negatives": "global"},
            InstanceLoss(Contrast(0.1, "teacher", "global", 1024)),
        ),
        (
            {"kind": "node_energy", "sigma_eV": 0.2, "per_element_shift": True},
            NodeEnergyLoss(0.2, True),
        ),
        ({"kind": "n2n"}, NodeToNodeLoss()),
        ({"kind": "triplet", "partners": 4}, TripletLoss(4, "smooth_l1", 1e-3)),
        (
            {"kind": "crack", "temperature": 0.1, "sample": 9, "same_elements": True},
            CrackLoss(
                Contrast(0.1, "teacher", "structure", 1024, 9),
                "unique",
                1e-3,
                (0,),
                True,
            ),
        ),
        (
            {"kind": "hessian", "rows": 3, "sigma_eV": 2.0},
            HessianLoss("gradient", 3, 2.0, 0.01),
        ),
        (
            {"kind": "hessian", "differences": True, "sigma_eV": 2.0, "step_A": 0.02},
            HessianLoss("differences", 1, 2.0, 0.02),
        ),
    ],
)
def test_terms_are_what_the_file_says(
    loss: dict[str, object], expected: object
) -> None:
    assert terms_of(loss | {"weight": 3.0}) == [(expected, 3.0)]


def test_two_losses_of_a_kind_are_told_apart() -> None:
    crack = {"kind": "crack", "weight": 1.0, "temperature": 0.1}
    n2n = {"kind": "n2n", "weight": 1.0}
    terms = terms_of(crack, n2n, crack | {"same_elements": True})
    assert [item.term.name for item in terms] == ["crack", "n2n", "crack_2"]
    task = {"kind": "task", "energy_weight": 1, "force_weight": 1}
    with pytest.raises(ConfigError, match=r"losses\.1 is a second loss of kind 'task'"):
        terms_of(task, task)


def test_labels_that_a_loss_reads_must_be_there(dataset: Path, tmp_path: Path) -> None:
    tree = recipe(dataset, tmp_path) | {
        "losses": [{"kind": "node_energy", "weight": 1}]
    }
    with pytest.raises(
        DataError, match=r"energies of single atoms.* losses node_energy"
    ):
        read_training_data(check_config(tree, source="test"))


def test_teacher_must_have_the_degrees(dataset: Path, tmp_path: Path) -> None:
    crack = {"kind": "crack", "weight": 1, "temperature": 1, "degrees": [0, 1]}
    tree = recipe(dataset, tmp_path) | {"losses": [crack]}
    with pytest.raises(DataError, match="degrees up to 1, which the teacher's"):
        read_training_data(check_config(tree, source="test"))
    crack["degrees"] = [2]
    with pytest.raises(
        ConfigError, match=r"losses\.0\.degrees go up to 2, but .* up to 1"
    ):
        check_config(tree, source="test")
