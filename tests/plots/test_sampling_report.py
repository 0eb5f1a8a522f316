import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from crack_md.calculators.replicas.state import BlowUp
from crack_md.plots.sampling import (
    density,
    draw_chains,
    draw_energies,
    draw_ratios,
    profile,
)
from crack_md.plots.sampling_report import write_sampling_report
from crack_md.workflows.sampling.check import SamplingCheck, check_halves
from crack_md.workflows.sampling.record import summarize
from tests.plots.test_evaluation_report import Page
from tests.workflows.sampling.test_check import check, sampled
from tests.workflows.sampling.toys import Peroxide

FIGURES = ("ratios", "energies", "distances", "torsions", "chains")
OTHERS = ("verdict", "metrics", "convergence", "provenance")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> SamplingCheck:
    wrong = Peroxide(tilt=0.12)
    return check(sampled(Peroxide()), tmp_path_factory.mktemp("out"), wrong)


def test_a_page_with_every_part(checked: SamplingCheck, tmp_path: Path):
    page = write_sampling_report(tmp_path, checked, summarize(checked), command="this")
    assert page == tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    shown = Page(text)
    assert shown.open == []
    assert set(shown.sections) == {*FIGURES, *OTHERS}
    assert len(shown.sources) == len(FIGURES)
    assert "FAIL: H2O2 by toy" in text
    assert all(line in text for line in checked.verdict.failures)
    assert {path.stem for path in tmp_path.glob("*.png")} == set(FIGURES)
    for name in FIGURES:
        image = imread(io.BytesIO((tmp_path / f"{name}.png").read_bytes()))
        assert image[..., :3].std() > 0.02, name


def test_halves_have_no_chains(tmp_path: Path):
    found = check_halves(sampled(Peroxide(), chains=16))
    page = write_sampling_report(tmp_path, found, summarize(found), command="this")
    assert "chains" not in Page(page.read_text(encoding="utf-8")).sections


def test_bands_by_hand():
    # eight groups of p = ½ ± σ: the error is σ/√7
    counts = np.array([[55.0, 45.0], [45.0, 55.0]] * 4)
    edges = np.array([0.0, 0.5, 1.0])
    mean, error = density(counts, edges)
    assert mean.tolist() == [1.0, 1.0]
    assert error == pytest.approx([0.1 / np.sqrt(7)] * 2)
    F, of_F = profile(1e6 * counts, 500.0)
    assert np.allclose(F, 0.0)
    assert of_F == pytest.approx([0.0430867 * 0.1 / np.sqrt(7)] * 2, rel=1e-3)


def test_figures_show_what_is_in_the_check(checked: SamplingCheck):
    axes = draw_ratios(checked).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [one.name for one in checked.analysis.comparisons]
    ratios = {m.ratio for c in checked.analysis.comparisons for m in c.metrics}
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
    assert len(drawn) == len(
        [m for c in checked.analysis.comparisons for m in c.metrics]
    )
    assert max(ratios) == pytest.approx(drawn[:, 0].max())
    labels = draw_energies(checked).axes[0].get_legend_handles_labels()[1]
    assert labels == [
        "reference, ± 2σ",
        "model on the reference",
        "model on its chains",
    ]


def test_survival_falls_at_blow_ups(checked: SamplingCheck):
    assert checked.chains is not None
    torn = replace(checked.chains, blow_ups=(BlowUp(3, 4000, "torn"),))
    left = draw_chains(torn, zero=0.0).axes[0]
    assert np.allclose(left.lines[0].get_ydata(), [1.0, 15 / 16, 15 / 16])
    assert np.allclose(left.lines[0].get_xdata(), [0.0, 2.0, 5.0])
