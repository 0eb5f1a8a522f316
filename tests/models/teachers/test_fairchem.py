"""UMA and eSEN of fairchem-core as teachers, on tiny models that its own code builds.

Most tests are skipped where fairchem-core is missing; run them in an environment of
their own, made as CONTRIBUTING says:
    python -m pytest tests/models/teachers/test_fairchem.py
"""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from typer.testing import CliRunner

from crack_md.data import read_dataset
from crack_md.errors import MissingDependencyError, StructureError, TeacherError
from crack_md.models.so3 import couplings, wigner_blocks
from crack_md.models.teachers import as_periodic, load_teacher
from crack_md.models.teachers.base import file_sha256
from crack_md.models.teachers.fairchem import FairchemTeacher
from tests.factories import oxygen_slab, water
from tests.models.teachers import fairchem_models as tiny
from tests.training.factories import labelled, recipe, write_dataset

# its imports and its use of torch warn; that is not ours to keep quiet
pytestmark = pytest.mark.filterwarnings("ignore")
needs_fairchem = pytest.mark.fairchem
UMA_TASKS = ("oc20", "omat", "omol")


def structures() -> list[Atoms]:
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.1, seed=1)
    return [oxygen_slab(), rattled, water()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("fairchem.core.units", reason="fairchem-core is missing")
    return tmp_path_factory.mktemp("fairchem")


@pytest.fixture(scope="module")
def esen(folder: Path) -> Path:
    tasks = tiny.tasks(("oc20",), "energy", "forces")
    return tiny.save(folder / "esen.pt", tiny.esen(), tasks)


@pytest.fixture(scope="module")
def uma(folder: Path) -> Path:
    tasks = tiny.tasks(UMA_TASKS, "energy", "forces")
    return tiny.save(folder / "uma.pt", tiny.uma(UMA_TASKS), tasks)


def exact(path: Path, task: str = "", **options: Any) -> FairchemTeacher:
    """Return a teacher in float64."""
    spec = f"{path}#{task}" if task else str(path)
    return FairchemTeacher(spec, dtype=torch.float64, **options)


def fairchems_answer(path: Path, task: str, atoms: Atoms) -> tuple[float, Any]:
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import InferenceSettings, MLIPPredictUnit

    settings = InferenceSettings(base_precision_dtype=torch.float64)
    unit = MLIPPredictUnit(str(path), device="cpu", inference_settings=settings)
    atoms = atoms.copy()
    atoms.calc = FAIRChemCalculator(unit, task_name=task)
    return atoms.get_potential_energy(), atoms.get_forces()


# without fairchem


@pytest.mark.parametrize("spec", ["gone.pt", "gone.pt#oc20", "gone.ckpt#omat"])
def test_missing_files_are_named(spec: str) -> None:
    with pytest.raises(
        TeacherError, match=r"no fairchem checkpoint at gone\.(pt|ckpt)"
    ):
        load_teacher(f"fairchem:{spec}")


def test_without_the_package_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fairchem.core.calculate", None)
    (tmp_path / "model.pt").touch()
    for name in ("uma-s-1p2#oc20", tmp_path / "model.pt"):
        with pytest.raises(MissingDependencyError, match=r"'crack-md\[fairchem\]'"):
            load_teacher(f"fairchem:{name}")


# what the labels are


@needs_fairchem
@pytest.mark.parametrize("task", UMA_TASKS)
def test_energies_and_forces_are_those_of_fairchem(uma: Path, task: str) -> None:
    together = exact(uma, task).predict(structures())

    # the slab is closed, the molecule open: teachers see it in a box, fairchem does not
    for atoms, labels in zip(structures(), together, strict=True):
        energy, forces = fairchems_answer(uma, task, atoms)
        assert labels.energy == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(labels.forces, forces, atol=1e-8)


@needs_fairchem
def test_tasks_differ_by_more_than_their_references(uma: Path) -> None:
    answers = [exact(uma, task).predict(structures()) for task in UMA_TASKS[:2]]

    # references of the second task are higher by 1 eV per atom
    for first, second in zip(*answers, strict=True):
        difference = second.energy - first.energy - len(first.forces)
        assert abs(difference) > 1e-4
        assert not np.allclose(first.forces, second.forces, atol=1e-4)


@needs_fairchem
def test_a_lone_atom_is_a_sum_of_known_numbers(folder: Path) -> None:
    model = tiny.esen()
    weights = tiny.averaged(model)
    for name in weights:
        if "energy_block.4" in name:  # the last layer says 0.5, whatever it reads
            weights[name] = torch.full_like(weights[name], 0.5 * ("bias" in name))
    tasks = tiny.tasks(("oc20",), "energy", "forces")
    path = tiny.save(folder / "known.pt", model, tasks, ema_state_dict=weights)

    (labels,) = exact(path).predict([water()])

    # rmsd 1.5, mean 0.25 for the structure, references -0.8 (O) and -0.1 (H)
    share = 1.5 * 0.5 + 0.25 / 3
    assert labels.node_energy == pytest.approx([share - 0.8, share - 0.1, share - 0.1])
    assert labels.energy == pytest.approx(3 * 0.75 + 0.25 - 1.0)
    assert np.abs(labels.forces).max() == 0.0


@needs_fairchem
@pytest.mark.parametrize("name", ["esen", "uma"])
def test_forces_are_minus_the_gradient(
    name: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(name)
    slab, step = oxygen_slab(), 1e-4
    moved = []
    for axis in range(3):
        for sign in (1, -1):
            moved.append(slab.copy())
            moved[-1].positions[-1, axis] += sign * step

    here, *around = exact(path, "oc20").predict([slab, *moved])

    energies = np.array([labels.energy for labels in around]).reshape(3, 2)
    gradient = (energies[:, 0] - energies[:, 1]) / (2 * step)
    assert np.abs(gradient).max() > 0.01
    np.testing.assert_allclose(here.forces[-1], -gradient, atol=1e-6)
    assert np.abs(here.forces.sum(axis=0)).max() < 1e-8


@needs_fairchem
def test_node_energies_add_up_and_belong_to_their_atoms(esen: Path, uma: Path) -> None:
    far = water()
    far.positions += 20.0
    pair = water() + far
    pair.set_cell(np.eye(3) * 40)
    pair.pbc = True
    far.rattle(0.2, seed=3)
    pair.positions[3:] = far.positions
    alone, other, both = exact(esen).predict([water(), far, pair])

    expected = np.concatenate([alone.node_energy, other.node_energy])
    # the mean of the normalizer, 0.25 eV, is shared out among six atoms, not three
    expected -= 0.25 / 3 - 0.25 / 6
    np.testing.assert_allclose(both.node_energy, expected, atol=1e-10)
    for labels in exact(uma, "omat").predict(structures()):
        assert labels.node_energy.shape == (len(labels.forces),)
        assert labels.node_energy.sum() == pytest.approx(labels.energy, abs=1e-9)


@needs_fairchem
def test_heads_that_average_have_no_node_energies(folder: Path) -> None:
    model = tiny.esen()
    model["heads"]["efs"]["reduce"] = "mean"
    tasks = tiny.tasks(("oc20",), "energy", "forces")
    path = tiny.save(folder / "mean.pt", model, tasks)

    (labels,) = load_teacher(f"fairchem:{path}").predict([water()])

    assert labels.node_energy is None


# features


@needs_fairchem
def test_invariant_features_are_what_the_energy_head_reads(esen: Path) -> None:
    teacher = exact(esen)
    (labels,) = teacher.predict([water()])
    head = teacher.unit.model.module.output_heads["efs"].energy_block

    said = head(torch.from_numpy(labels.node_features[:, 0]).double()).detach()

    references = np.array([-0.8, -0.1, -0.1])
    expected = tiny.SCALE * said.flatten().numpy() + 0.25 / 3 + references
    np.testing.assert_allclose(labels.node_energy, expected, atol=1e-6)


@needs_fairchem
@pytest.mark.parametrize("name", ["esen", "uma"])
def test_features_rotate_as_their_degree_says(
    name: str, request: pytest.FixtureRequest
) -> None:
    teacher = exact(request.getfixturevalue(name), "oc20", all_degrees=True)
    slab = oxygen_slab()
    turned = slab.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    first, second = teacher.predict([slab, turned])
    rotation = np.linalg.solve(slab.cell.array, turned.cell.array).T

    assert first.node_features.shape == (13, 9, 8)
    matrices = torch.from_numpy(rotation)[None]
    blocks = wigner_blocks(matrices, [c.to(matrices) for c in couplings(2)])
    for degree, block in enumerate(blocks):
        span = slice(degree**2, (degree + 1) ** 2)
        expected = np.einsum(
            "mn,anc->amc", block[0].numpy(), first.node_features[:, span]
        )
        found = second.node_features[:, span]
        assert np.abs(found).max() > 0.01
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert second.energy == pytest.approx(first.energy, abs=1e-8)
    (invariant,) = exact(request.getfixturevalue(name), "oc20").predict([slab])
    np.testing.assert_array_equal(invariant.node_features, first.node_features[:, :1])


@needs_fairchem
def test_batches_give_what_single_structures_give(uma: Path) -> None:
    together = exact(uma, "oc20").predict(structures())

    for atoms, labels in zip(structures(), together, strict=True):
        (alone,) = exact(uma, "oc20", atoms_per_batch=1).predict([atoms])
        assert labels.energy == pytest.approx(alone.energy, abs=1e-9)
        for name in ("forces", "node_energy", "node_features"):
            found, expected = getattr(labels, name), getattr(alone, name)
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


# tasks, charges, names


@needs_fairchem
def test_charge_and_spin_of_a_structure_count(uma: Path) -> None:
    plain, given, cation = water(), water(), water()
    given.info = {"charge": 0, "spin": 1.0}
    cation.info = {"charge": np.int64(1), "spin": 2}
    teacher = exact(uma, "omol")

    neutral, same, other = teacher.predict([plain, given, cation])

    assert same.energy == neutral.energy
    energy, _ = fairchems_answer(uma, "omol", cation)
    assert other.energy == pytest.approx(energy, abs=1e-8)
    assert abs(other.energy - neutral.energy) > 1e-4
    cation.info["charge"] = 0.5
    with pytest.raises(StructureError, match=r"H2O: Invalid type for charge"):
        teacher.predict([cation])


@needs_fairchem
def test_tasks_have_to_be_named_among_several(esen: Path, uma: Path) -> None:
    with pytest.raises(TeacherError, match=r"knows oc20, omat, omol: .*uma\.pt#oc20"):
        load_teacher(f"fairchem:{uma}")
    with pytest.raises(TeacherError, match="has no task 'omat'; it knows oc20"):
        load_teacher(f"fairchem:{esen}#omat")


@needs_fairchem
def test_name_and_fingerprint_tell_tasks_apart(esen: Path, uma: Path) -> None:
    one, named = load_teacher(f"fairchem:{esen}"), load_teacher(f"fairchem:{esen}#oc20")
    first, second = (load_teacher(f"fairchem:{uma}#{task}") for task in UMA_TASKS[:2])

    assert (one.name, one.sha256) == (named.name, named.sha256)
    assert (one.name, one.sha256) == ("esen", file_sha256(esen))
    assert (first.name, second.name) == ("uma#oc20", "uma#omat")
    assert len({first.sha256, second.sha256, file_sha256(uma)}) == 3
    assert one.energy_reference == first.energy_reference == "total"
    assert one.has_features


@needs_fairchem
def test_elements_are_those_with_reference_energies(esen: Path) -> None:
    teacher = load_teacher(f"fairchem:{esen}")

    assert teacher.elements == frozenset(range(1, tiny.N_ELEMENTS)) - {tiny.UNKNOWN}
    with pytest.raises(TeacherError, match="contains Pd"):
        teacher.predict([bulk("Pd")])


@needs_fairchem
def test_published_models_go_by_name(
    uma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairchem.core.calculate import pretrained_mlip

    def deliver(name: str) -> str:
        assert name == "uma-s-1p2"
        return str(uma)

    def fail(name: str) -> str:
        raise OSError("401: access to facebook/UMA is restricted\nand a page of advice")

    function = "pretrained_checkpoint_path_from_name"
    with pytest.raises(TeacherError, match=r"no fairchem model 'uma-xl'.* uma-s-1p2"):
        load_teacher("fairchem:uma-xl#oc20")
    monkeypatch.setattr(pretrained_mlip, function, deliver)
    assert load_teacher("fairchem:uma-s-1p2#oc20").name == "uma#oc20"
    monkeypatch.setattr(pretrained_mlip, function, fail)
    with pytest.raises(
        TeacherError, match=r"'uma-s-1p2': OSError: 401: .*; accept its"
    ):
        load_teacher("fairchem:uma-s-1p2#oc20")


# kinds of models and files


@needs_fairchem
def test_direct_forces_are_those_of_fairchem(folder: Path) -> None:
    tasks = tiny.tasks(("oc20",), "energy", "forces")
    path = tiny.save(folder / "direct.pt", tiny.esen_direct(), tasks)

    for atoms in structures():
        (labels,) = exact(path).predict([atoms])
        energy, forces = fairchems_answer(path, "oc20", atoms)
        assert labels.energy == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(labels.forces, forces, atol=1e-8)
        assert labels.node_energy.sum() == pytest.approx(energy, abs=1e-8)
        assert np.abs(forces).max() > 0.01


@needs_fairchem
def test_models_of_energies_alone_give_gradient_forces(
    esen: Path, folder: Path
) -> None:
    only_energy = tiny.tasks(("oc20",), "energy")
    path = tiny.save(folder / "energy.pt", tiny.esen(), only_energy)

    (labels,), (full,) = (exact(p).predict([oxygen_slab()]) for p in (path, esen))

    np.testing.assert_allclose(labels.forces, full.forces, atol=1e-10)


@needs_fairchem
def test_files_that_fairchem_saves_while_training_are_read(
    folder: Path, uma: Path
) -> None:
    import torch.distributed.checkpoint as dcp
    from fairchem.core.units.mlip_unit.mlip_unit import (
        convert_train_checkpoint_to_inference_checkpoint,
    )
    from omegaconf import OmegaConf

    unit = {
        "model": tiny.uma(UMA_TASKS),
        "tasks": tiny.tasks(UMA_TASKS, "energy", "forces"),
    }
    config = OmegaConf.create({"runner": {"train_eval_unit": unit}})
    weights = tiny.averaged(unit["model"])
    state = {"unit_state": {"model": weights, "ema": weights}, "config": config}
    dcp.save(state, checkpoint_id=folder / "step_0")
    path = folder / "inference_ckpt.pt"
    convert_train_checkpoint_to_inference_checkpoint(folder / "step_0", path)

    saved, ours = (exact(p, "omat").predict(structures()) for p in (path, uma))

    with path.open("rb") as stream:
        assert b"omegaconf" in stream.read()
    for one, other in zip(saved, ours, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-10)


@needs_fairchem
def test_weights_of_another_model_are_refused(folder: Path) -> None:
    weights = tiny.averaged(tiny.esen(num_layers=1))
    tasks = tiny.tasks(("oc20",), "energy", "forces")
    path = tiny.save(folder / "odd.pt", tiny.esen(), tasks, ema_state_dict=weights)

    with pytest.raises(TeacherError, match=r"cannot build the model of .*odd\.pt"):
        load_teacher(f"fairchem:{path}")


@needs_fairchem
def test_hostile_configurations_run_in_fairchem_and_not_here(folder: Path) -> None:
    from fairchem.core.units.mlip_unit import MLIPPredictUnit

    marker = folder / "marker"
    model = tiny.esen()
    weights = tiny.averaged(model)
    model["backbone"]["x"] = {"_target_": "os.mkdir", "path": str(marker)}
    path = tiny.save(
        folder / "evil.pt",
        model,
        tiny.tasks(("oc20",), "energy"),
        ema_state_dict=weights,
    )

    with pytest.raises(TeacherError, match=r"would call 'os\.mkdir'"):
        load_teacher(f"fairchem:{path}")

    assert not marker.exists()
    with pytest.raises(Exception, match="x"):  # the network has no argument x
        MLIPPredictUnit(str(path))
    assert marker.exists()


# conduct


@needs_fairchem
def test_a_teacher_leaves_gradients_and_random_numbers_alone(esen: Path) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    generator = torch.get_rng_state()

    teacher = load_teacher(f"fairchem:{esen}")
    with torch.no_grad():
        (quiet,) = teacher.predict([oxygen_slab()])
    (labels,) = teacher.predict([oxygen_slab()])

    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(generator, torch.get_rng_state())
    np.testing.assert_array_equal(quiet.forces, labels.forces)
    network = teacher.unit.model
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())
    assert all(weight.grad is None for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert labels.forces.dtype == np.float64
    assert labels.node_features.dtype == np.float32
    (doubly,) = exact(esen).predict([oxygen_slab()])
    assert labels.energy == pytest.approx(doubly.energy, abs=1e-4)
    np.testing.assert_allclose(labels.forces, doubly.forces, atol=1e-4)


# the whole way


def frames(path: Path) -> Path:
    from ase.io import write

    cells = []
    for seed in range(4):
        cell = bulk("Cu", cubic=True)
        cell.symbols[0] = "Pt"
        cell.rattle(0.1, seed=seed)
        cells.append(cell)
    slab = fcc111("Pt", (1, 1, 3), vacuum=6.0)  # open along z
    write(path, [*cells, slab, molecule("H2O")])
    return path


@needs_fairchem
def test_a_dataset_with_everything(uma: Path, tmp_path: Path) -> None:
    from crack_md.cli import app

    out = tmp_path / "train.aselmdb"
    arguments = ["label", str(frames(tmp_path / "frames.extxyz")), "--out", str(out)]
    arguments += ["--teacher", f"fairchem:{uma}#oc20", "--features", "all"]
    arguments += ["--jacobian-rows", "2", "--largest-force", "1000"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)

    assert done.exit_code == 0, done.output
    dataset = read_dataset(out)
    assert dataset.metadata["teacher"] == "uma#oc20"
    assert dataset.metadata["n_features"] == 8
    assert dataset.metadata["energy_reference"] == "total"
    assert dataset.metadata["gas_references"].keys() == {"H2O", "H2"}
    teacher = load_teacher(f"fairchem:{uma}#oc20", all_degrees=True)
    for one in dataset.structures:
        (expected,) = teacher.predict([one.atoms])
        assert one.teacher is not None
        assert one.teacher.energy == pytest.approx(expected.energy, abs=1e-4)
        for name in ("forces", "node_features", "node_energy"):
            np.testing.assert_allclose(
                getattr(one.teacher, name), getattr(expected, name), atol=1e-4
            )
        atom, axis = one.teacher.jacobian.atom[0], one.teacher.jacobian.axis[0]
        ends = [as_periodic(one.atoms) for _ in range(2)]
        for atoms, sign in zip(ends, (1, -1), strict=True):
            atoms.positions[atom, axis] += sign * 0.01
        ahead, behind = teacher.predict(ends)
        rows = (ahead.forces - behind.forces) / 0.02
        np.testing.assert_allclose(one.teacher.jacobian.values[0], rows, atol=1e-2)


@needs_fairchem
def test_training_beside_the_teacher_is_training_from_its_labels(
    uma: Path, tmp_path: Path
) -> None:
    from crack_md.training.config import check_config
    from crack_md.training.loop.run import RunFolder
    from crack_md.training.loop.train import train

    data = write_dataset(
        tmp_path / "frames.aselmdb",
        [labelled(number, with_teacher=False) for number in range(8)],
    )
    curves = []
    for when in ("start", "step"):
        tree = recipe(data, tmp_path / when, max_steps=2)
        spec = f"fairchem:{uma}#oc20"
        tree["teacher"] = {"kind": "online", "spec": spec, "labels": when}
        train(check_config(tree, source="test"), quiet=True)
        records = RunFolder(tmp_path / when).metrics()
        curves += [
            [one[name] for one in records if name in one] for name in ("crack", "n2n")
        ]

    assert all(len(curve) == 2 for curve in curves)
    assert min(map(min, curves)) > 0
    assert curves[0] == pytest.approx(curves[2], rel=1e-4)
    assert curves[1] == pytest.approx(curves[3], rel=1e-4)
