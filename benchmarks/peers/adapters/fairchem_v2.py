"""UMA-S with random weights in fairchem-core 2.24, in the settings it has for a CPU.

The network is that of UMA-S 1.2 as fairchem's training recipe has it, built by
fairchem's own code: 64 experts, merged into one before the first call, and compiled.
The faster mode of fairchem-core accepts published weights on a GPU alone.
"""

import os
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is to be downloaded

import numpy as np
import peer
import torch
from ase import Atoms
from fairchem.core.calculate.ase_calculator import FAIRChemCalculator
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.units.mlip_unit import MLIPPredictUnit
from fairchem.core.units.mlip_unit.api.inference import (
    NAME_TO_INFERENCE_SETTING,
    MLIPInferenceCheckpoint,
)
from hydra.utils import instantiate

UMA = "fairchem.core.models.uma"
NORMALIZER = "fairchem.core.modules.normalization.normalizer.Normalizer"
TASK = "oc20"
DATASETS = {name: name for name in ("oc20", "oc22", "oc25", "odac", "omat", "omc")}
UMA_S: dict[str, Any] = {
    "model": f"{UMA}.escn_moe.eSCNMDMoeBackbone",
    "num_experts": 64,
    "moe_layer_type": "pytorch",
    "use_composition_embedding": True,
    "max_num_elements": 100,
    "sphere_channels": 128,
    "lmax": 2,
    "mmax": 2,
    "otf_graph": True,
    "max_neighbors": 300,
    "use_pbc": True,
    "use_pbc_single": True,
    "cutoff": 6.0,
    "edge_channels": 128,
    "distance_function": "gaussian",
    "num_distance_basis": 32,
    "regress_forces": True,
    "regress_stress": True,
    "direct_forces": False,
    "num_layers": 4,
    "hidden_channels": 128,
    "norm_type": "rms_norm_sh",
    "act_type": "gate",
    "ff_type": "spectral",
    "chg_spin_emb_type": "rand_emb",
    "cs_emb_grad": True,
    "dataset_mapping": DATASETS,
    "dataset_emb_grad": True,
    "charge_balanced_channels": [0, 1, 2],
}


def start(threads: int) -> None:
    """Set the number of threads; the libraries are imported by now."""
    torch.set_num_threads(threads)


def load(options: dict[str, Any]) -> peer.Peer:
    """Return the model on ``device``, with ``settings`` by their name in fairchem.

    ``backbone`` changes the network, for tests.
    """
    settings = NAME_TO_INFERENCE_SETTING[options.get("settings", "multigpu")]
    folder = TemporaryDirectory()
    path = Path(folder.name) / "random.pt"
    n_weights = write_checkpoint(path, UMA_S | options.get("backbone", {}))
    unit = MLIPPredictUnit(
        str(path), device=options["device"], inference_settings=settings
    )
    return Uma(unit, options["device"], n_weights, folder)


def write_checkpoint(path: Path, backbone: dict[str, Any]) -> int:
    """Write a model with random weights, and return how many it has."""
    torch.manual_seed(0)
    model = {
        "_target_": "fairchem.core.models.base.HydraModel",
        "model_id": "UMA-S-1.2.1",
        "pass_through_head_outputs": True,
        "backbone": backbone,
        "heads": {
            "energyandforcehead": {
                "module": f"{UMA}.escn_moe.DatasetSpecificMoEWrapper",
                "head_cls": f"{UMA}.escn_md.MLP_EFS_Head",
                "head_kwargs": {"wrap_property": False},
                "dataset_mapping": backbone["dataset_mapping"],
            }
        },
    }
    network = torch.optim.swa_utils.AveragedModel(instantiate(model))
    weights = network.state_dict()
    tasks = [task(name) for name in ("energy", "forces")]
    torch.save(MLIPInferenceCheckpoint(model, {}, weights, tasks), path)
    return sum(weight.numel() for weight in network.parameters())


def task(target: str) -> dict[str, Any]:
    """Return what fairchem has to know of an output."""
    return {
        "_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task",
        "name": f"{TASK}_{target}",
        "level": "system" if target == "energy" else "atom",
        "property": target,
        "loss_fn": {
            "_target_": "fairchem.core.modules.loss.DDPMTLoss",
            "loss_fn": {"_target_": "fairchem.core.modules.loss.MAELoss"},
        },
        "out_spec": {"dim": [1 if target == "energy" else 3], "dtype": "float32"},
        "normalizer": {"_target_": NORMALIZER, "mean": 0.0, "rmsd": 1.342},
        "datasets": [TASK],
        "metrics": ["mae"],
    }


class Uma(peer.TorchPeer):
    """The calculator of fairchem, and its predictor for batches.

    Args:
        unit: The model.
        device: Where it runs.
        n_weights: How many it has.
        folder: Of its file, which is read again for every composition: experts are
            merged for one.
    """

    def __init__(
        self,
        unit: MLIPPredictUnit,
        device: str,
        n_weights: int,
        folder: TemporaryDirectory[str],
    ) -> None:
        super().__init__(device)
        self._folder = folder
        self._calculator = FAIRChemCalculator(unit, task_name=TASK)
        self.about = {
            "weights": n_weights,
            "versions": {n: version(n) for n in ("fairchem-core", "torch")},
        }

    def calculator(self) -> FAIRChemCalculator:
        """Return the calculator of the package."""
        return self._calculator

    def evaluate(self, structures: list[Atoms]) -> peer.Answer:
        """Return energies and forces of structures in one pass."""
        data = [
            AtomicData.from_ase(one, task_name=TASK, r_data_keys=["spin", "charge"])
            for one in map(_charged, structures)
        ]
        answer = self._calculator.predictor.predict(atomicdata_list_to_batch(data))
        forces = answer["forces"].detach().cpu().numpy()
        ends = np.cumsum([len(one) for one in structures])[:-1]
        energies = answer["energy"].detach().cpu().flatten().tolist()
        return energies, np.split(forces, ends)


def _charged(atoms: Atoms) -> Atoms:
    atoms.info.setdefault("charge", 0)
    atoms.info.setdefault("spin", 0)
    return atoms
