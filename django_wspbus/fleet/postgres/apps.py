from __future__ import annotations

from django.apps import AppConfig


class FleetPostgresConfig(AppConfig):
    name = "django_wspbus.fleet.postgres"
    label = "wspbus_fleet"
    verbose_name = "Fleet of sites"
    default_auto_field = "django.db.models.BigAutoField"
