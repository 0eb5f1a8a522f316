"""Whole loops with EMT: resumed after any kill, repeatable, and true to the splits."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

from crack_md.calculators import CrackCalculator
from crack_md.calculators.crack import node_features
from crack_md.data.dataset import read_dataset
from crack_md.data.readers import read_structures
from crack_md.data.splits import is_held_out
from crack_md.data.writer import RowWriter
from crack_md.errors import ConfigError, DataError
from crack_md.models.checkpoint import load_model
from crack_md.models.teachers import load_teacher
from crack_md.training.loop.run import RunFolder
from crack_md.training.on_policy import explore, student
from crack_md.training.on_policy.folder import LoopFolder, RoundFolder
from crack_md.training.on_policy.rounds import printed, rows_of, run_loop
from crack_md.training.on_policy.starts import QUARANTINE
from tests.training.on_policy.loops import (
    HELD_OUT,
    cell,
    loop_config,
    positions_of,
    without_seconds,
)


class KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """Return the configuration of a loop that has ended."""
    config = loop_config(data, tmp_path_factory.mktemp("whole"))
    assert run_loop(config, quiet=True) is None
    return config


def table_of(config):
    return without_seconds(rows_of(LoopFolder(config.folder), config.rounds))


def weights_of(config):
    return load_model(config.folder / "student.pt").network.state_dict()


def test_a_round_gains_frames_for_the_next(whole):
    first, last = table_of(whole)

    assert (first["n_starts"], first["n_selected"], first["n_random"]) == (3, 5, 2)
    assert first["n_labelled"] + first["n_dropped"] == 5
    assert last["n_new"] == first["n_labelled"]
    assert last["n_train"] == first["n_train"] + first["n_labelled"]
    assert last["n_repeats"] == 2
    assert first["own_force_mae_meV_per_A"] > 0
    assert last["val_force_mae_meV_per_A"] > 0
    assert last["held_out_force_mae_meV_per_A"] > 0
    assert last["n_frames"] is None  # check_last is off
    model = load_model(whole.folder / "student.pt")
    assert set(model.metadata.feature_statistics.elements) == {29, 46, 47}


def test_labels_are_the_teachers(whole):
    labelled = read_dataset(whole.folder / "round-0" / "labelled.aselmdb").structures

    fresh = load_teacher("emt").predict([one.atoms for one in labelled])
    for one, label in zip(labelled, fresh, strict=True):
        assert one.energy == pytest.approx(label.energy, abs=1e-9)
        assert one.kind in ("relaxed", "thermal")


def test_own_errors_are_those_before_training(whole):
    here = LoopFolder(whole.folder).round(0)
    frames = read_dataset(here.labelled).structures
    model = load_model(here.student)

    found = here.record("label")["own"]["all"]["force_mae_meV_per_A"]

    assert found == student.errors_on(model, frames)["force_mae_meV_per_A"]


def test_the_later_student_starts_from_the_one_before(whole, data):
    recipe = student.training_config(
        whole, LoopFolder(whole.folder), number=1, member=0, replay=[]
    )

    assert recipe.student.init_from == whole.folder / "round-0/seed-0/student.pt"
    assert recipe.optimizer.lr == pytest.approx(0.3 * 5e-3)
    assert (recipe.run.max_steps, recipe.run.max_seconds) == (4, None)
    assert recipe.data.path == data


def test_killed_after_every_event_it_ends_up_the_same(
    whole, data, tmp_path, monkeypatch
):
    config = loop_config(data, tmp_path)
    killed = set()

    def kill_after(owner, name, key):
        original = getattr(owner, name)

        def first_time(*args, **options):
            result = original(*args, **options)
            event = (name, *map(str, key(*args)))
            if event not in killed:
                killed.add(event)
                raise KilledError
            return result

        monkeypatch.setattr(owner, name, first_time)

    kill_after(
        RunFolder, "save_checkpoint", lambda run, state: (run.path, state["step"])
    )
    kill_after(student, "train", lambda recipe: (recipe.run.folder,))
    kill_after(student, "save_model", lambda _, path: (path,))
    kill_after(RowWriter, "append", lambda rows, *_: (rows.path, rows.done))
    kill_after(RowWriter, "finish", lambda rows, _: (rows.path,))
    kill_after(explore, "_write_quarantine", lambda _, path: (path,))
    kill_after(RoundFolder, "write", lambda here, stage, _: (here.path, stage))
    starts = 1
    while True:
        try:
            run_loop(config, quiet=True)
            break
        except KilledError:
            starts += 1

    assert starts == len(killed) + 1
    assert Counter(event[0] for event in killed) == {
        "save_checkpoint": 3,  # after 4 and 8 steps, and after 4 in round 1
        "train": 2,
        "save_model": 2,
        "append": 5,  # starts, two groups explored, selected, labelled
        "finish": 4,
        "_write_quarantine": 1,
        "write": 5,
    }
    assert table_of(config) == table_of(whole)
    for name, weight in weights_of(whole).items():
        torch.testing.assert_close(weights_of(config)[name], weight, rtol=0, atol=0)
    for name in ("starts", "explored", "selected", "labelled"):
        one, two = (
            positions_of(
                list(read_structures(c.folder / "round-0" / f"{name}.aselmdb"))
            )
            for c in (config, whole)
        )
        for first, second in zip(one, two, strict=True):
            np.testing.assert_array_equal(first, second)


def test_what_tests_the_student_never_trains_it(data, tmp_path):
    config = loop_config(data, tmp_path)
    known = {one.group: one.split for one in read_dataset(data).structures}
    validating = next(group for group, split in known.items() if split == "val")
    pair = cell(2)
    assert is_held_out(pair, HELD_OUT)
    nickel = cell(0, group="with-nickel")
    nickel.symbols[0] = "Ni"
    # groups that the rule of the set sends to validation are left alone as well
    others = [cell(number) for number in range(18, 40)]
    write(
        config.starts.path,
        [pair, cell(0, group=validating), nickel, *others],
        append=False,
    )
    said = []

    run_loop(config.model_copy(update={"rounds": 1}), quiet=True, say=said.append)

    labelled = read_dataset(config.folder / "round-0" / "labelled.aselmdb")
    starts = list(read_structures(config.folder / "round-0" / "starts.aselmdb"))
    for atoms in [*starts, *(one.atoms for one in labelled.structures)]:
        assert not is_held_out(atoms, HELD_OUT)
    assert {one.split for one in labelled.structures} == {"train"}
    assert {one.group for one in labelled.structures} <= {
        atoms.info["group"] for atoms in starts
    }
    text = "\n".join(said)
    n_pairs = sum(is_held_out(atoms, HELD_OUT) for atoms in [pair, *others])
    assert f"passed over {n_pairs} structures of held-out pairs" in text
    assert "structures of groups that validate or test" in text
    assert "passed over 1 structures with elements unknown to the student" in text


def test_diverged_frames_go_to_a_file_of_their_own(data, tmp_path):
    config = loop_config(
        data,
        tmp_path,
        limits={"closest": 0.93},  # of 2.64 Å: neighbors of the rattled cells
        rounds=0,
        check_last=True,
    )

    run_loop(config, quiet=True)

    here = LoopFolder(config.folder).round(0)
    record = here.record("explore")
    aside = read(here.quarantine, index=":")
    assert len(aside) == record["n_quarantined"] == record["quarantined"]["contact"] > 0
    assert all(atoms.info[QUARANTINE].startswith("contact: ") for atoms in aside)
    assert not here.selected.exists()
    assert "quarantined contact" in printed(rows_of(LoopFolder(config.folder), 0))


@pytest.mark.filterwarnings("ignore:.*do not trust the energy")
def test_a_committee_is_asked_where_there_is_one(data, tmp_path):
    config = loop_config(
        data,
        tmp_path,
        train={"steps": 4, "later_steps": 2, "committee": 2},
        rounds=0,
        check_last=True,
    )
    run_loop(config, quiet=True)

    folder = config.folder / "round-0"
    one, two = (
        CrackCalculator(folder / name, device="cpu")
        for name in ("student.pt", "seed-1/student.pt")
    )
    for frame in list(read_structures(folder / "explored.aselmdb"))[:3]:
        apart = one.get_property("forces", frame) - two.get_property("forces", frame)
        spread = np.linalg.norm(apart, axis=1).max() / np.sqrt(2)
        assert frame.info["disagreement"] == pytest.approx(spread, rel=1e-4)


def test_a_single_student_is_measured_by_its_domain(whole):
    here = LoopFolder(whole.folder).round(0)
    model = load_model(here.student)

    for frame in list(read_structures(here.explored))[:4]:
        features = node_features(model, frame)
        statistics = model.metadata.feature_statistics
        farthest = statistics.distance(features, frame.numbers).max()
        assert frame.info["disagreement"] == pytest.approx(farthest, rel=1e-4)


def test_a_folder_holds_one_loop(whole, data):
    changed = whole.model_copy(update={"seed": 7})
    with pytest.raises(ConfigError, match="other settings of seed"):
        run_loop(changed, quiet=True)
    with (
        LoopFolder(whole.folder).claimed(whole),
        pytest.raises(DataError, match="another run is writing"),
    ):
        run_loop(whole, quiet=True)


def test_more_rounds_can_follow(whole, data, tmp_path):
    config = loop_config(data, tmp_path, rounds=0)
    run_loop(config, quiet=True)

    run_loop(config.model_copy(update={"rounds": 1}), quiet=True)

    assert table_of(config.model_copy(update={"rounds": 1})) == table_of(whole)


def test_a_student_that_was_trained_before_explores_first(whole, data, tmp_path):
    train = {"steps": 8, "later_steps": 4}
    before = whole.folder / "round-0/seed-0/student.pt"
    config = loop_config(data, tmp_path, train={**train, "first": [str(before)]})

    run_loop(config, quiet=True)

    first, last = table_of(config)
    assert first == table_of(whole)[0] | {"steps": 0}
    assert last == table_of(whole)[1]
    with pytest.raises(ValueError, match="first names 1 students; expected 2"):
        loop_config(
            data, tmp_path, train={**train, "first": [str(before)], "committee": 2}
        )


def test_a_set_that_does_not_say_how_it_was_split_is_refused(tmp_path):
    from tests.training.factories import labelled, write_dataset

    data = write_dataset(tmp_path / "a.aselmdb", [labelled(n) for n in range(8)])
    with pytest.raises(DataError, match="give hold_out in the loop"):
        run_loop(loop_config(data, tmp_path), quiet=True)


def test_tables_fit_a_terminal(whole):
    rows = rows_of(LoopFolder(whole.folder), whole.rounds)

    text = printed(rows)

    assert max(map(len, text.splitlines())) <= 80
    assert json.loads((whole.folder / "table.json").read_text()) == rows
    lines = (whole.folder / "table.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("round,n_train,")


def test_atoms_are_not_lost(whole):
    frames: list[Atoms] = list(
        read_structures(whole.folder / "round-0" / "explored.aselmdb")
    )
    # of each of three starts: two frames of dynamics, and at least two relaxed ones
    kinds = [(frame.info["start"], frame.info["kind"]) for frame in frames]
    for number in range(3):
        assert kinds.count((number, "thermal")) == 2
        assert kinds.count((number, "relaxed")) >= 2
