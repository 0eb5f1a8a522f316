"""Count what compiled code works on: edges, and slots of the table of neighbors.

    python benchmarks/slots.py

On slabs of O on Pt(111), headroom and padding included, for the models of a GPU.
"""

from crack_md.bench.speed import platinum_slab
from crack_md.calculators.engine import CompiledEngine
from crack_md.models.checkpoint import load_model
from crack_md.neighbors import build_graph

MODELS = ("accurate", "default")
N_ATOMS = (46, 211, 1001)


def main() -> None:
    """Print a line for every model and size."""
    for name in MODELS:
        model = load_model(name)
        engine = CompiledEngine(model)
        for n_atoms in N_ATOMS:
            graph = build_graph(platinum_slab(n_atoms), model.rule, dtype=model.dtype)
            shape = engine.shape_of(graph)
            n_slots = shape.n_atoms * shape.width
            n_edges = shape.n_edges or n_slots
            print(
                f"{name}, {graph.n_atoms} atoms, {graph.most_edges} edges: room for "
                f"{n_edges} of {n_slots} slots ({n_edges / n_slots:.0%})"
            )


if __name__ == "__main__":
    main()
