"""What README.md says is what the testproject and CI run."""

import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.processes import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [textwrap.dedent(text) for _, language, text in BLOCKS if language == "python"]
COMMANDS = [text for _, language, text in BLOCKS if language == "sh"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0])
def test_each_block_of_code_is_part_of_the_file_that_it_names(block):
    name, _, code = block.partition("\n")
    file = ROOT / name.removeprefix("# ")

    assert code.strip("\n") in file.read_text()


def test_there_are_blocks_of_code_and_two_commands_of_one_line_each():
    assert len(PYTHON) == 4
    assert [command.count("\n") for command in COMMANDS] == [1, 1]


@pytest.mark.parametrize(("which", "index"), [("serve", 0), ("test", 1)])
def test_the_commands_are_those_that_ci_runs(which, index):
    told = subprocess.run(
        ["bash", ".ci/run", "command", which],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert told.stdout == COMMANDS[index]


def test_links_lead_to_files_of_this_tree():
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert links
    assert [link for link in links if not Path(ROOT, link).is_file()] == []
