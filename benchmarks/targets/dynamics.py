"""Whether energy is conserved with O on platinum and on a platinum skin."""

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from benchmarks.targets.record import Check, Details, Subjects, knows
from crack_md.workflows.md.audit import AuditSettings, run_audit

TARGET_MEV_PER_ATOM_PS = 0.02
EQUILIBRATION_STEPS = 1000


def oxygen_on(*, skin: str | None = None) -> Atoms:
    """Return O on the fcc hollow of p(2x2) Pt(111), or of a Pt skin on Pt3M."""
    constant = 3.97 if skin is None else 3.89
    slab = fcc111("Pt", (2, 2, 4), a=constant, vacuum=7.5, periodic=True)
    slab.set_constraint(FixAtoms(slab.get_tags() > 2))
    if skin is not None:
        _alloy_below(slab, skin)
    add_adsorbate(slab, "O", 1.2, "fcc")
    return slab


def _alloy_below(slab: Atoms, minority: str) -> None:
    """Put one atom of four in each lower layer, as far apart as they are in L1_2."""
    last = None
    for layer in (2, 3, 4):
        places = np.flatnonzero(slab.get_tags() == layer)
        if last is None:
            chosen = int(places[0])
        else:
            apart = slab.get_distances(last, places, mic=True)
            chosen = int(places[np.argmax(np.round(apart, 6))])
        slab.symbols[chosen] = minority
        last = chosen


def measure_conservation(subjects: Subjects) -> tuple[list[Check], Details]:
    """Measure the drift of the energy in NVE at 300 K."""
    calculator, info = subjects.student
    settings = AuditSettings(
        steps=subjects.nve_steps, equilibration_steps=EQUILIBRATION_STEPS
    )
    checks, details = [], {}
    for name, skin in (("O/Pt(111)", None), ("O/Pt3Ni(111) Pt skin", "Ni")):
        text, unit = f"NVE drift, {name}", "meV/atom/ps"
        if skin is not None and not knows(info, skin):
            checks.append(Check(text, None, unit, TARGET_MEV_PER_ATOM_PS))
            continue
        audit = run_audit(
            oxygen_on(skin=skin),
            calculator,
            settings=settings,
            folder=subjects.out / f"nve-{info.sha256[:12]}-{skin or 'Pt'}",
            precise=subjects.precise_student[0],
            provenance={"model_sha256": info.sha256},
        )
        drift = audit["nve"]["drift_meV_per_atom_ps"]
        checks.append(Check(text, drift, unit, TARGET_MEV_PER_ATOM_PS))
        details[name] = audit
    return checks, details
