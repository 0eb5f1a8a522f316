import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111

from crack_md.errors import ConfigError, StructureError
from crack_md.workflows.md.residence import (
    Residence,
    diffusion_coefficient,
    surface_path,
    trace_residence,
)
from crack_md.workflows.surfaces.sites import Site, find_sites
from crack_md.workflows.surfaces.slab import Slab, prepare_slab


@pytest.fixture(scope="module")
def platinum() -> tuple[Slab, tuple[Site, ...]]:
    slab = prepare_slab(fcc111("Pt", (2, 2, 3), a=3.97, vacuum=8.0))
    return slab, find_sites(slab)


def frame(slab: Slab, position: np.ndarray) -> Atoms:
    return slab.atoms + Atoms("O", [position])


def trace(
    slab: Slab, sites: tuple[Site, ...], frames: list[Atoms], **options: object
) -> Residence:
    return trace_residence(
        frames,
        reference=slab.atoms,
        sites=sites,
        adsorbate=len(slab.atoms),
        time_per_frame_fs=10.0,
        **options,  # type: ignore[arg-type]
    )


def member(sites: tuple[Site, ...], label: str, number: int = 0) -> np.ndarray:
    return next(s for s in sites if s.label == label).members[number]


def test_stays_and_hops_of_a_written_path(
    platinum: tuple[Slab, tuple[Site, ...]],
):
    slab, sites = platinum
    fcc, hcp = member(sites, "fcc"), member(sites, "hcp")
    other = member(sites, "fcc", 1)
    script = [(fcc, 30), (hcp, 5), (fcc, 20), (hcp, 5), (other, 40)]
    frames = [frame(slab, place) for place, count in script for _ in range(count)]
    found = trace(slab, sites, frames)
    by_label = {stay.label: stay for stay in found.stays}
    assert by_label["fcc"].time_fs == 900.0
    assert by_label["hcp"].time_fs == 100.0
    assert by_label["fcc"].share == pytest.approx(0.9)
    assert by_label["fcc"].n_departures == 2
    assert by_label["fcc"].mean_residence_fs == 450.0
    assert by_label["fcc"].residence_error_fs == pytest.approx(450.0 / np.sqrt(2))
    assert by_label["hcp"].mean_residence_fs == 50.0
    assert [hop.time_fs for hop in found.hops] == [300.0, 350.0, 550.0, 600.0]
    assert found.hop_counts() == {("fcc", "hcp"): 2, ("hcp", "fcc"): 2}
    assert found.hops[0].start == found.hops[1].end != found.hops[3].end
    assert by_label["fcc"].n_places == by_label["hcp"].n_places == 4
    assert found.stays[0].label == "fcc"


def test_swinging_makes_no_hops(platinum: tuple[Slab, tuple[Site, ...]]):
    """Past the middle between two sites and back, without reaching the other core."""
    slab, sites = platinum
    fcc = member(sites, "fcc")
    hcp = min(
        next(s for s in sites if s.label == "hcp").members,
        key=lambda place: np.linalg.norm(place[:2] - fcc[:2]),
    )
    shares = 0.3 - 0.3 * np.cos(np.linspace(0, 20 * np.pi, 400))
    frames = [frame(slab, fcc + share * (hcp - fcc)) for share in shares]
    assert shares.max() > 0.55
    found = trace(slab, sites, frames)
    assert found.hops == ()
    assert found.stays[0].mean_residence_fs is None
    assert (found.occupied == found.occupied[0]).all()


def test_sites_follow_the_surface_and_cross_the_cell(
    platinum: tuple[Slab, tuple[Site, ...]],
):
    slab, sites = platinum
    fcc = member(sites, "fcc")
    frames = []
    for number in range(20):
        atoms = frame(slab, fcc + (number % 2) * slab.atoms.cell.array[0])
        atoms.positions += [0.3 * number, 0.1 * number, 0.0]
        frames.append(atoms)
    found = trace(slab, sites, frames)
    assert found.hops == ()
    assert found.stays[0].share == 1.0


def test_frames_before_the_first_core_do_not_count(
    platinum: tuple[Slab, tuple[Site, ...]],
):
    slab, sites = platinum
    ontop, fcc = member(sites, "ontop"), member(sites, "fcc")
    found = trace(slab, sites, [frame(slab, ontop)] * 3 + [frame(slab, fcc)] * 2)
    assert found.occupied.tolist()[:3] == [-1, -1, -1]
    assert found.hops == ()
    assert found.stays[0].time_fs == 20.0
    assert found.stays[0].share == 1.0


def test_kinds_that_do_not_exist_are_refused(
    platinum: tuple[Slab, tuple[Site, ...]],
):
    slab, sites = platinum
    frames = [frame(slab, member(sites, "fcc"))]
    with pytest.raises(StructureError, match="has bridge, fcc, hcp, ontop"):
        trace(slab, sites, frames, kinds=["4fold"])
    frames[0].symbols[0] = "Cu"
    with pytest.raises(StructureError, match="not the first of every frame"):
        trace(slab, sites, frames)


def random_walk(seed: int, *, step: float, swing: float, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(step * rng.standard_normal((count, 2)), axis=0)
    return walk + swing * rng.standard_normal((count, 2))


def test_random_walk_has_its_diffusion_coefficient():
    """⟨x²⟩ = σ² per step and direction, so D = σ²/2Δt, whatever swings on top."""
    step, time = 0.05, 20.0
    exact = step**2 / (2 * time) * 0.1  # cm²/s
    paths = [random_walk(s, step=step, swing=0.3, count=4000) for s in range(8)]
    found = diffusion_coefficient(paths, time_per_frame_fs=time)
    assert abs(found.coefficient_cm2_per_s - exact) < 3 * found.error_cm2_per_s
    assert found.error_cm2_per_s < 0.2 * exact
    assert found.n_blocks == 32
    # the intercept is the swinging: 2 σ² in each of two directions
    line = np.polyfit(found.lag_fs, found.msd_A2, 1)
    assert line[1] == pytest.approx(4 * 0.3**2, rel=0.3)


def test_error_of_the_coefficient_is_what_repeats_scatter():
    found = [
        diffusion_coefficient(
            [random_walk(s, step=0.05, swing=0.0, count=4000)], time_per_frame_fs=20.0
        )
        for s in range(60)
    ]
    scatter = np.std([f.coefficient_cm2_per_s for f in found])
    claimed = np.mean([f.error_cm2_per_s for f in found])
    assert claimed == pytest.approx(scatter, rel=0.35)


def test_path_is_unwrapped_and_free_of_drift(
    platinum: tuple[Slab, tuple[Site, ...]],
):
    slab, _ = platinum
    frames = []
    for number in range(50):
        atoms = frame(slab, np.array([0.5 * number, 0.0, 12.0]))
        atoms.positions[:, 1] += 0.2 * number
        atoms.wrap()
        frames.append(atoms)
    path = surface_path(frames, adsorbate=12)
    assert np.allclose(path[:, 0], 0.5 * np.arange(50))
    assert np.allclose(path[:, 1], 0.0)


def test_too_short_a_path_is_refused():
    with pytest.raises(ConfigError, match="4 blocks of 25 frames are too little"):
        diffusion_coefficient([np.zeros((100, 2))], time_per_frame_fs=1.0)
