"""The docs name everything that users can set or call, and their examples are right."""

from __future__ import annotations

import argparse
import pkgutil
import re

import pytest
from django.core.management.base import BaseCommand

import django_wspbus
from django_wspbus import conf
from django_wspbus.conf import findings as problems
from django_wspbus.conf.keys import keys_of
from django_wspbus.management.commands.runbus import Command
from django_wspbus.management.commands.wspbus import Command as WspbusCommand
from django_wspbus.servers.base import Server
from django_wspbus.wspbus import Bus, states
from django_wspbus.wspbus.messenger import BUILT_IN_CHANNELS, ROLES

from . import settings_page
from .processes import ROOT
from .test_architecture import FOLDERS

DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
ALL = "\n".join(DOCS.values())
PAGES = {"README.md": (ROOT / "README.md").read_text(), **DOCS}
BLOCKS = [
    pytest.param(code, id=f"{name}: {code.strip().splitlines()[0]}")
    for name, text in PAGES.items()
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]
LINKS = [
    pytest.param(name, *link, id=f"{name}: {''.join(link)}")
    for name, text in PAGES.items()
    for link in re.findall(r"\]\(([^)#:\s]*)(#[^)\s]*)?\)", text)
]


def options_of(command):
    parser = command.create_parser("manage.py", "runbus")
    return {option for action in parser._actions for option in action.option_strings}


def actions_of(command):
    """Return the parser of each action of a command."""
    parser = command.create_parser("manage.py", "wspbus")
    (actions,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return actions.choices


def code_spans(text):
    """Return the code of a page: words in backticks, and blocks."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`|^    [^\n]*$", text, re.MULTILINE | re.DOTALL))


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages_blocks_and_links():
    assert {"settings.md", "checks.md", "channels.md", "plugins.md", "servers.md"} <= set(DOCS)
    assert len(BLOCKS) >= 3
    assert len(LINKS) >= 3


KEYS = [key.name for key in keys_of(conf.Settings)]


SECTIONS = [
    conf.ServerSettings,
    conf.ProcessSettings,
    conf.PluginSettings,
    conf.Daemonize,
    conf.Autoreload,
    conf.FleetSettings,
]


@pytest.mark.parametrize("key", [*KEYS, *(key.name for section in SECTIONS for key in keys_of(section))])
def test_each_key_of_the_settings_is_documented(key):
    assert re.search(rf"\b{key}\b", code_spans(DOCS["settings.md"]))


def test_the_tables_of_the_settings_are_made_from_the_keys():
    page = DOCS["settings.md"]
    assert {match[2] for match in settings_page.PART.finditer(page)} == set(settings_page.PARTS)
    assert page == settings_page.write(page), "run: python -m tests.settings_page"


@pytest.mark.parametrize("number", problems.IDS)
def test_each_check_has_a_row_with_its_sentence(number):
    (row,) = [
        line for line in DOCS["checks.md"].splitlines() if line.startswith(f"| `django_wspbus.{number}`")
    ]
    assert row.split(" | ")[1] == problems.IDS[number]


def test_no_page_names_a_check_that_does_not_exist():
    named = re.findall(r"\b(?:django_wspbus\.)([EW]\d{3})\b", ALL)
    assert named
    assert set(named) <= set(problems.IDS)


@pytest.mark.parametrize("option", sorted(options_of(Command()) - options_of(BaseCommand())))
def test_each_option_of_the_command_is_documented(option):
    assert re.search(rf"{option}\b", code_spans(ALL))


@pytest.mark.parametrize(("name", "parser"), actions_of(WspbusCommand()).items())
def test_each_action_and_its_options_are_documented(name, parser):
    page = DOCS["commands.md"]
    assert re.search(rf"^\| `{name}\b", page, re.MULTILINE)
    for action in parser._actions:
        for option in action.option_strings or [str(action.metavar)]:
            is_of_django = option in ("-h", "--help") or action.help == argparse.SUPPRESS
            assert is_of_django or re.search(rf"{option}\b", code_spans(page)), option


@pytest.mark.parametrize("name", [*BUILT_IN_CHANNELS, *(state.name for state in states), *ROLES, "any"])
def test_each_channel_state_and_role_is_documented(name):
    assert re.search(rf"\b{name}\b", code_spans(DOCS["channels.md"]))


@pytest.mark.parametrize("name", django_wspbus.__all__)
def test_each_public_name_is_documented(name):
    assert re.search(rf"\b{name}\b", code_spans(ALL))


@pytest.mark.parametrize("code", BLOCKS)
def test_each_block_of_python_compiles(code):
    compile(code, "docs", "exec")


PATHS = sorted(
    {
        *re.findall(
            r"\bdjango_wspbus(?:\.[a-z]\w*)+(?:\.[A-Z]\w+)?\b", code_spans("\n".join(PAGES.values()))
        ),
        *(
            f"django_wspbus.{path}"
            for path in re.findall(r"^\| `((?:plugins|servers)\.[\w.]+)`", DOCS["plugins.md"], re.MULTILINE)
        ),
    }
)


@pytest.mark.parametrize("path", PATHS)
def test_each_dotted_path_of_the_package_leads_somewhere(path):
    assert pkgutil.resolve_name(path)


def test_the_table_of_what_a_server_has_names_attributes_that_it_has():
    table = re.search(r"^\| of `Server` .*?\n\n", DOCS["servers.md"], re.MULTILINE | re.DOTALL)[0]
    names = re.findall(r"`(?:self\.)?(\w+)(?:\([^)`]*\))?`", re.sub(r"(?m)^(\|[^|]*\|).*", r"\1", table))
    server = Server(Bus(), None, None, list)

    assert {"bound", "check_options", "title"} <= set(names)
    assert [name for name in names if name != "Server" and not hasattr(server, name)] == []


@pytest.mark.parametrize(("page", "target", "anchor"), LINKS)
def test_each_link_leads_somewhere(page, target, anchor):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    path = folder / (target or page)
    assert path.exists()
    if anchor:
        assert anchor in anchors(path.read_text())


def test_the_folders_are_documented_in_the_order_of_their_imports():
    assert re.findall(r"^\| `(\w+)/` \|", DOCS["contributing.md"], re.MULTILINE) == FOLDERS


def test_the_defaults_that_are_shown_are_those_in_force(settings):
    (shown,) = [block.values[0] for block in BLOCKS if '"READY_TIMEOUT":' in block.values[0]]
    names = {}
    exec(shown, names)
    settings.DEBUG = False
    del settings.WSPBUS
    defaults = conf.get()
    settings.WSPBUS = names["WSPBUS"]
    assert conf.get() == defaults
    assert set(names["WSPBUS"]) == set(KEYS)
