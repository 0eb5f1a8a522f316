"""Errors on labelled frames of element sets that were held out of training."""

from benchmarks.targets.record import Check, Details, Subjects
from crack_md.data import read_dataset
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.training.build import build_frames
from crack_md.training.evaluate import evaluate, known_frames

FORCE_TARGET, ENERGY_TARGET = 32.0, 4.0


def compare_held_out_frames(subjects: Subjects) -> tuple[list[Check], Details]:
    """Compare energies and forces with the labels of the test split."""
    if not subjects.data.exists():
        raise ConfigError(
            f"no dataset {subjects.data}: name it with --data, or make it with the "
            "recipes in configs/"
        )
    model = load_model(subjects.model)
    frames = known_frames(model, read_dataset(subjects.data).select("test"))
    found = evaluate(model, build_frames(frames, model), against="teacher")
    values = found.all.as_dict()
    n, unit = values["n_frames"], "meV/Å"
    force, energy = values["force_mae_meV_per_A"], values["energy_mae_meV_per_atom"]
    return [
        Check("forces, held-out sets, MAE", force, unit, FORCE_TARGET, n=n),
        Check("energies, held-out sets, MAE", energy, "meV/atom", ENERGY_TARGET, n=n),
    ], found.as_dict()
