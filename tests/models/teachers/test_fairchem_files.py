"""Files for fairchem are taken apart and checked; nothing in them is run.

Needs no fairchem: classes of the tests are pickled under the names of fairchem's.
"""

import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from crack_md.errors import TeacherError
from crack_md.models.teachers.fairchem_files import CHECKPOINT, read_fairchem_file

UMA = "fairchem.core.models.uma"


@dataclass
class Checkpoint:
    """Has the name of fairchem's checkpoint in the files of `write`."""

    model_config: Any
    ema_state_dict: Any
    tasks_config: Any
    model_state_dict: Any = field(default_factory=dict)


class DictConfig:
    def __init__(self, content: dict[str, Any]) -> None:
        self._metadata, self._parent, self._content = None, self, content


class ListConfig(DictConfig):
    pass


class AnyNode:
    def __init__(self, value: object) -> None:
        self._metadata, self._parent, self._val = None, self, value


class Stranger:
    pass


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch {marker}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


NAMES = {
    Checkpoint: CHECKPOINT,
    DictConfig: "omegaconf.dictconfig.DictConfig",
    ListConfig: "omegaconf.listconfig.ListConfig",
    AnyNode: "omegaconf.nodes.AnyNode",
}


def write(path: Path, content: object) -> Path:
    """Save an object, with classes of this module under the names they stand for."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            for kind, full in NAMES.items():
                module, _, short = full.rpartition(".")
                old = f"c{kind.__module__}\n{kind.__qualname__}\n"
                data = data.replace(old.encode(), f"c{module}\n{short}\n".encode())
            archive.writestr(name, data)
    return path


def model_config(**changes: Any) -> dict[str, Any]:
    return {
        "_target_": "fairchem.core.models.base.HydraModel",
        "backbone": {"model": f"{UMA}.escn_md.eSCNMDBackbone", "lmax": 2},
        "heads": {"energy": {"module": f"{UMA}.escn_md.MLP_EFS_Head"}},
        "model_id": "UMA-S-1.2.1",
    } | changes


def task(dataset: str = "oc20", target: str = "energy", **changes: Any) -> Any:
    return {
        "_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task",
        "name": f"{dataset}_{target}",
        "property": target,
        "loss_fn": {"_target_": "fairchem.core.modules.loss.MAELoss"},
        "datasets": [dataset],
    } | changes


def checkpoint(**changes: Any) -> Checkpoint:
    parts = {
        "model_config": model_config(),
        "ema_state_dict": {"module.w": torch.arange(3.0)},
        "tasks_config": [task(), task(target="forces")],
    }
    return Checkpoint(**(parts | changes))


def test_a_checkpoint_is_read_without_fairchem(tmp_path: Path) -> None:
    file = read_fairchem_file(write(tmp_path / "model.pt", checkpoint()))

    assert file.model == model_config()
    assert [one["name"] for one in file.tasks] == ["oc20_energy", "oc20_forces"]
    assert "loss_fn" not in file.tasks[0]  # what only training calls is left behind
    assert torch.equal(file.weights["module.w"], torch.arange(3.0))
    assert file.datasets() == file.datasets("forces") == ["oc20"]
    assert file.datasets("stress") == []


def test_configurations_of_omegaconf_become_plain(tmp_path: Path) -> None:
    tasks = ListConfig(
        [DictConfig(task(datasets=ListConfig([AnyNode("omat"), AnyNode("omc")])))]
    )
    file = read_fairchem_file(
        write(
            tmp_path / "model.pt",
            checkpoint(model_config=DictConfig(model_config()), tasks_config=tasks),
        )
    )

    assert file.model == model_config()
    assert file.datasets() == ["omat", "omc"]


def test_the_task_is_the_only_one_or_has_to_be_named(tmp_path: Path) -> None:
    one = read_fairchem_file(write(tmp_path / "one.pt", checkpoint()))
    tasks = [task("omat"), task("oc20"), task("omol", "forces")]
    two = read_fairchem_file(write(tmp_path / "two.pt", checkpoint(tasks_config=tasks)))

    assert one.choose(None) == one.choose("oc20") == "oc20"
    assert two.choose("omat") == "omat"
    with pytest.raises(TeacherError, match=r"needs the name .* oc20, omat: .*pt#oc20"):
        two.choose(None)
    with pytest.raises(TeacherError, match=r"has no task 'omol'; it knows oc20, omat"):
        two.choose("omol")


PLACES = {
    "configuration": lambda evil: checkpoint(model_config=model_config(x=evil)),
    "task": lambda evil: checkpoint(tasks_config=[task(x=evil)]),
    "weights": lambda evil: checkpoint(ema_state_dict={"w": evil}),
    "unused weights": lambda evil: checkpoint(model_state_dict={"w": evil}),
    "instead": lambda evil: evil,
}


@pytest.mark.parametrize("place", PLACES)
def test_hostile_pickles_are_refused_and_not_run(tmp_path: Path, place: str) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path / "evil.pt", PLACES[place](Exploit(marker)))

    with pytest.raises(TeacherError, match=r"posix\.system.* nothing was run"):
        read_fairchem_file(path)

    assert not marker.exists()


def test_the_hostile_pickle_would_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save([Exploit(marker)], tmp_path / "evil.pt")

    torch.load(tmp_path / "evil.pt", weights_only=False)

    assert marker.exists()


def test_unknown_classes_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.pt", checkpoint(model_config=model_config(x=Stranger)))

    with pytest.raises(TeacherError, match=rf"{__name__}\.Stranger"):
        read_fairchem_file(path)


BASE = "fairchem.core.models.base"
CALLS = {
    "a command": {"_target_": "os.system", "command": "true"},
    "a command behind a module of fairchem": {"x": {"_target_": f"{BASE}.logging.os"}},
    "a backbone": {"backbone": {"model": "subprocess.Popen", "args": "true"}},
    "a head": {"heads": {"a": {"module": f"{BASE}.load_model_and_weights"}}},
    "a head within": {"heads": {"a": {"head_cls": "system"}}},
    "a name where none belongs": {"act": "os.system"},
    "in a list": {"x": [[{"_target_": "os.system"}]]},
    "a reference": {"x": "${oc.env:HOME}"},
}


@pytest.mark.parametrize("name", CALLS)
def test_configurations_that_call_strangers_are_refused(
    tmp_path: Path, name: str
) -> None:
    evil = model_config(**CALLS[name])
    as_model = write(tmp_path / "model.pt", checkpoint(model_config=evil))
    as_task = checkpoint(tasks_config=[task(normalizer=evil)])

    for path in (as_model, write(tmp_path / "task.pt", as_task)):
        with pytest.raises(TeacherError, match=r"would call .* nothing was run"):
            read_fairchem_file(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune_config": {"starting_checkpoint": "/tmp/other.pt"}},
        {"file": "/tmp/normalizer.pt"},
    ],
)
def test_files_that_load_others_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    evil = checkpoint(model_config=model_config(**changes))

    with pytest.raises(TeacherError, match="would load another file"):
        read_fairchem_file(write(tmp_path / "evil.pt", evil))
    unset = model_config(**dict.fromkeys(changes))
    path = write(tmp_path / "fine.pt", checkpoint(model_config=unset))
    assert read_fairchem_file(path).model == unset


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    loop: list[object] = []
    loop.append(loop)
    (tmp_path / "page.pt").write_text("<html>404</html>")
    torch.save({"state_dict": {}, "config": {}}, tmp_path / "old.pt")
    whole = write(tmp_path / "whole.pt", checkpoint()).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.pt").write_bytes(whole.replace(b"lmax", b"\xff" * 4))
    for name, content in {
        "loop": checkpoint(model_config=model_config(x=loop)),
        "bare": checkpoint(model_config=None),
        "taskless": checkpoint(tasks_config=None),
        "weightless": checkpoint(ema_state_dict={}),
        "odd": checkpoint(ema_state_dict={"w": 1.0}),
        "misplaced": checkpoint(model_config=checkpoint()),
    }.items():
        write(tmp_path / f"{name}.pt", content)
    for name, problem in {
        "gone": "no fairchem checkpoint at",
        "page": "no PyTorch archive",
        "cut": "cut short",
        "damaged": "is damaged",
        "old": "named eqv2:PATH",
        "loop": "nested beyond",
        "bare": "lacks the configuration",
        "taskless": "lacks the configuration",
        "weightless": "lacks averaged weights",
        "odd": "lacks averaged weights",
        "misplaced": "where a plain value",
    }.items():
        with pytest.raises(
            TeacherError, match=rf"{name}\.pt.*{problem}|{problem}.*{name}"
        ):
            read_fairchem_file(tmp_path / f"{name}.pt")
