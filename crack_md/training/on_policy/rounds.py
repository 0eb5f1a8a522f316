"""The loop: train, explore, select, label, and again; resumable after any kill.

Every stage leaves its numbers in a file when it is done, and is skipped where that file
is there. What lies between is resumed by whoever does it: the trainer by its
checkpoint, exploration and labelling by the rows that are written.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from crack_md.data.dataset import read_dataset
from crack_md.errors import DataError
from crack_md.models.teachers import load_teacher
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.context import Loop, count
from crack_md.training.on_policy.exploring import explore_round
from crack_md.training.on_policy.folder import LoopFolder
from crack_md.training.on_policy.labelling import label_round, select_round
from crack_md.training.on_policy.starts import split_rule
from crack_md.training.on_policy.student import train_round, training_config
from crack_md.training.on_policy.table import write_table
from crack_md.training.run import replacing


def run_loop(
    config: LoopConfig,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> str | None:
    """Do all rounds, or what is left of them.

    Args:
        config: The loop.
        quiet: The trainer prints nothing.
        say: Called with a line about every stage.

    Returns:
        The signal that stopped it early, None at the end.

    Raises:
        ConfigError: The folder holds another loop, or the recipe does not work.
        DataError: The folder or the data cannot be used.
    """
    folder = LoopFolder(config.folder)
    with folder.claimed(config):
        read = lru_cache(maxsize=None)(read_dataset)
        rule = split_rule(config, read(config.data))
        loop = Loop(config, folder, rule, read, say, quiet)
        _check(loop)
        for number in range(config.rounds + 1):
            stopped_by = _do_round(loop, number)
            write_table(folder, config.rounds)
            if stopped_by is not None:
                return stopped_by
        with replacing(folder.path / "student.pt") as temporary:
            temporary.write_bytes(folder.round(config.rounds).student.read_bytes())
    return None


def _check(loop: Loop) -> None:
    """Find out before hours of training what would stop the loop after them.

    Raises:
        ConfigError: The recipe of the student does not work.
        DataError: There is nothing to start from.
        TeacherError: There is no such teacher.
    """
    config, rounds = loop.config, range(loop.config.rounds)
    training_config(config, loop.folder, number=0, member=0, replay=())
    if not config.starts.path.exists():
        raise DataError(f"starts.path: no such file or folder: {config.starts.path}")
    if any(loop.folder.round(number).record("label") is None for number in rounds):
        load_teacher(config.teacher)


def _do_round(loop: Loop, number: int) -> str | None:
    """Do what is left of a round; return the signal that stopped its training."""
    config, here = loop.config, loop.folder.round(number)
    is_last = number == config.rounds
    if here.record("train") is None:
        loop.say(f"round {number}: training")
        stopped_by = train_round(loop, number, replay=_replay(loop, number))
        if stopped_by is not None:
            return stopped_by
        write_table(loop.folder, config.rounds)
    if not is_last or config.check_last:
        explore_round(loop, number)
    if not is_last:
        select_round(loop, number)
        label_round(loop, number)
    return None


def _replay(loop: Loop, number: int) -> list[tuple[Path, int]]:
    """Return the labelled sets of the rounds before, and how often they count."""
    rounds = [loop.folder.round(earlier) for earlier in range(number)]
    sets = [one.labelled for one in rounds if count(one.labelled)]
    n_old = len(loop.base.select("train") or loop.base.structures)
    n_new = sum(count(path) for path in sets)
    repeats = loop.config.mix.repeats_of(n_old, n_new)
    return [(path, repeats) for path in sets]
