"""Errors on labelled frames of element sets that were held out of training."""

from benchmarks.targets.record import Check, Details, Subjects
from crack_md.data import read_dataset
from crack_md.errors import ConfigError
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField
from crack_md.training.config import DataConfig
from crack_md.training.data.source import usable
from crack_md.training.evaluation import evaluate, known_frames
from crack_md.training.loop.build import build_frames

FORCE_TARGET, ENERGY_TARGET = 32.0, 4.0


def compare_held_out_frames(subjects: Subjects) -> tuple[list[Check], Details]:
    """Compare energies and forces with the labels of the test split."""
    if not subjects.data.exists():
        raise ConfigError(
            f"no dataset {subjects.data}: name it with --data, or make it with the "
            "recipes in configs/"
        )
    model = load_model(subjects.model)
    chosen = usable(read_dataset(subjects.data).select("test"), _limits_of(model))
    frames = known_frames(model, chosen)
    found = evaluate(model, build_frames(frames, model), against="teacher")
    values = found.all.as_dict()
    n, unit = values["n_frames"], "meV/Å"
    force, energy = values["force_mae_meV_per_A"], values["energy_mae_meV_per_atom"]
    return [
        Check("forces, held-out sets, MAE", force, unit, FORCE_TARGET, n=n),
        Check("energies, held-out sets, MAE", energy, "meV/atom", ENERGY_TARGET, n=n),
        Check("zero forces on the same", values["zero_force_baseline_meV_per_A"], unit),
    ], found.as_dict()


def _limits_of(model: ForceField) -> DataConfig:
    """Return which frames the recipe of a student used: others it cannot know.

    Where atoms are pressed together, labels and the repulsion of the student differ by
    hundreds of eV/Å, and neither is right.
    """
    recipe = dict(model.metadata.provenance.get("config", {})).get("data", {})
    kept = {key: recipe.get(key) for key in ("nearest", "largest_force")}
    return DataConfig.model_validate({"path": "-", **kept})
