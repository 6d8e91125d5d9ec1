"""When a child collects garbage."""

from __future__ import annotations

import gc

import pytest

from django_wspbus.successor.order import collect_garbage

from ..projects import GUNICORN, MANAGE


@pytest.fixture
def threshold():
    """The threshold of this process, which is restored at the end."""
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_a_child_collects_garbage_again_once_it_has_its_order(threshold):
    gc.set_threshold(0)
    collect_garbage(list(threshold))
    assert gc.get_threshold() == threshold


def test_a_threshold_that_the_project_has_set_meanwhile_stays(threshold):
    gc.set_threshold(5000, 20, 20)
    collect_garbage(list(threshold))
    assert gc.get_threshold() == (5000, 20, 20)


def test_the_modules_of_a_child_are_imported_without_collections_and_its_workers_collect(project):
    project.write(
        "manage.py", "import gc, os\nos.environ['AT_FIRST'] = str(gc.get_threshold()[0])\n" + MANAGE
    )
    project.listeners(
        "import gc, os\n"
        "bus.subscribe('start', lambda: note(f\"{os.environ['AT_FIRST']} then {gc.get_threshold()[0]}\"))\n"
    )
    project.serves(GUNICORN)
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 0
    usual = gc.get_threshold()[0]
    assert {note.event for note in project.notes()} == {f"0 then {usual}"}
