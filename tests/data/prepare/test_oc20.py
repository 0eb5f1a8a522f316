"""OC20 downloads into datasets: labels, choice of frames, splits, broken files."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crack_md.data.dataset import fingerprint, read_dataset, read_metadata
from crack_md.data.prepare.oc20 import OC20Choice, OC20Counts, prepare_oc20
from crack_md.data.prepare.splits import SplitPlan, parse_plan, read_splits
from crack_md.data.readers import read_structures
from crack_md.errors import ConfigError, CrackError, DataError
from tests.oc20_files import (
    add_member,
    as_text,
    frame,
    record,
    reference_energy,
    relaxation,
    write_mapping,
    write_packed,
    write_relaxations,
    write_s2ef,
)

SYSTEMS = ("random11", "random7", "random305")


def prepared(*sources: Path, out: Path, **choice: Any) -> OC20Counts:
    options = {"splits": SplitPlan(everything="train")} | choice
    return prepare_oc20(sources, out, OC20Choice(**options), overwrite=True)


@pytest.fixture
def s2ef(tmp_path: Path) -> Path:
    """Return an S2EF folder: two chunks, four frames of three systems."""
    chunks = [
        [("random11", frame(0)), ("random7", frame(1))],
        [("random305", frame(2)), ("random11", frame(4))],
    ]
    return write_s2ef(tmp_path / "s2ef_train" / "s2ef_train", chunks).parent


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a per-adsorbate archive with a relaxation for every system."""
    frames = {system: relaxation(n) for n, system in enumerate(SYSTEMS)}
    return write_relaxations(tmp_path / "0.tar", frames)


@pytest.mark.parametrize("reference", ["adsorption", "total"])
def test_s2ef_frames_keep_their_labels(
    s2ef: Path, tmp_path: Path, reference: Any
) -> None:
    out = tmp_path / "out.aselmdb"
    prepared(s2ef, out=out, reference=reference)

    data = read_dataset(out)
    assert data.metadata["energy_reference"] == reference
    assert data.metadata["fingerprint"] == fingerprint(data.structures)
    assert [one.group for one in data.structures] == [
        "random11", "random7", "random305", "random11",
    ]  # fmt: skip
    for number, one in zip((0, 1, 2, 4), data.structures, strict=True):
        expected = frame(number)
        total = expected.get_potential_energy()
        assert one.energy == pytest.approx(1.0 if reference == "adsorption" else total)
        forces = expected.get_forces(apply_constraint=False)
        np.testing.assert_allclose(one.forces, forces, atol=1e-8)
        np.testing.assert_array_equal(one.free, expected.get_tags() > 0)
        assert one.kind == "relaxation"
    rows = list(read_structures(out))
    assert [row.info["frame"] for row in rows] == [0, 7, 0, 7]
    np.testing.assert_array_equal(rows[0].get_tags(), frame(0).get_tags())
    energies = [row.info["reference_energy_eV"] for row in rows]
    assert energies[1] == pytest.approx(reference_energy(frame(1)))


def test_relaxations_are_read_from_the_archive_and_from_its_folder(
    archive: Path, tmp_path: Path
) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    inner = tmp_path / "unpacked" / "0" / "0"
    found = []
    for source in (archive, tmp_path / "unpacked", inner):
        prepared(source, out=tmp_path / "out.aselmdb")
        found.append(read_dataset(tmp_path / "out.aselmdb"))

    assert len({data.metadata["fingerprint"] for data in found}) == 1
    assert [one.group for one in found[0].structures] == sorted(3 * list(SYSTEMS))
    assert [one.kind for one in found[0].structures[:3]] == [
        "relaxation", "relaxation", "relaxed",
    ]  # fmt: skip
    one = next(one for one in found[0].structures if one.group == "random7")
    first, *_, last = relaxation(1)
    gap = first.get_potential_energy() - last.get_potential_energy()
    assert one.energy == pytest.approx(gap + 1.0)  # of the last: 1 eV


