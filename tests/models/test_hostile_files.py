"""Files from strangers: bounded memory, checked values, one line for each defect."""

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crack_md.errors import CheckpointError, CrackError
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import EnergyScale, ModelMetadata
from crack_md.models.pickles import plain, read_checkpoint
from tests.factories import tiny_model

PROTOCOL_2 = b"\x80\x02"


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "student.pt"
    scale = EnergyScale(0.1, 2.0, 3.0, {8: -3.0})
    metadata = ModelMetadata("total", (8, 78), {"H2": -6.7}, {"teacher": "none"})
    model = tiny_model(dtype=torch.float32, scale=scale, metadata=metadata)
    save_model(model, path)
    return path.read_bytes()


def archive(
    program: bytes,
    members: dict[str, bytes] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A torch archive whose data.pkl is this program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", PROTOCOL_2 + program)
        file.writestr("archive/version", b"3\n")
        for name, data in (members or {}).items():
            file.writestr(f"archive/data/{name}", data)
    return buffer.getvalue()


def storage(key: str, numel: int) -> bytes:
    """Push the storage of so many float32 numbers."""
    return (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        + b"X\x01\x00\x00\x00"
        + key.encode()
        + b"X\x03\x00\x00\x00cpu"
        + b"J"
        + struct.pack("<i", numel)
        + b"tQ"
    )


def tensor(numel: int, size: bytes, stride: bytes) -> bytes:
    """Push a tensor of a storage; size and stride are programs of tuples."""
    rest = b"\x89ccollections\nOrderedDict\n)R"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return made + storage("0", numel) + b"K\x00" + size + stride + rest + b"tR"


BILLION = b"J" + struct.pack("<i", 10**9)
ONE = struct.pack("<f", 1.0)
COPIES = (
    # a string of 1 MB, then a list of a thousand lists of its letters
    b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00]("
    b"" + 1000 * b"c__builtin__\nlist\nh\x00\x85R" + b"e."
)

BOMBS: dict[str, bytes] = {
    "one large index of the memo": archive(b"}r\xff\xff\xff\x7f."),
    "a byte array": b"",
    "compressed members": archive(
        b"}.", {"0": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED
    ),
    "a tensor of stride 0": archive(
        b"}X\x01\x00\x00\x00w" + tensor(1, BILLION + b"\x85", b"K\x00\x85") + b"s.",
        {"0": ONE},
    ),
    "a tensor resized": archive(
        b"}X\x01\x00\x00\x00w"
        + tensor(1, b"K\x01\x85", b"K\x01\x85")
        + b"("
        + storage("0", 1)
        + b"K\x00"
        + BILLION
        + b"\x85K\x01\x85tb"
        + b"s.",
        {"0": ONE},
    ),
    "copies of a list": archive(COPIES),
    "one storage in many tensors": archive(
        b"](" + 100 * tensor(1000, b"M\xe8\x03\x85", b"K\x01\x85") + b"e.",
        {"0": 1000 * ONE},
    ),
}
BOMBS["a byte array"] = archive(b"\x96" + struct.pack("<Q", 10**11) + b".")

LIMITED = """
import resource, sys
from pathlib import Path
from crack_md.errors import CheckpointError
from crack_md.models.pickles import read_checkpoint
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        ok = "\\n" not in str(error) and "Memory" not in str(error)
        print(path.stem if ok else error)
    else:
        print("harmless:", path.stem)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_no_file_takes_more_memory_than_its_size(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / f"{name}.pt").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    refused = set(BOMBS) - {"one large index of the memo"}  # a dictionary looks it up
    expected = sorted([*refused, "harmless: one large index of the memo"])
    assert sorted(done.stdout.splitlines()) == expected, done.stderr


def test_legacy_storage_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"w": torch.ones(300)}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).content["w"].sum() == 300
    data = path.read_bytes()
    assert data.count(b"M,\x01") >= 2  # 300, of storage and tensor
    path.write_bytes(data.replace(b"M,\x01", BILLION))
    with pytest.raises(CheckpointError, match="1000000000 in a file of"):
        read_checkpoint(path)


def test_what_describes_itself_without_end_is_refused() -> None:
    tree: list[Any] = []
    for _ in range(40):
        tree = [tree, tree]
    with pytest.raises(CheckpointError, match="100000 parts"):
        plain(tree)


def test_any_flipped_bit_of_the_weights_is_found(
    tmp_path: Path, student: bytes
) -> None:
    with zipfile.ZipFile(io.BytesIO(student)) as file:
        members = [m for m in file.infolist() if "/data/" in m.filename]
    random = torch.Generator().manual_seed(0)
    path = tmp_path / "student.pt"
    for number in torch.randint(len(members), (30,), generator=random).tolist():
        member = members[number]
        damaged = bytearray(student)
        name, extra = struct.unpack_from("<HH", student, member.header_offset + 26)
        first = member.header_offset + 30 + name + extra
        bit = int(torch.randint(8 * member.file_size, (1,), generator=random))
        damaged[first + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_model(path)


@pytest.fixture
def content(tmp_path: Path, student: bytes) -> dict[str, Any]:
    (tmp_path / "good.pt").write_bytes(student)
    loaded: dict[str, Any] = torch.load(tmp_path / "good.pt", weights_only=True)
    return loaded


def load(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "changed.pt")
    load_model(tmp_path / "changed.pt")


def test_a_changed_weight_is_found_where_the_archive_is_whole(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    load(content, tmp_path)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name].view(torch.int32).flatten()[0] ^= 1
    with pytest.raises(CheckpointError, match="another checksum"):
        load(content, tmp_path)
    content.pop("checksum")  # as older files
    load(content, tmp_path)


def test_provenance_may_be_edited(tmp_path: Path, content: dict[str, Any]) -> None:
    content["provenance"]["licence"] = "MIT"
    load(content, tmp_path)


NUMBERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "std 0": lambda c: c["energy_scale"].update(std=0.0),
    "std < 0": lambda c: c["energy_scale"].update(std=-1.0),
    "std text": lambda c: c["energy_scale"].update(std="2"),
    "force_std NaN": lambda c: c["energy_scale"].update(force_std=float("nan")),
    "mean infinite": lambda c: c["energy_scale"].update(mean=float("inf")),
    "mean list": lambda c: c["energy_scale"].update(mean=[1.0]),
    "element 0": lambda c: c["elements"].append(0),
    "element 200": lambda c: c["elements"].append(200),
    "element text": lambda c: c["elements"].append("Pt"),
    "no element": lambda c: c["elements"].clear(),
    "reference NaN": lambda c: c["element_references"].update({8: float("nan")}),
    "reference of 1e9": lambda c: c["element_references"].update({10**9: 1.0}),
    "gas": lambda c: c["gas_references"].update(H2="low"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_no_model_has_are_refused(
    tmp_path: Path, content: dict[str, Any], name: str
) -> None:
    NUMBERS[name](content)
    with pytest.raises(CheckpointError, match=r"has a wrong '.*expected"):
        load(content, tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_layers": 10**6}, "num_layers is 1000000"),
        ({"lmax": 1000}, "lmax is 1000"),
        ({"cutoff": 1e9}, "cutoff is 1000000000"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"neighbors": "x"}, "neighbors is 'x'"),
        ({"name": ["equiformer_v2"]}, "name is"),
        # each value is possible; all together need 3 TB
        ({"num_layers": 100, "sphere_channels": 4096, "lmax": 6}, "more than [5-9]"),
    ],
)
@pytest.mark.wrong_types
def test_architectures_beyond_their_file_are_not_built(
    tmp_path: Path, content: dict[str, Any], sizes: dict[str, Any], message: str
) -> None:
    content["architecture"].update(sizes)
    with pytest.raises(CheckpointError, match=message):
        load(content, tmp_path)


OTHER_KINDS = (None, True, 1, -1.5, "x", [], {}, (1, 2), torch.ones(2), {"a": [1]})


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a model file, weights but the first two left out."""
    if not isinstance(tree, dict):
        return [path]
    keys = list(tree)[: 2 if path == ("state_dict",) else None]
    return [path, *(place for key in keys for place in places(tree[key], (*path, key)))]


def test_a_part_of_another_kind_is_never_a_raw_error(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    n_refused = 0
    for number, place in enumerate(places(content)[1:]):
        *parents, last = place
        changed = pickle.loads(pickle.dumps(content))
        inner = changed
        for key in parents:
            inner = inner[key]
        for other in OTHER_KINDS[number % 3 :: 3]:
            inner[last] = other
            with contextlib.suppress(CrackError):  # some are right by chance
                load(changed, tmp_path)
                n_refused -= 1
            n_refused += 1
    assert n_refused > 100
