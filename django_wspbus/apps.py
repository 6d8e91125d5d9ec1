from __future__ import annotations

from django.apps import AppConfig
from django.core import checks as django_checks


class WSPBusConfig(AppConfig):
    name = "django_wspbus"
    verbose_name = "Web Site Process Bus"

    def ready(self) -> None:
        from . import checks

        django_checks.register(checks.check_shapes)
        django_checks.register(checks.check_deployment, deploy=True)
