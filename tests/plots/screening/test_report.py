"""The page of a screening as a file: whole, self-contained, and nobody's code in it."""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from crack_md.errors import DataError
from crack_md.plots.screening.report import write_report
from crack_md.workflows.ranking.calibration import ReferenceValue
from crack_md.workflows.ranking.rank import rank_slabs
from crack_md.workflows.ranking.results import RankSettings, Rescored, write_ranking
from crack_md.workflows.screening.reader import read_rows, read_screening
from tests.workflows.ranking.screenings import write_csv, write_screening

SECTIONS = ["volcano", "slabs", "candidates", "errors", "failures", "provenance"]
VOID = ("meta", "img", "input")


class Page(HTMLParser):
    """What a page holds: sections, rows of tables, addresses, embedded data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.sections: list[str] = []
        self.tags: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.tags.append(tag)
        self.addresses += [held[key] or "" for key in ("src", "href") if key in held]
        if "id" in held:
            self.ids.append(held["id"] or "")
        if tag == "section":
            self.sections.append(held["id"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def section(self, name: str) -> str:
        """Return the text of a section, tags taken out."""
        found = re.search(rf'<section id="{name}">(.*?)</section>', self.text, re.S)
        assert found is not None
        return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[1]).split()))

    @property
    def details(self) -> dict[str, list[list[str]]]:
        """Return the data behind the rows of the table."""
        found = re.search(r'id="details">(.*?)</script>', self.text, re.S)
        assert found is not None
        return json.loads(found[1])


def page_of(folder: Path) -> Page:
    return Page(write_report(folder))


def test_a_whole_page_that_asks_for_nothing(screened: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(screened, folder)
    path = write_report(folder)
    page = Page(path)
    assert path == folder / "report.html"
    assert page.open == []
    assert page.sections == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    assert page.addresses.count("#volcano") == 1
    # two pictures for each of the four slabs, links within the page, nothing else
    pictures = [a for a in page.addresses if a.startswith("data:image/png;base64,")]
    assert len(pictures) == 8
    # drawings take their markers from within themselves
    own = ("#volcano-chart-", "#diagram-")
    others = [a for a in page.addresses if a not in pictures and not a.startswith(own)]
    assert {a[1:] for a in page.addresses if a.startswith(own)} <= set(page.ids)
    assert others == [f"#{name}" for name in SECTIONS]
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", page.text)
    assert "@import" not in page.text
    before = path.read_bytes()
    assert write_report(folder).read_bytes() == before


def test_every_slab_and_every_reason_is_there(screened: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(screened, folder)
    page = page_of(folder)
    rows = read_rows(folder / "results.csv")
    assert len(re.findall(r"<tr data-slab=", page.text)) == len(rows) == 5
    (bulk,) = (row for row in rows if row["slab"] == "bulk")
    assert bulk["error"] in page.section("failures")
    assert "no surface" in page.section("slabs")
    summary = json.loads((folder / "summary.json").read_text())
    told = page.section("provenance")
    assert summary["versions"]["ase"] in told
    assert "norskov-2004" in told
    assert summary["model"]["name"] in told


def test_numbers_of_the_table(tmp_path: Path) -> None:
    page = page_of(write_screening(tmp_path))
    row = re.search(
        r'<tr data-slab="\d+"[^>]*>(?:(?!</tr>).)*>Pt\(111\).*?</tr>', page.text
    )
    assert row is not None
    cells = re.findall(
        r'<td class="number"(?: data-value="([^"]*)")?>([^<]*)</td>', row[0]
    )
    # rank, ΔE, ΔG, U_L = 1.66/2, η = 1.23 - U_L, sites
    assert cells == [
        ("2.000000", "2"),
        ("1.620000", "1.62"),
        ("1.660000", "1.66"),
        ("0.830000", "0.83"),
        ("0.400000", "0.40"),
        ("2.000000", "2 / 3"),
    ]


def test_without_a_ranking_it_says_how_to_make_one(tmp_path: Path) -> None:
    page = page_of(write_screening(tmp_path))
    assert f"crack-md rank {tmp_path}" in page.section("errors")
    assert "P(best)" not in page.text.split("<script")[0]


def test_a_ranking_brings_intervals_and_chances(tmp_path: Path) -> None:
    screening = read_screening(write_screening(tmp_path))
    reference = [
        ReferenceValue("Pt(111)", "O", "fcc", 1.5, 1.62, True),
        ReferenceValue("Au(111)", "O", "fcc", 2.4, 2.61, True),
    ]
    rescored = [
        Rescored(
            *("Pd(111)", "O", "fcc", "big", "1", False, 1.55, 1.45, "single_point")
        )
    ]
    ranking = rank_slabs(
        screening,
        reference=reference,
        rescored=rescored,
        settings=RankSettings(top=2, level=0.9),
    )
    write_ranking(ranking, tmp_path, rescored_with="big.pt")
    page = page_of(tmp_path)
    table = page.section("slabs")
    for words in ("P(best)", "P(top 2)", "90%", "± 0.", "DFT", "re-scored"):
        assert words in table
    errors = page.section("errors")
    assert "scale of big.pt" in errors
    assert "look at" in errors
    offset = (0.02 + 0.11) / 2 * -1  # after the 0.1 eV of the re-scoring
    assert f"E = x − {abs(offset):.3f} eV from 2 values" in errors
    assert "Pt(111) O* fcc 1.620 1.500 −0.120" in errors


def test_a_ranking_of_older_results_is_not_shown(tmp_path: Path) -> None:
    write_ranking(rank_slabs(read_screening(write_screening(tmp_path))), tmp_path)
    write_screening(tmp_path, {"Pt(111)": 1.6})
    page = page_of(tmp_path)
    assert "belongs to older results" in page.section("errors")
    assert "P(best)" not in page.section("slabs")


def test_names_are_text_and_never_code(tmp_path: Path) -> None:
    nasty = 'Pt</script><script>alert(1)</script><b title="x">\'&amp;'
    as_long = f"Pt{'x' * (len(nasty) - 2)}"  # names find room by their length
    plain = page_of(write_screening(tmp_path / "plain", {as_long: 1.6})).tags
    page = page_of(write_screening(tmp_path / "nasty", {nasty: 1.6}))
    assert page.tags == plain
    assert page.open == []
    place = page.details["columns"].index("slab")  # type: ignore[arg-type]
    assert page.details["slabs"][0][place] == nasty


def test_what_it_does_not_know_is_kept(tmp_path: Path) -> None:
    write_screening(tmp_path)
    rows = [
        {**row, "spin_warning": "Fe is magnetic", "novel": "17"}
        for row in read_rows(tmp_path / "results.csv")
    ]
    write_csv(tmp_path / "results.csv", rows)
    sites = [
        {
            **row,
            "surface_changed": str(row["site"] == "hcp"),
            "anomalies": "desorbed" if row["site"] == "ontop" else "site_migrated",
            "status": "melted",
        }
        for row in read_rows(tmp_path / "sites.csv")
    ]
    write_csv(tmp_path / "sites.csv", sites)
    page = page_of(tmp_path)
    assert "novel" in page.details["columns"]
    failures = page.section("failures")
    assert "Warnings: 5" in failures
    assert "Fe is magnetic" in failures
    assert "melted (12)" in failures
    assert "desorbed (4)" in failures
    assert "site migrated" not in failures
    assert "surface changed (4)" in failures


def test_other_adsorbates_have_a_page_without_a_volcano(tmp_path: Path) -> None:
    write_screening(tmp_path, summary={"settings": {"adsorbate": "CO"}})
    page = page_of(tmp_path)
    assert "Not shown: 'CO' is no intermediate" in page.section("volcano")
    assert page.sections == SECTIONS


@pytest.mark.parametrize("n", [0, 1])
def test_few_slabs_or_none(tmp_path: Path, n: int) -> None:
    page = page_of(write_screening(tmp_path, {"Pt(111)": 1.6} if n else {}))
    assert page.open == []
    assert ("no slab has a result" in page.section("candidates")) == (n == 0)
    assert f"{n} / {n + 1}" in page.text


def test_no_finished_screening(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no finished screening"):
        write_report(tmp_path)


def test_several_adsorbates(tmp_path: Path) -> None:
    others = {"OH": {"Pt(111)": 0.55, "Pd(111)": 0.45}}
    screening = read_screening(write_screening(tmp_path, others=others))
    page = page_of(tmp_path)
    assert "O*, OH* screening of 5 surfaces" in page.text
    assert "ΔG(OH*)" in page.section("slabs")
    assert "use what was computed (O*, OH*), OOH* by scaling" in page.section("volcano")
    assert "OH* on fcc, ΔG 0.90 eV" in page.section("candidates")
    write_ranking(rank_slabs(screening), tmp_path)
    page = page_of(tmp_path)
    assert "Errors of O* and OH* are assumed" in page.section("errors")
    assert "OH* on fcc, ΔG 0.90 ± 0.31 eV" in page.section("candidates")
