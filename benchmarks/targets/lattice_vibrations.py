"""Phonons of fcc metals against those of the source of the labels."""

import json

from benchmarks import phonons
from benchmarks.targets.record import Check, Details, Subjects, knows

METALS = ("Pt", "Pd", "Cu", "Ag", "Au", "Ni")
TARGET_THZ = 0.15


def compare_phonons(subjects: Subjects) -> tuple[list[Check], Details]:
    """Compare the bands of six metals, each at its model's lattice constant."""
    _, info = subjects.student
    _, source_info = subjects.label_source
    known = [metal for metal in METALS if knows(info, metal)]
    tables = []
    for name, sha256 in (
        (subjects.model, info.sha256),
        (subjects.source or "", source_info.sha256),
    ):
        path = subjects.out / f"phonons-{sha256[:12]}.json"
        stored = json.loads(path.read_text()) if path.is_file() else {"metals": {}}
        missing = [metal for metal in known if metal not in stored["metals"]]
        if missing:
            computed = phonons.compute(name, tuple(missing), oxygen=False)
            computed["metals"] = {**stored["metals"], **computed["metals"]}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(computed) + "\n")
            stored = computed
        tables.append(stored)
    rows = phonons.compare(*tables)
    checks = [
        Check(
            f"{metal}: phonons, largest deviation",
            rows[metal]["max_difference_THz"] if metal in rows else None,
            "THz",
            TARGET_THZ,
        )
        for metal in METALS
    ]
    mean = [row["MAD_THz"] for row in rows.values()]
    checks.append(
        Check("phonons, mean absolute deviation", sum(mean) / len(mean), "THz")
    )
    return checks, rows
