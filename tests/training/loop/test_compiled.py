"""Compiled training steps: outputs, slopes of weights, and what is refused."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crack_md.calculators import packages
from crack_md.calculators.packages import packages_folder as folder_of_user
from crack_md.calculators.packages import path_for
from crack_md.errors import ConfigError, CrackError
from crack_md.graph import AtomGraph
from crack_md.models.force_field import EnergyScale, ForceField
from crack_md.training.config import check_config
from crack_md.training.data.frames import Frames, JacobianBatch
from crack_md.training.loop import compiled, step_code
from crack_md.training.loop.compiled import CompiledStudent
from crack_md.training.loop.heads import FeatureHead
from crack_md.training.loop.objective import Objective
from crack_md.training.loop.step_code import (
    StepCode,
    StepFunctions,
    build_example,
    conditions_of_step,
)
from crack_md.training.loop.train import train
from crack_md.training.losses import (
    EnergyLoss,
    ForceLoss,
    HessianLoss,
    NodeToNodeLoss,
    WeightedTerm,
)
from tests.factories import graph_of, oxygen_slab, tiny_model, water
from tests.models.test_architectures import OPTIONS, model_of
from tests.training.factories import (
    CHANNELS,
    TINY,
    crack_term,
    labelled,
    recipe,
)
from tests.training.loop.test_parallel import assert_same_curves, train_in_processes

SCALE = EnergyScale(
    mean=0.7,
    std=2.0,
    force_std=3.0,
    element_references={8: -3.0, 78: -6.0},
    isolated_references={8: -1.5, 78: -2.0},
)
CURVES = ("loss", "crack", "n2n", "output_forces", "task_forces", "gradient_norm")
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="no C++ compiler"
)


def stand_in(student: ForceField, factor: float = 1.0) -> StepCode:
    """Return what packages do, by the functions that they are made of."""
    functions = StepFunctions(student)

    def outputs(given: list[Tensor]) -> list[Tensor]:
        return list(functions.outputs(*given))

    def slopes(given: list[Tensor]) -> list[Tensor]:
        first, *rest = functions.slopes(*given)
        return [factor * first, *rest]

    return StepCode(outputs, slopes)


def instead_of_compiling(
    monkeypatch: pytest.MonkeyPatch, factor: float = 1.0
) -> list[ForceField]:
    asked = []

    def build_step_code(student: ForceField) -> StepCode:
        asked.append(student)
        return stand_in(student, factor)

    monkeypatch.setattr(compiled, "build_step_code", build_step_code)
    return asked


def some_loss(student: Any, graph: AtomGraph) -> Tensor:
    answer = student(graph)
    assert answer.node_energy is not None
    total: Tensor = answer.energy.square().sum() + answer.node_energy.sum()
    return total + answer.forces.square().sum() + answer.node_features.sin().sum()


def slopes_of(loss: Tensor, student: ForceField) -> dict[str, Tensor]:
    student.zero_grad()
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in student.network.named_parameters()
        if weight.grad is not None
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, slope in expected.items():
        torch.testing.assert_close(
            found[name], slope, msg=lambda text, n=name: n + text
        )


def students() -> list[Any]:
    named = {
        "smooth": tiny_model(scale=SCALE),
        "direct": tiny_model(scale=SCALE, forces="direct"),
        "strict": tiny_model(scale=SCALE, neighbors="strict"),
    } | {name: model_of(name, std=2.0) for name in OPTIONS if name != "molecular"}
    return [pytest.param(student, id=name) for name, student in named.items()]


@pytest.mark.parametrize("student", students())
def test_slopes_of_weights_are_those_of_the_model(
    student: ForceField, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_compiling(monkeypatch)
    student.train()
    answering = CompiledStudent(student)
    graphs = [
        graph_of(student, oxygen_slab(), oxygen_slab(seed=2)),
        graph_of(student, oxygen_slab(seed=1)),
    ]
    for graph in graphs:
        for one, other in zip(answering(graph), student(graph), strict=True):
            torch.testing.assert_close(one, other)
        found = slopes_of(some_loss(answering, graph), student)
        assert_same(found, slopes_of(some_loss(student, graph), student))
        with torch.no_grad():  # as a step of the optimizer does
            for weight in student.parameters():
                weight.mul_(1.01)
    assert answering.code is not None


def test_weights_that_a_loss_does_not_reach_have_no_slope(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Zeros instead would let weight decay shrink them."""
    instead_of_compiling(monkeypatch)
    student = tiny_model(forces="direct").train()
    answering, graph = CompiledStudent(student), graph_of(student, oxygen_slab())
    for part in ("energy", "forces", "node_features"):
        loss, expected = (
            getattr(one(graph), part).square().sum() for one in (answering, student)
        )
        found = slopes_of(loss, student)
        assert_same(found, slopes_of(expected, student))
        assert len(found) < len(list(student.network.parameters())), part


