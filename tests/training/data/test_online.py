"""A teacher in the loop says what its stored labels would have said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.morse import MorsePotential

from crack_md.data.dataset import LabelledStructure, read_dataset
from crack_md.errors import DataError
from crack_md.models.checkpoint import load_model
from crack_md.models.teachers import AseTeacher, TeacherLabels, load_teacher
from crack_md.neighbors import SmoothNeighbors
from crack_md.training.config import check_config
from crack_md.training.data.frames import Frames
from crack_md.training.data.labels import OnlineLabels
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.training.factories import labelled, recipe, write_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small EquiformerV2 that can be asked as a teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    train(check_config(recipe(dataset, folder, max_steps=1), source="test"), quiet=True)
    return folder / "student.pt"


def frames_of(structures: list[LabelledStructure]) -> Frames:
    return Frames(structures, SmoothNeighbors(cutoff=4.0))


def online(spec: str, tree: dict[str, Any], labels: str) -> dict[str, Any]:
    return tree | {"teacher": {"kind": "online", "spec": spec, "labels": labels}}


def curve(tree: dict[str, Any], name: str) -> list[float]:
    train(check_config(tree, source="test"), quiet=True)
    records = RunFolder(Path(tree["run"]["folder"])).metrics()
    return [record[name] for record in records if name in record]


def test_rows_of_a_dimer_are_its_force_constant() -> None:
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [1, 0, 0]])
    calculator = MorsePotential(epsilon=1.0, r0=1.0, rho0=6.0)
    frame = LabelledStructure(
        dimer, 0.0, np.zeros((2, 3)), None, "dimer", "relaxed", np.ones(2, dtype=bool)
    )
    labels = OnlineLabels(AseTeacher(calculator), [frame], device=CPU, n_rows=6)
    chosen = torch.tensor([0])
    rows = labels(frames_of([frame]).batch(chosen), chosen, step=0).jacobian
    assert rows is not None
    assert sorted(zip(*(x[0].tolist() for x in rows[:2]), strict=True)) == [
        (atom, axis) for atom in range(2) for axis in range(3)
    ]
    for atom, axis, values in zip(rows.atom[0], rows.axis[0], rows.values, strict=True):
        # at the minimum 2 ε (ρ/r)² = 72 eV/Å² along the bond, nothing across
        expected = torch.zeros(2, 3)
        if axis == 0:
            expected[:, 0] = torch.tensor([72.0, 72.0])
            expected[atom, 0] = -72.0
        # third order: F(r + h) − F(r − h) over 2h has an error of h² ρ⁴/r⁴
        torch.testing.assert_close(values, expected, atol=0.6, rtol=0)


def test_rows_belong_to_free_atoms_whoever_asks() -> None:
    structures = [labelled(number, with_teacher=False) for number in range(3)]
    labels = OnlineLabels(load_teacher("emt"), structures, device=CPU, n_rows=2)
    frames = frames_of(structures)
    both = torch.tensor([2, 1])
    together = labels(frames.batch(both), both, step=4).jacobian
    alone = labels(frames.batch(both[1:]), both[1:], step=4).jacobian
    assert together is not None
    assert alone is not None
    n_first = len(structures[2].atoms)
    assert torch.equal(together.atom[1] - n_first, alone.atom[0])
    assert torch.equal(together.axis[1], alone.axis[0])
    torch.testing.assert_close(together.values[:, n_first:], alone.values)
    for place, number in enumerate((2, 1)):
        own = together.atom[place] - place * n_first
        assert structures[number].free[own.numpy()].all()
    later = labels(frames.batch(both), both, step=5).jacobian
    assert later is not None
    assert not torch.equal(together.atom, later.atom)
    # forces of a crystal add up to zero, wherever its atoms are
    assert float(together.values.sum(dim=1).abs().max()) < 1e-3


def test_answers_from_graphs_equal_those_from_atoms(network: Path) -> None:
    structures = [labelled(number, with_teacher=False) for number in range(3)]
    slab = structures[0].atoms.copy()
    slab.pbc = (True, True, False)  # teachers see it with vacuum
    structures.append(
        LabelledStructure(
            slab, 0.0, np.zeros((len(slab), 3)), None, "slab", "", structures[0].free
        )
    )
    teacher = load_teacher(str(network))
    chosen = torch.tensor([3, 1])
    batch = OnlineLabels(teacher, structures, device=CPU)(
        frames_of(structures).batch(chosen), chosen, step=0
    )
    answers = teacher.predict([structures[3].atoms, structures[1].atoms])
    assert batch.teacher is not None
    assert batch.teacher.energy.tolist() == pytest.approx(
        [answer.energy for answer in answers]
    )
    for name in ("forces", "node_features"):
        expected = np.concatenate([getattr(answer, name) for answer in answers])
        found = getattr(batch.teacher, name)
        assert not found.requires_grad
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["emt", "network"])
def test_asking_at_every_step_trains_as_asking_once(
    dataset: Path, network: Path, tmp_path: Path, kind: str
) -> None:
    spec = kind if kind == "emt" else str(network)
    curves = []
    for labels in ("start", "step"):
        tree = online(spec, recipe(dataset, tmp_path / labels, max_steps=3), labels)
        tree["losses"] = [{"kind": "output", "energy_weight": 1, "force_weight": 10}]
        if kind == "network":
            tree["features"] = {"normalize": True}
            tree["losses"] += [
                {"kind": "crack", "weight": 1, "temperature": 0.15},
                {"kind": "n2n", "weight": 1},
            ]
        curves.append(curve(tree, "loss"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    state = RunFolder(tmp_path / "step").load_checkpoint()
    assert state is not None
    held = sum(t.numel() for k, t in state["objective"].items() if "student" in k)
    student = load_model(tmp_path / "step" / "student.pt")
    assert held == sum(t.numel() for t in student.state_dict().values())
    assert student.metadata.provenance["training"]["share_teacher"] > 0


def test_hessian_rows_are_asked_for_at_every_step(
    dataset: Path, tmp_path: Path
) -> None:
    curves = []
    for parts in (1, 2):
        tree = online("emt", recipe(dataset, tmp_path / str(parts)), "step")
        tree["run"] |= {"accumulate": parts, "max_steps": 2}
        tree["losses"] = [{"kind": "hessian", "weight": 1.0, "rows": 2}]
        curves.append(curve(tree, "hessian"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0][0] > 0


def test_hessian_rows_are_kept_at_the_start(dataset: Path, tmp_path: Path) -> None:
    tree = online("emt", recipe(dataset, tmp_path / "run", max_steps=1), "start")
    tree["losses"] = [{"kind": "hessian", "weight": 1.0, "rows": 1}]
    tree["teacher"]["jacobian_rows"] = 3
    train(check_config(tree, source="test"), quiet=True)
    kept = read_dataset(tmp_path / "run" / "teacher_labels.aselmdb").structures
    for frame in kept:
        assert frame.teacher is not None
        assert frame.teacher.jacobian is not None
        assert frame.teacher.jacobian.values.shape == (3, len(frame.atoms), 3)
        assert frame.free[frame.teacher.jacobian.atom].all()


def test_labels_are_kept_for_the_next_start(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Counting(AseTeacher):
        def predict(self, atoms: Any) -> list[TeacherLabels]:
            asked.append(len(atoms))
            return super().predict(atoms)

    def counting_teacher(name: str) -> Counting:
        return Counting(load_teacher("emt").calculator, name=name)  # type: ignore[attr-defined]

    tree = online("emt", recipe(dataset, tmp_path / "run", max_steps=1), "start")
    tree["losses"] = [{"kind": "output", "energy_weight": 1.0, "force_weight": 1.0}]
    for name, expected in (("one", [1, 12]), ("one", [1]), ("other", [1, 12])):
        asked.clear()
        monkeypatch.setattr(
            "crack_md.training.data.source.load_teacher",
            lambda spec, name=name, **options: counting_teacher(name),
        )
        train(check_config(tree, source="test"), quiet=True)
        assert asked == expected  # one question shows what the teacher has
    assert not list((tmp_path / "run").glob("*partial*"))


def test_labels_that_a_teacher_lacks_are_named_before_any_work(tmp_path: Path) -> None:
    bare = write_dataset(tmp_path / "bare.aselmdb", [labelled(0, with_teacher=False)])
    tree = online("emt", recipe(bare, tmp_path / "run"), "step")
    with pytest.raises(DataError, match=r"node features.* losses crack, n2n"):
        train(check_config(tree, source="test"), quiet=True)
    assert not (tmp_path / "run").exists()
