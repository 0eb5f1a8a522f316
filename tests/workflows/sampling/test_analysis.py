import numpy as np
import pytest

from crack_md.workflows.sampling.analysis import SampleFrames, reference_convergence
from crack_md.workflows.sampling.molecule import find_molecule
from crack_md.workflows.sampling.reference import ReferenceFrames
from tests.workflows.sampling.toys import HYDROGEN_PEROXIDE, peroxide_start


def sample(
    n_chains: int, n_frames: int, counts: np.ndarray | None = None
) -> SampleFrames:
    shape = (n_chains, n_frames)
    return SampleFrames(
        np.zeros((*shape, 4, 3)),
        None,
        np.ones(shape, dtype=bool) if counts is None else counts,
        np.ones(n_chains, dtype=bool),
    )


def test_chains_next_to_each_other_are_a_group():
    groups = sample(16, 10).groups.reshape(16, 10)
    assert groups.tolist() == [[chain // 2] * 10 for chain in range(16)]


def test_few_chains_are_cut_in_time():
    groups = sample(4, 10).groups.reshape(4, 10)
    assert groups[0].tolist() == [0] * 5 + [1] * 5
    assert groups[3].tolist() == [6] * 5 + [7] * 5


def test_frames_that_do_not_count_have_no_group():
    counts = np.ones((16, 10), dtype=bool)
    counts[:2] = False  # all of the first group
    counts[5, 3:] = False
    groups = sample(16, 10, counts).groups
    assert len(groups) == counts.sum()
    assert np.unique(groups).tolist() == list(range(7))
    assert np.bincount(groups)[1] == 13


def test_a_reference_is_cut_into_quarters():
    rng = np.random.default_rng(0)
    positions = peroxide_start() + 0.05 * rng.normal(size=(402, 4, 3))
    frames = ReferenceFrames("here", HYDROGEN_PEROXIDE, positions, np.arange(402.0))
    cut = SampleFrames.of_reference(frames)
    assert cut.positions.shape == (4, 100, 4, 3)
    assert cut.energies is not None
    assert cut.energies[:, 0].tolist() == [0.0, 100.0, 200.0, 300.0]
    found = {
        one.name: one
        for one in reference_convergence(
            frames, find_molecule(frames.numbers, frames.positions)
        )
    }
    assert set(found) == {"energy", "radius of gyration", "H2–O0–O1–H3"}
    assert found["energy"].r_hat > 1.5  # they rise all the time
    assert found["radius of gyration"].r_hat == pytest.approx(1.0, abs=0.03)
    assert found["radius of gyration"].effective_size == pytest.approx(400, rel=0.3)
