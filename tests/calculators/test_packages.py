"""Packages: what they answer, what is refused, and that one serves all structures."""

import copy
import json
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import ase
import numpy as np
import pytest
import torch

from crack_md import CrackCalculator
from crack_md.calculators import packaged
from crack_md.calculators.engine import EagerEngine, rattled_crystals
from crack_md.calculators.packaged import PackagedEngine, build_engine
from crack_md.calculators.packages import (
    AGAIN,
    METADATA,
    PREFIX,
    Package,
    conditions_of,
    evaluate_package,
    open_package,
    package_path,
)
from crack_md.calculators.packages import packages_folder as folder_of_user
from crack_md.errors import CheckpointError
from crack_md.graph import batch_graphs
from crack_md.models.equiformer import equiformer_v2
from crack_md.models.force_field import EnergyScale, ForceField
from crack_md.models.network import Edges
from crack_md.neighbors import build_graph
from tests.factories import graph_of, oxygen_slab, tiny_model, water
from tests.models.test_architectures import model_of


def stand_in(model: ForceField, factor: float = 1.0) -> Package:
    """Return what a package does, by the model itself."""

    def run(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        vectors, senders, receivers, numbers, filled, mask = inputs
        edges = Edges(
            vectors, vectors, senders, receivers, numbers, mask, filled, compact=False
        )
        atomic, forces, features, slopes = model.on_edges(edges)
        return [atomic, factor * forces, features, slopes]

    return run


def instead_of_compiling(
    monkeypatch: pytest.MonkeyPatch, factor: float = 1.0
) -> list[ForceField]:
    asked = []

    def package_of(model: ForceField) -> Package:
        asked.append(model)
        return stand_in(model, factor)

    monkeypatch.setattr(packaged, "package_of", package_of)
    return asked


@pytest.mark.parametrize("rule", ["smooth", "strict"])
@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_answers_of_a_package_are_those_of_the_model(rule: str, forces: str) -> None:
    scale = EnergyScale(mean=0.7, std=2.0, force_std=3.0, element_references={8: -3.0})
    model = tiny_model(neighbors=rule, forces=forces, scale=scale)
    stress = forces == "gradient"
    alone = graph_of(model, oxygen_slab())
    for graph in (alone, graph_of(model, oxygen_slab(seed=1), oxygen_slab(seed=2))):
        edges = model.network.edges(graph)
        with torch.no_grad():
            expected = model(graph, stress=stress)
        found = evaluate_package(stand_in(model), model, graph, edges, stress=stress)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_structures_that_no_code_is_made_for_take_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = instead_of_compiling(monkeypatch)
    engine = PackagedEngine(tiny_model())
    far = ase.Atoms("Pt2", [[0, 0, 0], [0, 0, 9]])
    for atoms in (ase.Atoms("Pt"), far):
        assert engine(graph_of(engine.model, atoms)).energy.isfinite().all()
    monkeypatch.setattr(equiformer_v2, "WHOLE_BYTES", 1)
    engine(graph_of(engine.model, oxygen_slab()))  # worked on in parts
    assert not asked
    monkeypatch.undo()
    asked = instead_of_compiling(monkeypatch)
    engine(graph_of(engine.model, oxygen_slab()))
    engine(graph_of(engine.model, water()))
    assert len(asked) == engine.n_compiled == 1


def test_code_that_answers_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instead_of_compiling(monkeypatch, factor=1.001)
    calculator = CrackCalculator(tiny_model(), compile=True, device="cpu")
    plain = CrackCalculator(tiny_model(), device="cpu")
    with pytest.warns(UserWarning, match=r"differs from itself by 1\.0e-03 when comp"):
        (found,) = calculator.calculate_many([oxygen_slab()])
    (expected,) = plain.calculate_many([oxygen_slab()])
    np.testing.assert_array_equal(found["forces"], expected["forces"])
    assert calculator.start_up_s == 0


def test_a_compiler_that_fails_leaves_the_model(
    monkeypatch: pytest.MonkeyPatch, packages_folder: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler found\nand a page of advice")

    monkeypatch.setattr(packaged, "_compile", fail)
    engine = PackagedEngine(tiny_model())
    graph = graph_of(engine.model, oxygen_slab())
    reason = (
        r"^the model cannot be compiled \(RuntimeError: no C\+\+ compiler found\); "
    )
    with pytest.warns(UserWarning, match=reason + "it goes on uncompiled") as caught:
        engine(graph)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(graph)
    assert not list(packages_folder.glob("*.pt2"))


def test_a_folder_that_cannot_be_written_leaves_the_model(
    packages_folder: Path,
) -> None:
    packages_folder.write_text("a file")
    engine = PackagedEngine(tiny_model())
    with pytest.warns(UserWarning, match="no compiled code can be kept in .* set XDG"):
        engine(graph_of(engine.model, oxygen_slab()))


def written(made_for: ForceField, path: Path, **changes: str) -> Path:
    conditions = {**conditions_of(made_for), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        content = {PREFIX + name: value for name, value in conditions.items()}
        archive.writestr(f"data/x{METADATA}", json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processor", "aarch64 default 0123abcd"),
        ("PyTorch", "2.8.0+cpu"),
        ("model", "0" * 64),
        ("code", "0" * 16),
        ("threads", "none"),
    ],
)
def test_packages_made_for_something_else_are_refused(
    name: str, value: str, tmp_path: Path
) -> None:
    model = tiny_model()
    path = written(model, tmp_path / "other.pt2", **{name: value})
    with pytest.raises(CheckpointError) as caught:
        open_package(path, conditions_of(model))
    assert str(caught.value) == (
        f"'{path}' is compiled for another {name}: {value}, here it is "
        f"{conditions_of(model)[name]}; {AGAIN}"
    )


def test_damaged_packages_are_refused(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "student.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="is no package that crack-md compiled"):
        open_package(path, conditions_of(model))
    with pytest.raises(CheckpointError, match="is no package that crack-md compiled"):
        open_package(tmp_path / "missing.pt2", conditions_of(model))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        open_package(written(model, path), conditions_of(model))  # no code in it


def test_packages_are_kept_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder_of_user() == tmp_path / "crack-md" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert folder_of_user() == Path.home() / ".cache" / "crack-md" / "compiled"


def test_names_tell_models_precisions_and_threads_apart() -> None:
    paths = {package_path(tiny_model(seed=seed)) for seed in (0, 0, 1)}
    paths.add(package_path(tiny_model(dtype=torch.float32)))
    assert len(paths) == 3
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        assert package_path(tiny_model()) not in paths
    finally:
        torch.set_num_threads(threads)


def test_a_cpu_compiles_when_asked_and_takes_what_is_there() -> None:
    model = tiny_model()
    assert isinstance(build_engine(model, "auto"), EagerEngine)
    assert isinstance(build_engine(model, compile_=True), PackagedEngine)
    written(model, package_path(model))
    assert isinstance(build_engine(model, "auto"), PackagedEngine)
    assert isinstance(build_engine(model, compile_=False), EagerEngine)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["ace", "strict"])
def test_one_package_serves_all_structures_and_processes(
    name: str, monkeypatch: pytest.MonkeyPatch, packages_folder: Path
) -> None:
    model = (
        model_of("ace").float()
        if name == "ace"
        else tiny_model(neighbors="strict", forces="direct", num_layers=1).float()
    )
    plain = CrackCalculator(model, compile=False)
    compiled = CrackCalculator(model, compile=True)
    wide = oxygen_slab() * (2, 2, 1)
    structures = [oxygen_slab(), water(), wide, ase.Atoms("Pt"), oxygen_slab(seed=3)]
    for calculator in (compiled, copy.deepcopy(compiled)):
        one_by_one = [calculator.calculate_many([atoms])[0] for atoms in structures]
        together = calculator.calculate_many(structures)
        expected = plain.calculate_many(structures)
        for found in (one_by_one, together):
            for one, other in zip(found, expected, strict=True):
                assert one["energy"] == pytest.approx(other["energy"], abs=1e-4)
                for key in set(other) - {"energy", "free_energy"}:
                    np.testing.assert_allclose(one[key], other[key], atol=1e-4)
        assert calculator.engines[0].n_compiled == 1, "it fell back"
        # from now on a compiler would fail
        monkeypatch.setattr(packaged, "_compile", None)
    (path,) = packages_folder.glob("*.pt2")
    loaded = pickle.loads(pickle.dumps(compiled))
    assert loaded.engines[0].n_compiled == 0
    assert isinstance(build_engine(compiled.models[0]), PackagedEngine)
    graphs = [
        build_graph(atoms, model.rule, dtype=model.dtype)
        for atoms in rattled_crystals(model)
    ]
    answer = loaded.engines[0](batch_graphs(graphs))
    torch.testing.assert_close(
        answer.forces, model(batch_graphs(graphs)).forces, atol=1e-4, rtol=1e-4
    )
    path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="cannot be compiled"):
        copy.deepcopy(compiled).calculate_many([oxygen_slab()])
