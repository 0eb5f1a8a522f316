"""Single relaxations of a screening, and how they are handed out."""

import gc
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT

from crack_md.structures import StructureEntry
from crack_md.workflows.screening.plan import SlabPlan
from crack_md.workflows.screening.relaxations import (
    RelaxationOutcome,
    RelaxFunction,
    SiteRelaxation,
    bind_settings,
)
from crack_md.workflows.surfaces.outcome import neighbor_distance
from tests.workflows.screening.small_screenings import NO_PLATINUM, fast, run


def test_tasks_are_made_when_there_is_room_for_them(tmp_path: Path) -> None:
    """A million structures must not wait in memory for their turn."""
    held: list[int] = []

    def two_at_a_time(
        function: RelaxFunction, tasks: Iterable[SiteRelaxation]
    ) -> Iterator[RelaxationOutcome]:
        for first in tasks:
            pair = [first, *islice(tasks, 1)]
            held.append(sum(type(each) is SiteRelaxation for each in gc.get_objects()))
            yield from (function(task, EMT()) for task in pair)

    entries = [
        StructureEntry(m, fcc111(m, (1, 1, 3), vacuum=8.0)) for m in ("Cu", "Ag", "Au")
    ]
    result = run(tmp_path, entries, model=NO_PLATINUM, runner=two_at_a_time)
    assert result.n_relaxed == 3 * (1 + 4)
    assert max(held) <= 4


class Trail(EMT):
    """EMT that notes the energies it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float] = []

    def calculate(self, *args: object, **kwargs: object) -> None:
        super().calculate(*args, **kwargs)
        self.noted.append(self.results["energy"])


def test_relaxation_does_not_depend_on_the_one_before(tmp_path: Path) -> None:
    """Bit for bit: neighbor lists of EMT would else sum in the order of the last."""
    slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    slab.rattle(0.1, seed=1)
    other = slab.copy()
    other.rattle(0.2, seed=2)
    function = bind_settings(fast(), direct_forces=False, distance=neighbor_distance)

    def energies(*structures: Atoms) -> list[float]:
        trail = Trail()
        for atoms in structures:
            trail.noted.clear()
            plan = SlabPlan("slab", "", None)
            function(SiteRelaxation("key", plan, None, atoms, atoms), trail)
        return trail.noted

    assert energies(other, slab) == energies(slab)
