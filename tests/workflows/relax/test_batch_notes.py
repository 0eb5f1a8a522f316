"""What relax tells of a structure besides its energy."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from crack_md.api.runs import relax


class Near(EMT):
    """Copper that its training data knew at 2.4 Å and beyond."""

    def calculate(self, *args: object, **kwargs: object) -> None:
        super().calculate(*args, **kwargs)
        assert self.atoms is not None
        self.results["domain_distance"] = 2.4 / self.atoms.get_distance(0, 1)


def test_atoms_nearer_than_the_model_knows_are_told(tmp_path: Path) -> None:
    """EMT's dimer is 2.2 Å long; two steps of 0.001 Å leave another at 2.6 Å."""
    found = []
    for name, apart, steps in (("near", 2.2, 50), ("far", 2.6, 2)):
        dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, apart]])
        options = {"steps": steps, "maxstep": 0.001, "fmax": 1e-3}
        run = relax(dimer, Near(), out=tmp_path / name, **options)
        final = run.structures[0]
        assert final is not None
        assert run.rows[0]["domain_distance"] == pytest.approx(
            2.4 / final.get_distance(0, 1)
        )
        found.append(bool(run.rows[0]["note"]))
    assert found == [True, False]
    assert "domain_distance,note" in (tmp_path / "far" / "results.csv").read_text()
