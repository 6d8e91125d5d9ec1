"""README.md shows the code that the testproject and CI run."""

import re
import textwrap
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.readme import COMMANDS

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^( *)```python\n(.*?)^\1```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [textwrap.dedent(text) for _, text in BLOCKS]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0])
def test_each_block_of_code_is_part_of_the_file_that_it_names(block):
    name, _, code = block.partition("\n")
    file = ROOT / name.removeprefix("# ")

    assert code.strip("\n") in file.read_text()


def test_there_are_blocks_of_code_and_two_commands_of_one_line_each():
    assert len(PYTHON) == 4
    assert README.count("```sh\n") == len(COMMANDS) == 2
    assert COMMANDS["serve"].endswith("testproject/manage.py runbus")
    assert " pytest " in COMMANDS["test"]


def test_each_measured_figure_is_one_of_the_benchmarks():
    promises = README[README.index("| measured |") : README.index("## Try it")]
    figures = re.findall(r"\d+\.\d+", promises)
    benchmarks = set(re.findall(r"\d+\.\d+", (ROOT / "docs" / "benchmarks.md").read_text()))

    assert figures
    assert set(figures) <= benchmarks


def test_links_lead_to_files_of_this_tree():
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert links
    assert [link for link in links if not Path(ROOT, link).is_file()] == []
