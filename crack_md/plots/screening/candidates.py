"""Cards of the best slabs: pictures, numbers, and the free-energy diagram."""

from crack_md.plots.screening.diagrams import draw_diagram, limiting_step
from crack_md.plots.screening.markup import Markup, join, tag
from crack_md.plots.screening.structures import draw_structure
from crack_md.plots.screening.view import ReportView, SlabView
from crack_md.workflows.orr.diagram import INTERMEDIATES
from crack_md.workflows.screening.reader import Structures

SHOWN = 6


def draw_candidates(view: ReportView) -> Markup:
    """Return one card for each of the best slabs."""
    best = view.ranked[:SHOWN]
    if not best:
        return tag("p", "None: no slab has a result.")
    structures = Structures.of(view.screening)
    cards = [_card(slab, view, structures) for slab in best]
    lead = (
        "Grey: at U = 0. Blue: at the limiting potential; red is the step that limits."
    )
    if any(_inferred(slab) for slab in best):
        lead += " Pale names: by scaling, not computed."
    return join([tag("p", lead, class_="note"), tag("div", *cards, class_="cards")])


def _inferred(slab: SlabView) -> bool:
    return len(slab.free_energies) < len(INTERMEDIATES)


def _card(slab: SlabView, view: ReportView, structures: Structures) -> Markup:
    candidate = view.candidates[slab.name]
    atoms = structures.adsorbed(candidate, candidate.adsorbed[0])
    pictures = (
        tag("p", "No picture: results.db does not hold its structure.", class_="note")
        if atoms is None
        else tag("div", draw_structure(atoms, slab.name), class_="pictures")
    )
    diagram = [draw_diagram(slab)] if slab.free_energies else []
    title = tag("h3", tag("span", f"{slab.rank}", class_="rank"), " ", slab.name)
    facts = tag("p", _facts(slab), class_="note")
    return tag("article", title, facts, pictures, *diagram, class_="card")


def _facts(slab: SlabView) -> str:
    """Return sites, free energies and the limiting step in one line."""
    facts = []
    for name, energy in slab.energies.items():
        half = "" if energy.half_width is None else f" ± {energy.half_width:.2f}"
        kind, value = (
            ("ΔE", energy.dE_eV) if energy.dG_eV is None else ("ΔG", energy.dG_eV)
        )
        shown = f"{value:.2f}".replace("-", "−")
        facts.append(f"{name}* on {energy.site}, {kind} {shown}{half} eV")
    if slab.U_L_V is not None:
        facts.append(f"U_L {slab.U_L_V:.2f} V".replace("-", "−"))
    if slab.free_energies:
        facts.append(f"limited by {limiting_step(slab)}")
    return " · ".join(facts)