def test_the_last_frame_alone(archive: Path, tmp_path: Path) -> None:
    prepared(archive, out=tmp_path / "out.db", frames="last")

    rows = read_dataset(tmp_path / "out.db").structures
    assert [row.energy for row in rows] == pytest.approx([1.0] * 3)
    assert {row.kind for row in rows} == {"relaxed"}
    infos = [atoms.info["frame"] for atoms in read_structures(tmp_path / "out.db")]
    assert infos == [2, 2, 2]


def test_the_last_frame_of_mixed_systems_is_refused(s2ef: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="random order, which have no last one"):
        prepared(s2ef, out=tmp_path / "o.db", frames="last", skip_broken=True)


def test_unpacked_files_hide_their_packed_twins(s2ef: Path, tmp_path: Path) -> None:
    chunk = s2ef / "s2ef_train" / "0.extxyz"
    chunk.write_text(as_text([frame(3), frame(5)]))
    prepared(s2ef, out=tmp_path / "out.db")
    rows = read_dataset(tmp_path / "out.db").structures
    assert len(rows) == 4
    assert rows[0].atoms.symbols[0] == frame(3).symbols[0]


@pytest.mark.parametrize("name", ["0.extxyz.xz", "1.extxyz.xz"])
def test_one_file_may_be_named(s2ef: Path, tmp_path: Path, name: str) -> None:
    prepared(s2ef / "s2ef_train" / name, out=tmp_path / "out.db")
    assert len(read_dataset(tmp_path / "out.db")) == 2


def test_the_mapping_chooses_adsorbates_and_normal_systems(
    s2ef: Path, tmp_path: Path
) -> None:
    mapping = write_mapping(
        tmp_path / "m.pkl",
        {
            "random11": record("*O"),
            "random7": record("*OH"),
            "random305": record("*O", anomaly=3),
        },
    )
    out = tmp_path / "out.aselmdb"
    counts = prepared(s2ef, out=out, mapping=mapping, adsorbate="*O", normal_only=True)
    assert counts.frames == {"train": 2}
    assert counts.systems == {"train": 1}
    assert {why: n for why, n in counts.left_out.items() if n} == {
        "adsorbate": 1,
        "anomaly": 1,
    }
    (info, _) = [atoms.info for atoms in read_structures(out)]
    assert info["adsorbate"] == "*O"
    assert info["surface"] == "Pt4 (1, 1, -1)"
    assert read_metadata(out)["left_out"] == counts.left_out


def test_without_mapping_tagged_atoms_tell_the_adsorbate(tmp_path: Path) -> None:
    frames = [(f"random{n}", frame(n, adsorbate="OHO"[n])) for n in range(3)]
    folder = write_s2ef(tmp_path / "s2ef", [frames])

    counts = prepared(folder, out=tmp_path / "out.db", adsorbate="*O")

    assert counts.frames == {"train": 2}
    with pytest.raises(
        DataError, match=r"3 of another adsorbate; there are the .* H, O"
    ):
        prepared(folder, out=tmp_path / "none.db", adsorbate="*CH2*CO")
    assert not list(tmp_path.glob("none*"))


def test_frames_with_large_forces_on_free_atoms_are_left_out(tmp_path: Path) -> None:
    frames = [frame(0), frame(1), frame(2)]
    for atoms, place in zip(frames[:2], (0, -1), strict=True):
        atoms.calc.results["forces"][place] = [0, 30.0, 40.1]  # first: a fixed atom
    pairs = [(f"random{n}", atoms) for n, atoms in enumerate(frames)]
    folder = write_s2ef(tmp_path / "s2ef", [pairs])
    counts = prepared(folder, out=tmp_path / "out.db")
    assert counts.frames == {"train": 2}
    assert counts.left_out["force"] == 1
    assert prepared(folder, out=tmp_path / "all.db", largest_force=51.0).frames == {
        "train": 3
    }


