from __future__ import annotations

import sys

from django.apps import AppConfig
from django.core import checks as django_checks

if sys.platform == "win32":  # before an import fails with an error that does not name the reason
    sys.exit("django-wspbus does not run on Windows: use Linux, as in WSL 2, or macOS for development.")

from .successor import start  # noqa: F401  # reads how the process was started, before any app changes that


class WSPBusConfig(AppConfig):
    name = "django_wspbus"
    verbose_name = "Web Site Process Bus"

    def ready(self) -> None:
        from .fleet.guest import Guest
        from .process.alone import OwnProcess
        from .process.bus import bus
        from .site import checks

        django_checks.register(checks.check_settings)
        django_checks.register(checks.check_deployment, deploy=True)
        if isinstance(bus.fleet, OwnProcess):  # else the process belongs to a site already
            bus.fleet = Guest(bus)
