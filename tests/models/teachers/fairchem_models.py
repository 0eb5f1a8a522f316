"""Tiny random models of fairchem-core v2, built and saved by its own code."""

import copy
from pathlib import Path
from typing import Any

import torch

UMA = "fairchem.core.models.uma"
NORMALIZATION = "fairchem.core.modules.normalization"
UNKNOWN = 46
"""An element without reference energy, as if no training frame had it."""
N_ELEMENTS = 100
SCALE = 1.5
"""eV, the unit of the energies and eV/Å of the forces that the networks predict."""


def references(shift: float = 0.0) -> list[float]:
    """Return eV by atomic number."""
    energies = [-0.1 * number + shift for number in range(N_ELEMENTS)]
    energies[0] = energies[UNKNOWN] = 0.0
    return energies


def backbone(datasets: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    """Return the settings of a network of eSEN with some thousand parameters."""
    return {
        "model": f"{UMA}.escn_md.eSCNMDBackbone",
        "max_num_elements": N_ELEMENTS,
        "sphere_channels": 8,
        "lmax": 2,
        "mmax": 2,
        "otf_graph": True,
        "max_neighbors": 300,
        "cutoff": 4.0,
        "edge_channels": 8,
        "num_distance_basis": 8,
        "regress_forces": True,
        "regress_stress": False,
        "direct_forces": False,
        "num_layers": 2,
        "hidden_channels": 8,
        "norm_type": "rms_norm_sh",
        "act_type": "gate",
        "ff_type": "spectral",
        "chg_spin_emb_type": "rand_emb",
        "cs_emb_grad": True,
        "dataset_mapping": {name: name for name in datasets},
        "dataset_emb_grad": True,
    } | changes


def tasks(datasets: tuple[str, ...], *properties: str) -> list[dict[str, Any]]:
    """Return what the outputs of a model are, with references of their own."""
    return [
        {
            "_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task",
            "name": f"{dataset}_{target}",
            "level": "system" if target == "energy" else "atom",
            "property": target,
            "loss_fn": {
                "_target_": "fairchem.core.modules.loss.DDPMTLoss",
                "loss_fn": {"_target_": "fairchem.core.modules.loss.MAELoss"},
            },
            "out_spec": {"dim": [1 if target == "energy" else 3], "dtype": "float32"},
            "normalizer": {
                "_target_": f"{NORMALIZATION}.normalizer.Normalizer",
                "mean": 0.25 if target == "energy" else 0.0,
                "rmsd": SCALE,
            },
            "datasets": [dataset],
            "metrics": ["mae"],
        }
        | (
            {
                "element_references": {
                    "_target_": f"{NORMALIZATION}.element_references.ElementReferences",
                    "element_references": {
                        "_target_": "torch.DoubleTensor",
                        "_args_": [references(float(number))],
                    },
                }
            }
            if target == "energy"
            else {}
        )
        for number, dataset in enumerate(datasets)
        for target in properties
    ]


def esen(**changes: Any) -> dict[str, Any]:
    """Return a model of one task whose forces are a gradient."""
    head = {"module": f"{UMA}.escn_md.MLP_EFS_Head", "prefix": "oc20"}
    return hydra(backbone(("oc20",), **changes), {"efs": head})


def esen_direct() -> dict[str, Any]:
    """Return a model of one task with a head of its own for forces."""
    heads = {
        "oc20_energy": {"module": f"{UMA}.escn_md.MLP_Energy_Head"},
        "oc20_forces": {"module": f"{UMA}.escn_md.Linear_Force_Head"},
    }
    model = hydra(backbone(("oc20",), direct_forces=True), heads)
    return model | {"pass_through_head_outputs": False}


def uma(datasets: tuple[str, ...]) -> dict[str, Any]:
    """Return a mixture of linear experts, routed by composition and task."""
    network = backbone(
        datasets,
        model=f"{UMA}.escn_moe.eSCNMDMoeBackbone",
        num_experts=4,
        moe_layer_type="pytorch",
        use_composition_embedding=True,
    )
    head = {
        "module": f"{UMA}.escn_moe.DatasetSpecificMoEWrapper",
        "head_cls": f"{UMA}.escn_md.MLP_EFS_Head",
        "head_kwargs": {"wrap_property": False},
        "dataset_mapping": {name: name for name in datasets},
    }
    return hydra(network, {"energyandforcehead": head}) | {"model_id": "UMA-S-1.2.1"}


def hydra(network: dict[str, Any], heads: dict[str, Any]) -> dict[str, Any]:
    return {
        "_target_": "fairchem.core.models.base.HydraModel",
        "backbone": network,
        "heads": heads,
        "pass_through_head_outputs": True,
    }


def averaged(model: dict[str, Any], *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return seeded weights, large enough to matter, as fairchem averages them."""
    from hydra.utils import instantiate

    torch.manual_seed(seed)
    network = torch.optim.swa_utils.AveragedModel(instantiate(copy.deepcopy(model)))
    for name, weight in network.named_parameters():
        if "output_heads" in name or "edge_degree" in name:
            weight.data *= 3
    return network.state_dict()


def save(
    path: Path, model: dict[str, Any], task_list: list[dict[str, Any]], **parts: Any
) -> Path:
    """Save a model as fairchem's inference checkpoint."""
    from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint

    weights = parts.pop("ema_state_dict", None) or averaged(model)
    torch.save(MLIPInferenceCheckpoint(model, {}, weights, task_list), path)
    return path
