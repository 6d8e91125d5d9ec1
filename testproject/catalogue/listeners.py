"""What the processes of this site do besides answering requests; see the page /processes/."""

from django_wspbus import bus, every

from .models import ProcessEvent

note = ProcessEvent.objects.note  # one more of these in this process


@bus.subscribe("start", priority=10, role="site")
def begin_run():  # once per site, before the others
    ProcessEvent.objects.forget_last_run()
    note("start, role=site")


@bus.subscribe("start")
def open_pool():  # once in every process that serves
    note("start")


@bus.lifespan
def consumer():  # likewise, and the rest when it stops
    note("lifespan, until yield")
    yield
    note("lifespan, after yield")


@every(5, role="site")
def clean_up():  # every five seconds, in one process
    note("every 5 s, role=site")


@bus.subscribe("health")
def database_answers():  # whenever somebody asks /readyz, in the site process
    ProcessEvent.objects.exists()
