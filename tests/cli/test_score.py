import json
from pathlib import Path

from crack_md.workflows.scoring.reactions import write_reactions
from tests.cli.commands import crack_md
from tests.workflows.scoring.test_score import reaction


def test_one_line_says_it(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    write_reactions({"known": reaction(), "unknown": reaction("Rh")}, path)
    options = ["--model", "emt", "--repeats", 1, "--out", tmp_path / "out"]
    done = crack_md("score", path, *options)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("emt on small.json: 1/2 valid, total MAE ")
    assert "1 unknown_element" in second
    told = json.loads(crack_md("score", path, *options, "--json").stdout)
    assert told["line"] in first
    assert (told["n_valid"], told["n_total"]) == (1, 2)
    missing = crack_md("score", tmp_path / "none.json")
    assert missing.returncode == 2
    assert "no such file" in missing.stderr
