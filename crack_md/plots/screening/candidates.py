"""Cards of the best slabs: pictures, numbers, and the free-energy diagram."""

from crack_md.plots.screening.diagrams import draw_diagram, limiting_step
from crack_md.plots.screening.markup import Markup, tag
from crack_md.plots.screening.structures import draw_structure
from crack_md.plots.screening.view import ReportView, SlabView
from crack_md.workflows.activity import Volcano
from crack_md.workflows.structures import Structures

SHOWN = 6


def draw_candidates(view: ReportView, volcano: Volcano | None) -> Markup:
    """Return one card for each of the best slabs."""
    best = view.ranked[:SHOWN]
    if not best:
        return tag("p", "None: no slab has a result.")
    structures = Structures.of(view.screening)
    cards = [_card(slab, view, structures, volcano) for slab in best]
    return tag("div", *cards, class_="cards")


def _card(
    slab: SlabView, view: ReportView, structures: Structures, volcano: Volcano | None
) -> Markup:
    atoms = structures.adsorbed(view.candidate(slab))
    pictures = (
        tag("p", "No picture: results.db does not hold its structure.", class_="note")
        if atoms is None
        else tag("div", draw_structure(atoms, slab.name), class_="pictures")
    )
    diagram = (
        []
        if volcano is None or slab.dG_eV is None
        else [draw_diagram(slab.dG_eV, volcano)]
    )
    title = tag("h3", tag("span", f"{slab.rank}", class_="rank"), " ", slab.name)
    facts = tag("p", _facts(slab, view, volcano), class_="note")
    return tag("article", title, facts, pictures, *diagram, class_="card")


def _facts(slab: SlabView, view: ReportView, volcano: Volcano | None) -> str:
    """Return site, energies and the limiting step in one line."""
    facts = [f"{view.screening.adsorbate}* on {slab.site}"]
    if slab.dG_eV is not None:
        ends = slab.free_energy_interval
        half = "" if ends is None else f" ± {(ends[1] - ends[0]) / 2:.2f}"
        facts.append(f"ΔG {slab.dG_eV:.2f}{half} eV".replace("-", "−"))
    if slab.U_L_V is not None:
        facts.append(f"U_L {slab.U_L_V:.2f} V".replace("-", "−"))
    if volcano is not None and slab.dG_eV is not None:
        facts.append(f"limited by {limiting_step(slab.dG_eV, volcano)}")
    return " · ".join(facts)
