from __future__ import annotations

import os
import sys

from .processes import run

# The platform is named as the last thing: the standard library goes by it, too.
ON_WINDOWS = """
import os
import sys
import sysconfig

import django.core.management

sysconfig.get_config_vars()
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
sys.platform = "win32"
django.core.management.execute_from_command_line(["manage.py", "runbus"])
"""


def test_on_windows_the_command_says_in_one_sentence_that_it_does_not_run_there(project):
    project.write("windows.py", ON_WINDOWS)
    ended = run([sys.executable, "windows.py"], env=os.environ | project.environment, cwd=project.root)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("django-wspbus does not run on Windows: use Linux")