def objectives(student: ForceField) -> list[Objective]:
    terms = [
        WeightedTerm(crack_term(), 10.0),
        WeightedTerm(NodeToNodeLoss(), 0.5),
        WeightedTerm(EnergyLoss("task", 1.0, False), 1.0),
        WeightedTerm(ForceLoss("task", 1.0), 5.0),
    ]
    head = FeatureHead(8, CHANNELS)
    return [
        Objective(student, terms, head=head, compiled=one)
        for one in (None, CompiledStudent(student))
    ]


def test_an_objective_has_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    instead_of_compiling(monkeypatch)
    student = tiny_model(dtype=torch.float32).train()
    frames = Frames([labelled(number) for number in range(3)], student.rule)
    batch = frames.batch(torch.arange(3))
    found = []
    for objective in objectives(student):
        objective.zero_grad()
        report = objective(batch)
        report.total.backward()
        slopes = {
            n: w.grad for n, w in objective.named_parameters() if w.grad is not None
        }
        found.append((report.parts, slopes))
    assert objective.compiled is not None
    assert objective.compiled.code is not None
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4)
    assert not any("compiled" in name for name in objective.state_dict())


def test_hessians_by_differences_take_compiled_forces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = tiny_model(dtype=torch.float32).train()
    frames = Frames([labelled(number) for number in range(2)], student.rule)
    batch = frames.batch(torch.arange(2))
    n_atoms = batch.graph.n_atoms
    rows = JacobianBatch(
        torch.tensor([[0], [n_atoms - 1]]),
        torch.tensor([[0], [2]]),
        torch.zeros(1, n_atoms, 3),
    )
    answering = CompiledStudent(student)
    instead_of_compiling(monkeypatch)
    answering(batch.graph)  # compares
    code = answering.code
    assert code is not None
    calls = []

    def outputs(given: list[Tensor]) -> list[Tensor]:
        calls.append(given)
        return code.outputs(given)

    answering.code = code._replace(outputs=outputs)
    terms = [WeightedTerm(HessianLoss("differences", 1, 1.0, 0.01), 1.0)]
    losses = [
        Objective(student, terms, compiled=one)(batch._replace(jacobian=rows)).total
        for one in (None, answering)
    ]
    assert len(calls) == 3, "of the batch, and of two moves"
    torch.testing.assert_close(*losses, rtol=2e-3, atol=0)


def test_code_that_answers_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instead_of_compiling(monkeypatch, factor=1.01)
    student = tiny_model().train()
    answering, graph = CompiledStudent(student), graph_of(student, oxygen_slab())
    reason = r"differs from itself by 1\.0e-02 when compiled; training goes on uncomp"
    with pytest.warns(UserWarning, match=reason):
        found = slopes_of(some_loss(answering, graph), student)
    assert_same(found, slopes_of(some_loss(student, graph), student))
    assert answering.code is None


def test_a_compiler_that_fails_leaves_the_model(
    monkeypatch: pytest.MonkeyPatch, packages_folder: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found\nand a page of advice")

    monkeypatch.setattr(step_code, "compile_code", fail)
    student = tiny_model().train()
    answering, graph = CompiledStudent(student), graph_of(student, oxygen_slab())
    reason = r"^the training step cannot be compiled \(RuntimeError: no C\+\+ compiler"
    with pytest.warns(UserWarning, match=reason) as caught:
        answering(graph)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answering(graph)
    assert not list(packages_folder.glob("*.pt2"))


def test_a_gpu_is_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ForceField, "device", torch.device("cuda"))
    student = tiny_model().train()
    answering = CompiledStudent(student)
    with pytest.warns(UserWarning, match="run.compile is for processors, and this is"):
        answering(graph_of(student, oxygen_slab()))


def test_what_no_code_is_made_for_takes_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = instead_of_compiling(monkeypatch)
    student = tiny_model().train()
    answering = CompiledStudent(student)
    assert answering(graph_of(student, water()[:1])).energy.isfinite().all()
    with torch.no_grad():
        answering(graph_of(student, oxygen_slab()))
    student.eval()
    answering(graph_of(student, oxygen_slab()))
    assert not asked
    student.train()
    answering(graph_of(student, oxygen_slab()))
    assert asked == [student]


