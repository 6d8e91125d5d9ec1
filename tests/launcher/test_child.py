"""A process of the launcher."""

from types import SimpleNamespace

from django_wspbus.launcher.child import Child
from tests.processes import DEADLINE


def test_the_age_of_a_site_does_not_depend_on_the_wall_clock():
    child = Child("site", SimpleNamespace(), SimpleNamespace(), began=0)
    assert 0 <= child.age < DEADLINE
    child.born -= 2 * DEADLINE
    assert child.age > DEADLINE
    child.become_site()
    assert child.age < DEADLINE
