"""The page of an evaluation: whole, self-contained, and not blank."""

import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from crack_md.cli import app
from crack_md.training.config import check_config
from crack_md.training.loop.train import train
from tests.training.factories import labelled, recipe, write_dataset

SECTIONS = (
    "errors",
    "parity",
    "elements",
    "embedding",
    "training",
    "worst-frames",
    "provenance",
)


class Page(HTMLParser):
    """What a page refers to, and the parts it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.sections: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.sources += [held[key] or "" for key in ("src", "href") if key in held]
        if tag == "section":
            self.sections.append(held["id"] or "")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.aselmdb"
    return write_dataset(path, [labelled(number) for number in range(16)])


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(check_config(recipe(dataset, folder), source="test"), quiet=True)
    return folder


def evaluate(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_page_with_every_part(run: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"

    said = evaluate(
        str(run / "student.pt"), str(dataset), "--split", "all", "--report", str(out)
    )

    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.sections == list(SECTIONS)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "report.html" in said
    for name in ("parity", "elements", "embedding", "training"):
        image = imread(io.BytesIO((out / f"{name}.png").read_bytes()))
        assert image[..., :3].std() > 0.02, name
        assert np.unique(image[..., 0]).size > 20, name


def test_parts_that_cannot_be_shown_say_why(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "student.pt"
    lonely.write_bytes((run / "student.pt").read_bytes())

    evaluate(
        str(lonely), str(dataset), "--split", "val", "--report", str(tmp_path / "out")
    )

    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Not shown: the linear head P is not at hand" in text
    assert "Not shown: no metrics.jsonl beside the model" in text
    assert not (tmp_path / "out" / "embedding.png").exists()


def test_the_run_may_lie_elsewhere(run: Path, dataset: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "student.pt"
    lonely.write_bytes((run / "student.pt").read_bytes())

    evaluate(
        *(str(lonely), str(dataset), "--split", "val", "--run", str(run)),
        *("--report", str(tmp_path / "out")),
    )

    assert (tmp_path / "out" / "training.png").exists()


def test_without_scikit_learn_the_page_says_what_is_missing(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    out = tmp_path / "out"
    evaluate(str(run / "student.pt"), str(dataset), "--report", str(out))
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "Not shown: the map of embeddings needs the package" in text
    assert "pip install" in text
    assert Page(text).sections == list(SECTIONS)
    assert not (out / "embedding.png").exists()


def test_the_table_fits_80_columns_in_words(run: Path, dataset: Path) -> None:
    said = evaluate(str(run / "student.pt"), str(dataset), "--split", "all")
    lines = said.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    (heads,) = (line.split() for line in lines if line.startswith("frames of"))
    assert heads[:3] == ["frames", "of", "frames"]
    assert "within 20 meV and every force component within 30 meV/Å" in " ".join(lines)
    assert "EFwT" not in said
    assert "P z" not in said
