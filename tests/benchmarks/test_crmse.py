"""The experiment on MD17: what each student is made with, and data that are missing."""

from pathlib import Path

import pytest

from benchmarks.crmse import ARMS, find_rmd17, main, overrides
from crack_md.training.config import load_config


@pytest.mark.parametrize("molecule", ["ethanol", "aspirin"])
def test_recipes_share_frames_and_the_start(molecule: str, tmp_path: Path) -> None:
    configs = {
        arm: load_config(
            *overrides(arm, molecule, 200, 3, data=tmp_path / "d", folder=tmp_path)
        )
        for arm in ARMS
    }
    assert {one.data.max_frames for one in configs.values()} == {200}
    assert {one.run.seed for one in configs.values()} == {3}
    assert {one.student.architecture for one in configs.values()} == {
        configs["plain"].student.architecture
    }
    start = tmp_path / f"{molecule}_200_3"
    assert configs["plain"].run.folder == start
    assert configs["plain"].student.init_from is None
    for arm in ("crmse", "control"):
        assert configs[arm].student.init_from == start / "student.pt"
        assert configs[arm].optimizer.lr == 5e-4
    assert configs["crmse"].crmse is not None
    assert configs["control"].crmse is None


def test_missing_frames_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRACK_MD_REFERENCES", "elsewhere")
    with pytest.raises(SystemExit, match=r"rMD17 from https://doi\.org") as end:
        main(["ethanol", "50"])
    assert "\n" not in str(end.value)
    (tmp_path / "rmd17").mkdir()
    (tmp_path / "rmd17" / "rmd17_ethanol.npz").touch()
    assert find_rmd17(None, "ethanol") == Path("rmd17")
