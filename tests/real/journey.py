"""The steps of a project's life, from its first edit to an exit under load. Each step is a function."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from django_wspbus.servers.threaded.request_handler import KEEP_ALIVE, LAST_CHANCE
from tests.processes import RunningSite
from tests.servers.clients import Client, ask
from tests.servers.load import Load, await_that, version_of

from .project import APP, TIMEOUT, Edit, RealProject

REFUSED = r"The (reload|restart) failed; the old code keeps serving"


@dataclass(frozen=True)
class Step:
    """A step of a journey: its requests, the lost ones, and the seconds of the slowest."""

    project: str
    what: str
    made: int
    lost: int
    slowest: float

    def __str__(self) -> str:
        counts = f"{self.made:5} requests, {self.lost} lost, the slowest {self.slowest:.2f} s"
        return f"{counts}  {self.project}: {self.what}"


@dataclass(frozen=True)
class Breakage:
    """A deploy that the site must reject: a file of the release, the text to append to it, and the reason."""

    what: str
    file: str
    source: str
    reason: str


BREAKAGES = [
    Breakage("a syntax error", f"{APP}/views.py", "def unfinished(\n", r"SyntaxError: '\(' was never closed"),
    Breakage(
        "a migration that does not import",
        f"{APP}/migrations/0001_absent.py",
        "from deploys.absent import Field\n",
        r"ModuleNotFoundError: No module named 'deploys.absent'",
    ),
    Breakage(
        "a start listener that raises",
        f"{APP}/listeners.py",
        "\n\n@bus.subscribe('start')\ndef unlucky():\n    raise OSError('the mail server is away')\n",
        r"OSError: the mail server is away",
    ),
]


@dataclass
class Journey:
    """A served project, and the ``steps`` so far."""

    project: RealProject
    site: RunningSite
    steps: list[Step]
    address: str = field(init=False)

    def __post_init__(self) -> None:
        self.address = self.site.wait_until_started(TIMEOUT)["default"].removeprefix("http://")

    def get(self, page: str, status: int = 200) -> str:
        found, body = ask(self.address, page)
        assert found == status, (page, found, body[:2000])
        return body

    def await_page(self, page: str, text: str) -> str:
        """Wait until a page shows a text; return the page."""
        last = ""

        def shows() -> bool:
            nonlocal last
            with contextlib.closing(Client(self.address, TIMEOUT)) as client:
                last = client.ask_in_time(page)[1]
            return text in last

        await_that(shows, lambda: (page, text, last[:2000]), TIMEOUT)
        return last

    @contextlib.contextmanager
    def visitors(self, what: str, slow: int = 0, may_fail: str = "-") -> Iterator[Load]:
        """Send requests all the time; none may be lost. ``may_fail``: the beginning of other outcomes."""
        pages, kept = self.project.pages, KEEP_ALIVE if self.project.is_in_production else LAST_CHANCE
        options = {"think": 0.2, "timeout": TIMEOUT, "kept": kept}
        load = Load(self.address, keep_alive=1, one_shot=1, slow=slow, paths=pages, **options)
        try:
            with load:
                load.wait_for_all()
                yield load
        finally:
            lost = [each for each in load.failures if not each.outcome.startswith(may_fail)]
            self.note(what, load, len(lost))
        assert not lost, lost

    def note(self, what: str, load: Load, lost: int) -> None:
        slowest = max((each.ended - each.began for each in load.answers), default=0)
        made = len(load.answers) + len(load.failures)
        self.steps.append(Step(self.project.name, what, made, lost, slowest))

    def visit(self) -> None:
        """Get each page, so that its code and templates are imported, compiled and cached."""
        for page in ("/version/", *self.project.pages):
            self.get(page)

    def boots(self) -> int:
        return len(self.project.notes("site start"))


# Development


def edit(journey: Journey, what: str, change: Edit) -> None:
    """Save a file, and wait until its page shows it."""
    with journey.visitors(f"an edit of a {what}"):
        change.apply(journey.project)
        journey.await_page(change.page, change.shows)


def edit_template(journey: Journey, change: Edit) -> None:
    boots = journey.boots()
    edit(journey, "template", change)
    assert journey.boots() == boots  # the page shows it without a new boot


def add_field(journey: Journey, change: Edit) -> None:
    """Add a field to a model, and migrate, while the site runs."""
    project = journey.project
    with journey.visitors("a new field", may_fail="status 500"):  # until its column exists
        boots = journey.boots()
        change.apply(project)
        await_that(lambda: journey.boots() > boots, timeout=TIMEOUT)
        project.manage_py("makemigrations")
        project.manage_py("migrate")
        journey.await_page(change.page, change.shows)


def break_code(journey: Journey, file: str) -> None:
    """Save code that does not boot, see the error in the browser, and repair the code."""
    path = journey.project.root / file
    source = path.read_text()
    with journey.visitors(f"a mistake in {path.name}", may_fail="status 500"):
        path.write_text(source + "\nraise RuntimeError('not finished')\n")
        try:
            page = journey.await_page("/version/", "RuntimeError: not finished")
            assert path.name in page
            journey.site.wait_for_line("^RuntimeError: not finished")
        finally:  # the next test serves the same project
            path.write_text(source)
        journey.await_page("/version/", '"version": 1')


# Production


def deploy(journey: Journey, number: signal.Signals, mode: str) -> None:
    """Deploy the next release, with another MODE in its environment file, and delete the one before."""
    project = journey.project
    what = {signal.SIGUSR1: "a reload", signal.SIGUSR2: "a restart"}[number]
    with journey.visitors(f"{what} onto release {project.version + 1}", slow=1) as load:
        before = project.deploy()
        project.set_mode(mode)
        journey.site.send(number)
        journey.await_page("/version/", f'"version": {project.version}')
        if number is signal.SIGUSR2:  # the children serve the new release before the site is it
            journey.site.wait_for_line("^Quit with", TIMEOUT, count=2)
        switched = time.monotonic()  # a request that has begun before may need the files of the old release
        load.wait_for_all(
            lambda answer: (
                answer.version == project.version or (answer.version is None and answer.began > switched)
            )
        )
        shutil.rmtree(before)
        journey.visit()
    answer = json.loads(journey.get("/version/"))
    assert (answer["version"], answer["mode"]) == (project.version, mode)


def refuse(journey: Journey, number: signal.Signals, breakage: Breakage, count: int) -> None:
    """Deploy code that does not boot. The release before keeps serving, and the site logs the reason once."""
    project = journey.project
    good, version = project.release, project.version
    with journey.visitors(f"refused: {breakage.what}", slow=1):
        project.deploy()
        with (project.root / breakage.file).open("a") as file:
            file.write(breakage.source)
        journey.site.send(number)
        journey.site.wait_for_line(REFUSED, TIMEOUT, count)
        journey.site.wait_for_line(breakage.reason)
        assert version_of(journey.address) == version
    bad = project.release
    project.point_to(good)
    project.version = version
    shutil.rmtree(bad)


def exit_under_load(journey: Journey) -> None:
    """Exit. Each request that has reached the site is answered, then the listeners of each process run."""
    load = Load(journey.address, paths=journey.project.pages, think=0.2)
    with load:
        load.wait_for_all()
        journey.site.send(signal.SIGTERM)
        load.finish_refused()
    journey.note("an exit", load, lost=0)  # else `finish_refused` has raised
    assert journey.site.wait() == 0


def every_process_has_stopped(project: RealProject) -> None:
    """Assert that listeners and lifespans that have begun in a process have ended there."""
    pairs = {"site start": "site stop", "worker start": "worker stop", "consumer began": "consumer ended"}
    for begin, end in pairs.items():
        begun = [note.pid for note in project.notes(begin)]
        assert begun
        assert sorted(begun) == sorted(note.pid for note in project.notes(end))


# Whole journeys


def nothing_more(journey: Journey) -> None: ...


def develop(
    project: RealProject, steps: list[Step], look: Callable[[Journey], object] = nothing_more
) -> None:
    """Develop the project for a day. ``look``: further assertions."""
    project.is_in_production = False
    project.forget()
    with project.serve("127.0.0.1:0") as site:
        journey = Journey(project, site, steps)
        journey.visit()
        edit(journey, "view", project.view)
        edit_template(journey, project.template)
        add_field(journey, project.model)
        edit(journey, "setting", project.setting)
        for file in (project.view.file, project.setting.file):
            break_code(journey, file)
        look(journey)
        assert site.stop(signal.SIGINT) == 0
    every_process_has_stopped(project)


def operate(
    project: RealProject,
    steps: list[Step],
    look: Callable[[Journey], object] = nothing_more,
    breakages: Sequence[Breakage] = BREAKAGES,
) -> None:
    """Serve in production, deploy, and exit. ``look``: assertions on the first and the last release."""
    project.is_in_production = True
    project.forget()
    project.set_mode("one")
    project.manage_py("collectstatic", "--no-input")
    project.manage_py("runbus", "--check")
    with project.serve() as site:
        journey = Journey(project, site, steps)
        journey.visit()
        look(journey)
        deploy(journey, signal.SIGUSR1, "two")
        deploy(journey, signal.SIGUSR2, "three")
        for count, breakage in enumerate(breakages, 1):
            refuse(journey, signal.SIGUSR2 if count == 2 else signal.SIGUSR1, breakage, count)
        deploy(journey, signal.SIGUSR1, "four")
        look(journey)
        exit_under_load(journey)
    every_process_has_stopped(project)
