from pathlib import Path

import pytest

from benchmarks import catbench_sets, dft_sets
from crack_md.workflows.scoring.reactions import read_reactions

has_references = pytest.mark.skipif(
    not dft_sets.references().is_dir(),
    reason="no reference data: set CRACK_MD_REFERENCES",
)


@has_references
def test_sets_are_what_was_published(tmp_path: Path) -> None:
    catbench_sets.main(tmp_path)
    counts, energies = {}, {}
    for path in tmp_path.iterdir():
        reactions, failed = read_reactions(path)
        assert not failed
        counts[path.name.removesuffix("_adsorption.json")] = len(reactions)
        energies |= {reaction.name: reaction.dft_eV for reaction in reactions}
    assert counts == {"gpaw_alloys": 54, "gpaw_metals": 24, "pbe_sites": 28}
    assert energies["Pt(111)-fcc-O"] == pytest.approx(1.391, abs=1e-3)
    # E(covered) − E(clean) − E(H2O) + E(H2), GPAW's energies
    by_hand = -235.24185 - -230.81742 - -12.23347 + -6.67879
    assert energies["agirpdptru_0000-0-O"] == pytest.approx(by_hand, abs=1e-4)
    assert energies["Pt-fcc-O"] == pytest.approx(-4.264, abs=1e-3)
