"""The page in a real Chromium: it loads, sorts, filters, tells, zooms, and is seen."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from crack_md.plots.screening.report import write_report
from crack_md.workflows.ranking.rank import rank_slabs
from crack_md.workflows.ranking.results import RankSettings, write_ranking
from crack_md.workflows.screening.reader import read_screening
from tests.plots.browser import Browser, open_browser
from tests.workflows.ranking.screenings import write_screening

NASTY = "<img src=x onerror=\"document.title='run'\">"
ENERGIES = {
    "Pt(111)": 1.62,
    "Pt3Ni(111)": 1.70,
    "PtCu(111)": 1.35,
    "Ag(111)": 2.05,
    "Au(111)": 2.61,
    NASTY: 0.90,
}
ORDER = ["Pt3Ni(111)", "Pt(111)", "PtCu(111)", "Ag(111)", NASTY, "Au(111)", "bulk"]
ROWS = "[...document.querySelectorAll('#slab-table tbody tr[data-slab]')]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as started:
        started.resize(1366, 900)
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_screening(tmp_path_factory.mktemp("made"), ENERGIES)
    ranking = rank_slabs(read_screening(folder), settings=RankSettings(top=3))
    write_ranking(ranking, folder)
    return write_report(folder)


@pytest.fixture
def page(browser: Browser, made: Path) -> Browser:
    browser.open(made)
    return browser


def names(page: Browser) -> list[str]:
    """Return the slabs that the table shows, from top to bottom."""
    return page.evaluate(
        f"{ROWS}.filter(r => !r.hidden)"
        ".map(r => r.querySelector('.name').firstChild.textContent.trim())"
    )


def heading(title: str) -> str:
    return f'#slab-table th[data-title="{title}"] button'


def seen(image: bytes) -> np.ndarray:
    return imread(io.BytesIO(image))[..., :3]


def test_loads_without_an_error_or_a_request(page: Browser, made: Path) -> None:
    assert page.problems() == []
    assert page.requests() == [made.resolve().as_uri()]
    assert page.evaluate("document.title") == "O* screening of 7 surfaces"
    assert names(page) == ORDER


def test_a_full_page_with_pictures_is_seen(
    browser: Browser, screened: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(screened, folder)
    browser.open(write_report(folder))
    assert browser.problems() == []
    blank = tmp_path / "blank.html"
    image = seen(browser.screenshot())
    loaded = "[...document.images].every(i => i.complete && i.naturalWidth === 400)"
    assert browser.evaluate(loaded)
    browser.center(".cards")
    cards = seen(browser.screenshot())
    blank.write_text("<!DOCTYPE html><title>blank</title>")
    browser.open(blank)
    nothing = seen(browser.screenshot())
    assert nothing.std() < 1e-3  # a blank page would be noticed
    for part in (image, cards):
        assert part.shape == nothing.shape
        assert 0.02 < np.mean(np.abs(part - nothing).max(axis=-1) > 0.1) < 0.6
        assert len(np.unique((part * 255).astype(int).reshape(-1, 3), axis=0)) > 50


def test_sorting(page: Browser) -> None:
    page.click(heading("U_L"))
    ascending = [name for name in ORDER[::-1] if name != "bulk"]
    assert names(page) == [*ascending, "bulk"]  # what has no number stays at the end
    sort = (
        "document.querySelector('#slab-table th[aria-sort]').getAttribute('aria-sort')"
    )
    assert page.evaluate(sort) == "ascending"
    page.click(heading("U_L"))
    assert names(page) == ORDER
    assert page.evaluate(sort) == "descending"
    page.click(heading("ΔE(O*)"))
    energies = sorted(ENERGIES, key=lambda name: ENERGIES[name])
    assert names(page) == [*energies, "bulk"]
    page.click(heading("slab"))
    assert names(page) == sorted([*ENERGIES, "bulk"], key=str.lower)
    page.click(heading("#"))
    assert names(page) == ORDER
    assert page.problems() == []


def test_filtering(page: Browser) -> None:
    count = "document.querySelector('#count').textContent"
    page.type("#find", "pt")
    assert names(page) == ["Pt3Ni(111)", "Pt(111)", "PtCu(111)", "bulk"]  # bulk is Pt4
    assert page.evaluate(count) == "4 of 7"
    page.type("#find", "PT −cu fcc")
    assert names(page) == ["Pt3Ni(111)", "Pt(111)"]
    dimmed = page.evaluate("document.querySelectorAll('.point.out').length")
    assert dimmed == 4
    page.click(heading("ΔE(O*)"))  # a filter holds while rows are sorted
    assert names(page) == ["Pt(111)", "Pt3Ni(111)"]
    page.click("#show-all")
    page.evaluate("new Promise(done => setTimeout(done))")
    assert page.evaluate(count) == "7 of 7"
    assert page.evaluate("document.querySelectorAll('.point.out').length") == 0
    page.type("#least", "0.68")
    assert set(names(page)) == {"Pt3Ni(111)", "Pt(111)", "PtCu(111)"}
    page.type("#least", "0.1")
    page.type("#find", "no_surface")
    assert names(page) == []
    page.click("#show-all")
    page.evaluate("new Promise(done => setTimeout(done))")
    page.evaluate(
        "(() => { const s = document.querySelector('#status'); s.value = 'no_surface';"
        "s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert names(page) == ["bulk"]
    assert page.problems() == []


def test_the_pointer_tells_slab_site_energy_and_interval(page: Browser) -> None:
    point = ".point[data-x='1.660000']"
    page.mouse("mouseMoved", *page.center(point))
    half = 1.959964 * np.hypot(0.10, 0.12)
    low, high = f"{1.66 - half:.2f}", f"{1.66 + half:.2f}"
    tip = page.evaluate("document.querySelector('#tip').innerText").split("\n")
    assert tip[:3] == ["2. Pt(111)", "site fcc", f"ΔG 1.66 eV [{low} to {high}]"]
    assert tip[3] == f"U_L 0.83 V [{(1.66 - half) / 2:.2f} to 0.86]"
    assert [line.split(" 0")[0] for line in tip[4:]] == ["P(best)", "P(top 3)"]
    page.mouse("mouseMoved", 2, 2)
    assert page.evaluate("document.querySelector('#tip').hidden")


def test_a_click_on_a_point_opens_its_row(page: Browser) -> None:
    # on a busy machine the page would still be scrolling at the second click
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    page.type("#find", "ag")  # the row is filtered away and must come back
    page.click(".point[data-x='1.660000']")
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    opened = page.evaluate(
        "document.querySelector('tr.details').previousElementSibling"
        ".querySelector('.name').firstChild.textContent.trim()"
    )
    assert opened == "Pt(111)"
    sites = page.evaluate(
        "[...document.querySelectorAll('tr.details tbody tr')]"
        ".map(r => r.cells[0].textContent + ' ' + r.cells[1].textContent)"
    )
    assert sites == ["bridge converged", "hcp converged", "ontop desorbed"]
    page.click("tr.chosen td")  # and again closes it
    assert page.evaluate("document.querySelectorAll('tr.details').length") == 0
    assert page.problems() == []


def test_zoom_moves_points_to_where_the_new_axes_want_them(page: Browser) -> None:
    place = (
        "(() => { const mark = document.querySelector(\".point[data-x='1.740000']\");"
        "return ['x', 'y'].map(name => +mark.getAttribute(name)); })()"
    )
    before = page.evaluate(place)
    # a box in the chart's own units, which the chart turns into pixels
    to_page = (
        "(() => { const svg = document.querySelector('#volcano-chart');"
        "svg.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const p = new DOMPoint(%f, %f).matrixTransform(svg.getScreenCTM());"
        "return [p.x, p.y]; })()"
    )
    left, top, width, height = page.evaluate(
        "JSON.parse(document.querySelector('#volcano-chart').dataset.plot)"
    )
    corners = [(before[0] - 100, before[1] - 20), (before[0] + 300, before[1] + 180)]
    (x0, y0), (x1, y1) = (page.evaluate(to_page % corner) for corner in corners)
    page.mouse("mouseMoved", x0, y0)
    page.mouse("mousePressed", x0, y0)
    page.mouse("mouseMoved", x1, y1)
    page.mouse("mouseReleased", x1, y1)
    # a quarter along 400 and a tenth along 200 of the box are now of the whole plot
    expected = [left + width * 0.25, top + height * 0.10]
    assert page.evaluate(place) == pytest.approx(expected, abs=3.0)
    tick = page.evaluate(
        "document.querySelector('#volcano-chart .ticks .tick').textContent"
    )
    assert float(tick) > 1.4
    page.click("#zoom-out")
    assert page.evaluate(place) == pytest.approx(before, abs=0.01)
    assert page.problems() == []


def test_names_are_text_in_the_page_and_in_its_details(page: Browser) -> None:
    row = ORDER.index(NASTY)
    page.evaluate(f"{ROWS}[{row}].click()")
    page.mouse("mouseMoved", *page.center(".point[data-x='0.940000']"))
    assert NASTY in page.evaluate("document.querySelector('#tip').innerText")
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.title") == "O* screening of 7 surfaces"
    assert page.problems() == []


def test_a_thousand_slabs(browser: Browser, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    energies = {f"PtCu{i}(111)": float(random.normal(1.4, 0.5)) for i in range(1000)}
    browser.open(write_report(write_screening(tmp_path, energies)))
    assert browser.problems() == []
    browser.type("#find", "cu99")
    assert len(names(browser)) == 11  # 99 and 990 to 999
    browser.click(heading("U_L"))
    shown = browser.evaluate(
        f"{ROWS}.filter(r => !r.hidden).map(r => Number(r.dataset.potential))"
    )
    assert shown == sorted(shown)
    assert seen(browser.screenshot()).std() > 0.02
