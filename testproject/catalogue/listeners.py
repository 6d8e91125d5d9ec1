"""Listeners: the work of the site's processes besides answering requests. The page /processes/ shows it."""

from django_wspbus import bus, every

from .models import ProcessEvent, note


@bus.subscribe("start", role="site", priority=10)
def begin_run():  # once per site, before anything is served
    ProcessEvent.objects.forget_last_run()
    note("start, role=site")


@bus.subscribe("start")
def open_pool():  # once in each worker
    note("start")


@bus.lifespan
def consumer():  # once in each worker: to the yield when it starts, the rest when it stops
    note("lifespan, until yield")
    yield
    note("lifespan, after yield")


@every(5, role="site")
def clean_up():  # every five seconds, in one process
    note("every 5 s, role=site")


@bus.subscribe("health")
def database_answers():  # in the site process, whenever a client asks for /readyz
    ProcessEvent.objects.exists()
