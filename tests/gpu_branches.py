"""Branches of a GPU on a CPU, for tests of what the host would wait for."""

import pytest

from crack_md.models.force_field import ForceField
from crack_md.neighbors import candidates


def take_gpu_branches(model: ForceField, patch: pytest.MonkeyPatch) -> None:
    """Leave no slot out and sort on the device, as for tensors on a GPU."""
    edges_of = model.network.edges
    patch.setattr(
        model.network, "edges", lambda graph, **_: edges_of(graph, compact=False)
    )
    patch.setattr(candidates, "_sorted_rows", lambda keys: keys.sort(dim=1).values)
