"""A process of the launcher."""

from types import SimpleNamespace

from django_wspbus.launcher.child import Child
from tests.processes import DEADLINE


def test_a_site_is_as_old_as_it_is_whatever_the_wall_clock_says():
    child = Child("site", SimpleNamespace(), SimpleNamespace(), began=0)
    assert 0 <= child.age < DEADLINE
    child.born -= 2 * DEADLINE
    assert child.age > DEADLINE
    child.become_site()
    assert child.age < DEADLINE