class TestSplits:
    def test_systems_are_never_divided_and_the_list_is_kept(
        self, tmp_path: Path
    ) -> None:
        frames = [frame(number) for number in range(4)]
        pairs = [(f"random{n % 40}", frames[n % 4]) for n in range(80)]
        folder = write_s2ef(tmp_path / "s2ef", [pairs])
        out = tmp_path / "ostar.aselmdb"
        plan = parse_plan("val=0.2,test=0.2", seed=3, listed=None)
        counts = prepared(folder, out=out, splits=plan)

        listed = read_splits(tmp_path / "ostar.splits.csv")
        rows = read_dataset(out).structures
        assert {row.group: row.split for row in rows} == listed
        assert len(listed) == 40
        assert set(listed.values()) == {"train", "val", "test"}
        assert counts.frames == {k: 2 * v for k, v in counts.systems.items()}

        again = parse_plan(None, seed=0, listed=tmp_path / "ostar.splits.csv")
        prepared(folder, out=tmp_path / "again.db", splits=again)
        other = read_dataset(tmp_path / "again.db").structures
        assert [row.split for row in other] == [row.split for row in rows]

    def test_systems_that_a_list_lacks_are_left_out(
        self, s2ef: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "l.csv").write_text("system,split\nrandom11,val\nrandom7,test\n")
        plan = parse_plan(None, seed=0, listed=tmp_path / "l.csv")
        counts = prepared(s2ef, out=tmp_path / "out.db", splits=plan)
        assert counts.frames == {"val": 2, "test": 1}
        assert counts.left_out["unlisted"] == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1: expected 'system,split'"),
            ("system,split\na,train\nb,tran\n", "line 3: found 'b,tran'"),
            ("system,split\na\n", "line 2: found 'a'"),
            ("system,split\na,val\na,test\n", "line 3: a is in val already"),
        ],
    )
    def test_mistakes_in_a_list_are_named(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read_splits(tmp_path / "l.csv")

    @pytest.mark.parametrize(
        "text", ["vla=0.1", "val=much", "val=0.1;test=0.1", "val=0.6,test=0.6", ""]
    )
    def test_other_plans_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigError):
            parse_plan(text, seed=0, listed=None)

    def test_one_split_for_all(self) -> None:
        assert parse_plan("val", seed=0, listed=None).split_of("random1") == "val"

    def test_a_plan_and_a_list_exclude_each_other(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="exclude each other"):
            parse_plan("val", seed=0, listed=tmp_path / "l.csv")


