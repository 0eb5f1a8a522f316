"""Nothing in a file is run, and honest files are read exactly."""

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crack_md.errors import CheckpointError
from crack_md.models.archives import Foreign
from crack_md.models.pickles import plain, read_checkpoint


class Exploit:
    """Runs a function when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class TrainingConfig(dict[str, Any]):
    """A dictionary of a class that only the training code knows."""


def exploits(marker: Path) -> dict[str, object]:
    inner = io.BytesIO()
    torch.save(Exploit(os.system, f"touch {marker}"), inner)
    return {
        "os.system": Exploit(os.system, f"touch {marker}"),
        "eval": Exploit(eval, f"__import__('os').mkdir({str(marker)!r})"),
        "nested torch": Exploit(torch.storage._load_from_bytes, inner.getvalue()),
        "nested key": {Exploit(os.mkdir, str(marker)): 1},
    }


NAMES = ["os.system", "eval", "nested torch", "nested key"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_file_is_refused_and_not_run(
    tmp_path: Path, name: str, protocol: int, zipped: bool
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    torch.save(
        [exploits(marker)[name]],
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_bare_pickle_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": exploits(marker)[name]}))
    with pytest.raises(CheckpointError, match="no PyTorch file"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_object_beside_the_weights_stays_inert(
    tmp_path: Path, name: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "mixed.pt"
    weight = torch.arange(6.0).reshape(2, 3)
    content = {"state_dict": {"w": weight}, "optimizer": exploits(marker)[name]}
    torch.save(content, path)
    raw = read_checkpoint(path)
    assert torch.equal(raw.content["state_dict"]["w"], weight)
    assert raw.foreign
    assert not marker.exists()


def test_the_exploits_would_work(tmp_path: Path) -> None:
    for name in NAMES:
        marker = tmp_path / name.replace(" ", "_")
        pickle.loads(pickle.dumps(exploits(marker)[name]))
        assert marker.exists(), name


def test_whole_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save(Exploit(os.system, "true"), path)
    with pytest.raises(CheckpointError, match=r"'posix\.system', which was not run"):
        read_checkpoint(path)


def test_pickle_can_not_change_the_constructors(tmp_path: Path) -> None:
    # GLOBAL OrderedDict, then BUILD with the slot state {"_build": 7}
    program = (
        b"\x80\x02ccollections\nOrderedDict\nN}X\x06\x00\x00\x00_buildK\x07s\x86b."
    )
    foreign = b"\x80\x02cfoo\nbar\n0" + program[2:]
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", foreign)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError, match="tried to change"):
        read_checkpoint(path)


def test_both_readers_agree(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    honest = {
        "tensors": OrderedDict(
            transposed=base.T,
            view=base[1:3, ::2],
            half=base.half(),
            brain=base.bfloat16(),
            double=base.double(),
            long=torch.arange(5),
            flag=torch.tensor([True, False]),
            empty=torch.empty(0, 3),
            scalar=torch.tensor(2.5),
            parameter=torch.nn.Parameter(base),
        ),
        "numbers": [1, 2.5, True, None, "text", (1, 2), {3}, 1 + 2j],
        "default": defaultdict(dict, a={"b": 1}),
        "dtype": torch.float16,
    }
    torch.save({**honest, "extra": TrainingConfig(a=1)}, tmp_path / "mixed.pt")
    mixed = read_checkpoint(tmp_path / "mixed.pt")
    assert mixed.foreign == (f"{TrainingConfig.__module__}.TrainingConfig",)
    torch.save(honest, tmp_path / "plain.pt")
    expected = read_checkpoint(tmp_path / "plain.pt")
    assert expected.foreign == ()
    for name, tensor in expected.content["tensors"].items():
        assert torch.equal(mixed.content["tensors"][name], tensor), name
        assert mixed.content["tensors"][name].dtype == tensor.dtype
    for key in ("numbers", "default", "dtype"):
        assert mixed.content[key] == expected.content[key]


def test_numpy_numbers_and_foreign_mappings(tmp_path: Path) -> None:
    path = tmp_path / "mixed.pt"
    content = {
        "double": np.float64(0.1),
        "single": np.float32(0.5),
        "integer": np.int64(-3),
        "config": TrainingConfig(lr=0.1),
    }
    torch.save(content, path)
    raw = read_checkpoint(path).content
    assert [raw[k] for k in ("double", "single", "integer")] == [0.1, 0.5, -3]
    assert isinstance(raw["config"], Foreign)
    assert plain(raw["config"]) == {"lr": 0.1}


@pytest.mark.parametrize("kept", [3, 100, 0.5, 0.99])
def test_truncated_archive(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(CheckpointError, match=r"cut short|no PyTorch file"):
        read_checkpoint(path)


def test_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    torch.save({"w": torch.arange(1000), "x": TrainingConfig()}, path)
    data = bytearray(path.read_bytes())
    middle = data.index(torch.arange(1000).numpy().tobytes())
    data[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    def refused(name: str, match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            read_checkpoint(tmp_path / name)

    refused("missing.pt", "found nothing")
    refused(".", "found a folder")
    (tmp_path / "empty.pt").touch()
    refused("empty.pt", "no PyTorch file")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>404</html>")
    refused("page.pt", "no PyTorch file")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("notes.txt", "hello")
    refused("zip.pt", "zip archive")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"\x80\x02}.")
        archive.writestr("script/constants.pkl", b"\x80\x02}.")
    refused("script.pt", "TorchScript")
    with tarfile.open(tmp_path / "old.pt", "w") as old:
        old.add(tmp_path / "page.pt")
    refused("old.pt", "tar archive")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt", "a pickled list")


def test_plain_ends_on_self_reference() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert str(plain(loop)).count("[") < 60
    assert plain({(1, 2): Path("a")}) == {"(1, 2)": "a"}