def test_packages_know_no_weights_and_no_data() -> None:
    paths = {
        path_for(conditions_of_step(student, name))
        for student in (
            tiny_model(),
            tiny_model(seed=1),
            tiny_model(scale=EnergyScale(mean=1.0, std=3.0)),
        )
        for name in ("outputs", "slopes")
    }
    assert len(paths) == 2
    others = (
        tiny_model(dtype=torch.float32),
        tiny_model(neighbors="strict"),
        tiny_model(scale=SCALE),  # isolated atoms: the network says more
    )
    paths |= {path_for(conditions_of_step(student, "outputs")) for student in others}
    assert len(paths) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"losses": [{"kind": "hessian", "weight": 1.0}]},
            r"run\.compile has no derivatives of forces, which losses\.0 \(hessian\)",
        ),
        (
            {"student": {"architecture": {"name": "molecular"}}},
            "needs a student that is a function of edges, and architecture 'molecular'",
        ),
        ({"run": {"precision": "bfloat16"}}, "compile is for processors, in float32"),
        ({"run": {"accelerator": "gpu"}}, "compile is for processors, in float32"),
    ],
)
def test_what_compiled_code_cannot_do_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tree = recipe(tmp_path / "data.aselmdb", tmp_path / "run", compile=True)
    tree["student"]["architecture"] = TINY | {"forces": "gradient"}
    for section, values in changes.items():
        if isinstance(values, dict):
            tree[section] |= values
        else:
            tree[section] = values
    with pytest.raises(ConfigError, match=message):
        check_config(tree, source="test")
    tree["run"]["compile"] = False
    check_config(tree, source="test")


def test_hessians_by_differences_may_be_compiled(tmp_path: Path) -> None:
    tree = recipe(tmp_path / "data.aselmdb", tmp_path / "run", compile=True)
    tree["losses"] = [{"kind": "hessian", "weight": 1.0, "differences": True}]
    tree["student"]["architecture"] = TINY | {"forces": "gradient"}
    assert check_config(tree, source="test").run.compile


def test_a_run_may_be_resumed_with_other_code(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = instead_of_compiling(monkeypatch)
    tree = recipe(dataset, tmp_path / "run", max_steps=4)
    train(check_config(tree, source="test"), quiet=True)
    tree["run"] |= {"compile": True, "max_steps": 8}
    assert train(check_config(tree, source="test"), quiet=True).step == 8
    assert len(asked) == 1


def test_examples_have_no_two_sizes_alike() -> None:
    student = tiny_model()
    weights = tuple(student.network.parameters())
    inputs = build_example(student, weights)
    sizes = [len(inputs[0]), *inputs[-1].shape]
    assert len(set(sizes)) == 3
    assert not {size for weight in weights for size in weight.shape} & set(sizes)
    every = (torch.empty(1, size) for size in range(3000))
    with pytest.raises(CrackError, match="cannot be compiled"):
        build_example(student, tuple(every))


def small_painn(dataset: Path, folder: Path, **run: object) -> dict[str, Any]:
    tree = recipe(dataset, folder, max_steps=6, **run)
    tree["student"]["architecture"] = OPTIONS["painn"]
    tree["losses"].append({"kind": "task", "energy_weight": 1.0, "force_weight": 9.0})
    return tree


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_is_the_same_run_on_two_processes_too(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(packages, "packages_folder", folder_of_user)
    plain = check_config(small_painn(dataset, tmp_path / "plain"), source="test")
    train(plain, quiet=True)
    two = small_painn(dataset, tmp_path / "two", compile=True, devices=2)
    train_in_processes(two, tmp_path / "two.yaml")
    made = sorted(cache.rglob("*.pt2"))
    assert len(made) == 2
    assert_same_curves(
        tmp_path / "plain", tmp_path / "two", n_steps=6, rel=2e-3, terms=CURVES
    )
    # another start, other data: a compiler would fail
    monkeypatch.setattr(step_code, "compile_code", None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as both processes had
    again = small_painn(dataset, tmp_path / "again", compile=True, batch_size=3)
    again["data"]["max_frames"] = 5
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it would go on uncompiled
            train(check_config(again, source="test"), quiet=True)
    finally:
        torch.set_num_threads(threads)
    assert sorted(cache.rglob("*.pt2")) == made
