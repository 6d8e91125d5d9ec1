"""Serve a new project with the installed wheel, in an environment with nothing else."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from readme import serve

import django_wspbus

SETTINGS = """
INSTALLED_APPS.append("django_wspbus")
WSPBUS = {
    "SERVERS": {
        "default": {"BIND": "127.0.0.1:0", "OPTIONS": {"workers": 2}},
        "threaded": {"BACKEND": "django_wspbus.servers.threaded.ThreadedServer", "BIND": "127.0.0.1:0"},
    },
}
"""


def main() -> int:
    print(django_wspbus.__version__, django_wspbus.__file__)
    if Path(__file__).resolve().parent.parent in Path(django_wspbus.__file__).resolve().parents:
        raise SystemExit("django_wspbus was imported from the checkout, not from the installed wheel.")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", folder], check=True)
        with open(f"{folder}/mysite/settings.py", "a") as settings:
            settings.write(SETTINGS)
        manage = f"{sys.executable} {folder}/manage.py runbus"
        subprocess.run([*manage.split(), "--check"], check=True)
        return serve(manage, "/", timeout=60) != 2


if __name__ == "__main__":
    sys.exit(main())
