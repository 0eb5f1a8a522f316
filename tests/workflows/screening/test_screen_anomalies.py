"""What goes wrong in single relaxations, and that it stays there."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.store import RelaxationRecord
from crack_md.workflows.screening.plan import plan_slab
from crack_md.workflows.screening.relaxations import (
    RelaxationOutcome,
    RelaxFunction,
    SiteRelaxation,
    bind_settings,
)
from crack_md.workflows.surfaces.adsorbates import place
from crack_md.workflows.surfaces.outcome import neighbor_distance
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import prepare_slab
from tests.workflows.screening.small_screenings import (
    EMT_MODEL,
    NO_PLATINUM,
    fast,
    rows,
    run,
)

MODEL = ModelInfo(
    "tether", "0", "total", EMT_MODEL.gas_references, frozenset(["Cu", "O", "H"])
)
DIRECT = replace(MODEL, forces="direct")


def copper() -> StructureEntry:
    return StructureEntry("Cu", fcc111("Cu", (2, 2, 3), vacuum=8.0))


class Tether(Calculator):
    """Springs from some atoms to fixed points; nothing else moves or costs anything.

    Args:
        targets: where atoms are pulled to, in Å from where the relaxation starts.
        around: eV/Å, a further force on the last atom, around where it is pulled to;
            no energy belongs to it, as may be with direct forces.
        clean: whether clean slabs are pulled at too.
    """

    implemented_properties = ("energy", "forces")

    def __init__(
        self,
        targets: dict[int, tuple[float, float, float]],
        *,
        around: float = 0.0,
        clean: bool = False,
    ) -> None:
        super().__init__()
        self.targets, self.around, self.clean = targets, around, clean
        self.origin: np.ndarray | None = None

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        forces, energy = np.zeros((len(atoms), 3)), 0.0
        pulled = self.clean or atoms.numbers[-1] != 29
        if not pulled or self.origin is None or len(self.origin) != len(atoms):
            self.origin = atoms.positions.copy()
        for index, shift in self.targets.items() if pulled else ():
            apart = atoms.positions[index] - self.origin[index] - shift
            forces[index] -= 2.0 * apart
            energy += float(apart @ apart)
            if self.around:
                out = np.hypot(*apart[:2]) + 1e-9
                turning = [-apart[1] / out, apart[0] / out, 0.0]
                forces[index] += self.around * np.array(turning)
        self.results = {"energy": energy, "forces": forces}


def relaxed(
    adsorbate: str, site: str, calculator: Calculator, **options: Any
) -> RelaxationRecord:
    """Return the record of one relaxation on copper."""
    direct = options.pop("direct_forces", False)
    settings = fast(adsorbate, fmax=0.02, orientations=1, **options)
    plan = plan_slab(copper(), model=MODEL, settings=settings)
    assert plan.slab is not None
    start = next(s for s in plan.starts if s.site.label == site)
    clean = plan.slab.atoms
    initial = place(plan.slab, start, relaxed=clean)
    function = bind_settings(settings, direct_forces=direct, distance=neighbor_distance)
    return function(SiteRelaxation("k", plan, start, initial, clean), calculator).record


def to_site(begin: str, end: str) -> tuple[float, float, float]:
    """Return the way in Å from one site of the copper slab to the nearest other."""
    sites = {s.label: s for s in find_sites(prepare_slab(copper().atoms))}  # type: ignore[arg-type]
    ways = sites[end].members - sites[begin].position
    x, y, z = ways[np.linalg.norm(ways, axis=1).argmin()]
    return float(x), float(y), float(z)


def test_at_rest_nothing_is_noted() -> None:
    record = relaxed("O", "fcc", Tether({}))
    assert (record.status, record.anomalies, record.final_site) == (
        "converged",
        "",
        "fcc",
    )
    assert (record.final_coordination, record.final_elements) == (3, "Cu3")


@pytest.mark.parametrize(
    ("adsorbate", "targets", "status"),
    [
        ("O", {-1: (0, 0, 3.5)}, "desorbed"),
        ("O", {-1: (0, 0, -2.2)}, "intercalated"),
        ("OH", {-1: (0, 0, 2.5)}, "dissociated"),
        ("OH", {-1: (0, 0, 4.5), -2: (0, 0, 4.5)}, "desorbed"),
        ("O", {11: (0, 0, 4.0)}, "surface_changed"),
    ],
)
def test_anomalies_become_the_status(
    adsorbate: str, targets: dict[int, tuple[float, float, float]], status: str
) -> None:
    record = relaxed(adsorbate, "hcp", Tether(targets))
    assert record.status == status
    assert status in record.anomalies.split(",")
    assert not record.is_settled
    assert (record.final_site is None) == (status == "desorbed")


def test_site_that_was_left_is_noted_and_counts() -> None:
    record = relaxed("O", "bridge", Tether({-1: to_site("bridge", "fcc")}))
    assert (record.status, record.anomalies) == ("converged", "site_migrated")
    assert (record.site, record.final_site) == ("bridge", "fcc")
    assert record.migrated
    assert record.is_settled


def test_unfinished_is_noted_beside_other_things() -> None:
    way = to_site("bridge", "fcc")
    record = relaxed("O", "bridge", Tether({-1: way}), steps=1)
    assert (record.status, record.anomalies) == ("not_converged", "not_converged")
    assert not record.is_settled
    far = relaxed("O", "fcc", Tether({-1: (0, 0, 9.0)}), steps=60)
    assert far.status == "desorbed"
    assert far.anomalies == "desorbed,out_of_domain,not_converged"


@pytest.mark.parametrize(("around", "counts"), [(0.07, True), (0.3, False)])
def test_direct_forces_that_no_longer_fall(around: float, counts: bool) -> None:
    """A force that only turns never falls; up to 0.1 eV/Å its energy is as good."""
    record = relaxed(
        "O", "fcc", Tether({-1: (0.05, 0, 0)}, around=around), direct_forces=True
    )
    assert (record.status, record.anomalies) == ("plateau", "plateau")
    assert record.max_force is not None
    assert (record.max_force <= 0.1) == counts
    assert record.is_settled == counts
    assert record.n_steps is not None
    assert record.n_steps < 300


def test_plateau_of_the_clean_slab_is_a_status(tmp_path: Path) -> None:
    restless = Tether({-1: (0.05, 0.0, 0.0)}, around=0.4, clean=True)
    settings = fast(fmax=0.02)
    (row,) = run(
        tmp_path, [copper()], calculator=restless, model=DIRECT, settings=settings
    ).slabs
    assert row.status == "clean_plateau"
    assert row.rank is None


def test_what_the_model_does_not_know_is_left_out(tmp_path: Path) -> None:
    def only_clean(atoms: Atoms) -> tuple[float, str]:
        return (1.2, "O is strange here") if 8 in atoms.numbers else (0.4, "")

    calm = Tether({})
    result = run(
        tmp_path / "a", [copper()], calculator=calm, model=MODEL, distance=only_clean
    )
    (row,) = result.slabs
    assert {s.record.status for s in row.sites} == {"out_of_domain"}
    assert row.status == "no_valid_site"
    assert row.sites[0].record.error == "O is strange here"
    assert row.sites[0].record.domain_distance == pytest.approx(1.2)
    assert row.clean is not None
    assert row.clean.domain_distance == pytest.approx(0.4)

    def nothing(_: Atoms) -> tuple[float, str]:
        return np.inf, "never seen"

    (row,) = run(
        tmp_path / "b", [copper()], calculator=calm, model=MODEL, distance=nothing
    ).slabs
    assert (row.status, row.error) == ("clean_out_of_domain", "never seen")
    assert not row.sites


class Failing(Tether):
    """Gives up when oxygen stands on a single atom."""

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        if atoms.numbers[-1] == 8:
            distances = np.sort(atoms.get_distances(-1, range(12), mic=True))
            if distances[1] - distances[0] > 0.5:
                raise RuntimeError("out of\n memory")


def test_one_failure_is_one_row(tmp_path: Path) -> None:
    result = run(tmp_path, [copper()], calculator=Failing({}), model=MODEL)
    found = {site.record.site: site for site in result.slabs[0].sites}
    assert found["ontop"].record.status == "failed"
    assert found["ontop"].record.error == "RuntimeError: out of memory"
    assert found["ontop"].adsorption_energy is None
    assert found["fcc"].record.status == "converged"
    assert result.slabs[0].status == "ok"
    assert len(rows(tmp_path / "sites.csv")) == 4


def in_threads(
    function: RelaxFunction, tasks: Iterable[SiteRelaxation]
) -> Iterator[RelaxationOutcome]:
    """Run all at once, every one with a calculator of its own, and answer backwards."""
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(function, task, EMT()) for task in tasks]
        yield from (future.result() for future in reversed(done))


def test_runner_may_do_all_at_once_in_any_order(tmp_path: Path) -> None:
    slabs = {m: fcc111(m, (1, 1, 3), vacuum=8.0) for m in ("Cu", "Ag")}
    entries = [StructureEntry(m, atoms) for m, atoms in slabs.items()]
    entries.append(StructureEntry("again", slabs["Cu"]))
    one = run(tmp_path / "serial", entries, model=NO_PLATINUM)
    many = run(tmp_path / "threads", entries, model=NO_PLATINUM, runner=in_threads)
    assert many.n_relaxed == one.n_relaxed == 2 * (1 + 4)
    assert many.n_reused == one.n_reused == 1 + 4
    for name in ("results.csv", "sites.csv"):
        serial = (tmp_path / "serial" / name).read_bytes()
        assert (tmp_path / "threads" / name).read_bytes() == serial
