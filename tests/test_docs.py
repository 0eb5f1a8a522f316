"""Every example of the documentation runs, and every command in it exists."""

import ast
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer import BadParameter
from typer.core import TyperGroup
from typer.main import get_command

from crack_md.cli import app
from crack_md.models.registry import model_names
from crack_md.training.config import check_config

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
TOOLS = "docs/tools.md"
"""Its examples need packages of their own."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block of a document."""

    document: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start(2)) + 1
            name = str(path.relative_to(ROOT))
            found.append(Block(name, line, match[1], match[2]))
    return [block for block in found if block.language in languages]


def command_lines() -> list[tuple[str, str]]:
    """Return (place, command line) of every ``crack-md`` that a reader may type.

    Mentions in a sentence end with an ellipsis: they may leave arguments out.
    """
    typed = re.compile(
        r"^(?: {4}|#     )(crack-md .+)|`(crack-md [^`]+)`", re.MULTILINE
    )
    lines = []
    for path in [*DOCUMENTS, *ROOT.glob("configs/*.yaml")]:
        text = re.sub(r"\\\n#?", " ", path.read_text(encoding="utf-8"))
        name = str(path.relative_to(ROOT))
        lines += [
            (name, match[1] or match[2] + " ...") for match in typed.finditer(text)
        ]
    for block in blocks("sh"):
        commands = block.code.replace("\\\n", " ").splitlines()
        lines += [(str(block), c) for c in commands if c.startswith("crack-md ")]
    for path in ROOT.glob("examples/slurm/*.sh"):
        text = re.sub(r'"?\$\w+"?', "1", path.read_text().replace("\\\n", " "))
        commands = re.findall(r"^(?:srun )?(crack-md .+)", text, re.MULTILINE)
        lines += [(path.name, command) for command in commands]
    return sorted(set(lines))


def test_documents_have_something_to_test():
    assert blocks("python")
    assert len(command_lines()) > 5


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_example_runs(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if "CrackCalculator()" in block.code and not model_names():
        pytest.skip("this tree has no packaged student")
    if block.document == TOOLS:
        _skip_without_tools(block.code)
    monkeypatch.chdir(tmp_path)
    padding = "\n" * (block.line - 1)  # tracebacks then name the document's line
    code = compile(padding + block.code, str(ROOT / block.document), "exec")
    exec(code, {"__name__": "__main__"})


def _skip_without_tools(code: str) -> None:
    for statement in ast.walk(ast.parse(code)):
        if isinstance(statement, ast.ImportFrom) and statement.module is not None:
            package = statement.module.partition(".")[0]
            if find_spec(package) is None:
                pytest.skip(f"needs {package} (make engines)")


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_example_is_a_part_of_a_recipe(block: Block):
    recipe = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    check_config({**recipe, **yaml.safe_load(block.code)}, source=str(block))


@pytest.mark.parametrize(("place", "line"), command_lines())
def test_command_line_is_accepted(place: str, line: str):
    _, name, *arguments = shlex.split(line.removesuffix(" ..."), comments=True)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    command = group if name.startswith("--") else group.commands[name]
    if line.endswith(" ..."):
        known = {option for one in command.params for option in one.opts}
        known |= {option for one in command.params for option in one.secondary_opts}
        assert {word for word in (name, *arguments) if word.startswith("--")} <= known
    elif command is not group:
        # parsing alone: nothing runs, and files need not exist
        command.make_context(name, arguments)


def test_mentions_in_sentences_are_held_to_their_options():
    test_command_line_is_accepted("a page", "crack-md md --audit ...")
    with pytest.raises(AssertionError):
        test_command_line_is_accepted("a page", "crack-md md --no-such ...")
    with pytest.raises(BadParameter):
        test_command_line_is_accepted("a page", "crack-md md --audit")
