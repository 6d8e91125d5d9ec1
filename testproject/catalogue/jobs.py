"""The work of one process of the fleet, by the clock."""

from importlib.util import find_spec

from django.core.management import call_command

from django_wspbus import cron

if find_spec("cronsim"):  # pip install "django-wspbus[cron]"

    @cron("0 3 * * *")
    def clear_sessions():  # every night
        call_command("clearsessions")