class TestBrokenDownloads:
    def test_a_truncated_file_is_named_and_may_be_left_out(
        self, s2ef: Path, tmp_path: Path
    ) -> None:
        chunk = s2ef / "s2ef_train" / "1.extxyz.xz"
        chunk.write_bytes(chunk.read_bytes()[:-200])
        with pytest.raises(DataError, match=r"s2ef_train/1\.extxyz\.xz: .*cut short"):
            prepared(s2ef, out=tmp_path / "out.db")

        lines: list[str] = []
        choice = OC20Choice(skip_broken=True, splits=SplitPlan(everything="train"))
        again = tmp_path / "again.db"
        counts = prepare_oc20([s2ef], again, choice, tell=lines.append)
        assert counts.frames == {"train": 2}
        assert counts.left_out["broken"] == 1
        assert len(lines) == 1
        assert "1.extxyz.xz" in lines[0]

    def test_a_line_that_cannot_be_read_is_named(
        self, s2ef: Path, tmp_path: Path
    ) -> None:
        text = as_text([frame(0), frame(1)])
        rows = text.splitlines(keepends=True)
        rows[17] = rows[17].replace("Ag", "A9")
        write_packed(s2ef / "s2ef_train" / "0.extxyz.xz", "".join(rows))
        place = r"s2ef_train/0\.extxyz\.xz, line 18: cannot read 'A9' as species"
        with pytest.raises(DataError, match=place):
            prepared(s2ef, out=tmp_path / "out.db")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("random11,frame0,1.0\n", r"has more frames and .*0\.txt\.xz 1 lines"),
            ("random11,frame0,1.0\n" * 3, r"has 2 frames and .*0\.txt\.xz 3 lines"),
            (
                "random11,frame0,x\n" * 2,
                r"0\.txt\.xz, line 1: found 'random11,frame0,x",
            ),
            ("random11\n" * 2, r"0\.txt\.xz, line 1: found 'random11'"),
            ("random11,frame0\n" * 2, r"random11 has no reference energy"),
        ],
    )
    def test_an_index_that_does_not_fit_is_named(
        self, s2ef: Path, tmp_path: Path, text: str, message: str
    ) -> None:
        write_packed(s2ef / "s2ef_train" / "0.txt.xz", text)
        with pytest.raises(DataError, match=message):
            prepared(s2ef, out=tmp_path / "out.db")

    def test_relaxations_without_reference_energy(self, tmp_path: Path) -> None:
        write_packed(tmp_path / "t" / "random5.extxyz.xz", as_text(relaxation(0)))
        with pytest.raises(DataError, match="random5 has no reference energy"):
            prepared(tmp_path / "t", out=tmp_path / "out.db")
        prepared(tmp_path / "t", out=tmp_path / "out.db", reference="total")
        assert len(read_dataset(tmp_path / "out.db")) == 3

    def test_frames_that_nothing_says_anything_about(self, tmp_path: Path) -> None:
        write_packed(tmp_path / "t" / "3.extxyz.xz", as_text([frame(0)]))
        with pytest.raises(DataError, match=r"3\.extxyz\.xz: no 3\.txt beside it"):
            prepared(tmp_path / "t", out=tmp_path / "out.db")

    def test_a_cut_archive(self, archive: Path, tmp_path: Path) -> None:
        archive.write_bytes(archive.read_bytes()[:2000])
        with pytest.raises(DataError, match=r"0\.tar.*whole tar archive"):
            prepared(archive, out=tmp_path / "out.db")

    @pytest.mark.parametrize("name", ["gone", "empty", "data.lmdb"])
    def test_other_sources(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "data.lmdb").touch()
        with pytest.raises(DataError, match=name):
            prepared(tmp_path / name, out=tmp_path / "out.db")

    def test_names_in_an_archive_reach_no_other_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "folder" / "evil.tar"
        path.parent.mkdir()
        with tarfile.open(path, "w") as archive:
            text = as_text([frame(0)]).encode()
            add_member(archive, "../../random1.extxyz", text)
            add_member(archive, "../system.txt", b"random1,0.0\n")
            link = tarfile.TarInfo("0/random2.extxyz")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(link)
        prepared(path, out=tmp_path / "out.db")
        assert [one.group for one in read_dataset(tmp_path / "out.db").structures] == [
            "random1"
        ]
        assert sorted(p.name for p in tmp_path.rglob("*.extxyz")) == []


def test_a_stopped_run_continues_where_it_was(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crack_md.data.prepare.oc20.CHUNK", 1)
    choice = OC20Choice(largest_force=0.3, splits=SplitPlan(seed=1))
    whole = tmp_path / "whole.aselmdb"
    expected = prepare_oc20([archive], whole, choice)
    assert expected.left_out["force"] > 0

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out.aselmdb"
    with pytest.raises(KeyboardInterrupt):
        prepare_oc20([archive], out, choice, report=stop)
    assert not out.exists()
    seen: list[int] = []
    counts = prepare_oc20([archive], out, choice, report=lambda n, _: seen.append(n))
    assert seen == [3]
    assert counts == expected
    assert read_metadata(out)["fingerprint"] == read_metadata(whole)["fingerprint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal_only": True}, "--mapping"),
        ({"adsorbate": "*Qq"}, "is no adsorbate"),
        ({"adsorbate": "*"}, "is no adsorbate"),
    ],
)
def test_choices_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CrackError, match=message):
        OC20Choice(**options)
