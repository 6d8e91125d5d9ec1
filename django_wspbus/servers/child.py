"""The base of servers that run in a child process: their plugin of the site process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from ..children.child import Child
from ..children.children import Children
from ..children.saturation import saturated_for
from ..wspbus import EX_SOFTWARE, Bus, Refusal
from .base import Server
from .respawner import Respawner

if TYPE_CHECKING:
    from ..conf import ServerSettings, Settings
    from ..sockets.bound import Bound


class ChildServer(Server):
    """Base of the servers that run in a process of their own.

    ``run`` is "module:function" of what the child runs: ``function(child)``, see `spawn.StartedChild`. The
    processes of the child report (`process.reports`) that they are `Ready`, or have `Failed`, and answer
    requests once they are ordered to (`children.orders`).

    ``check_run`` names the function of a child for ``runbus --check``: it has no sockets, loads all that
    can fail, reports that no workers are `Expected`, and waits to be ended. Without it the site process
    loads the application.
    """

    in_process = False
    run: ClassVar[str] = ""
    check_run: ClassVar[str] = ""

    def __init__(
        self,
        bus: Bus,
        settings: ServerSettings,
        site: Settings,
        bound: Callable[[], list[Bound]],
        *,
        children: Children,
    ) -> None:
        super().__init__(bus, settings, site, bound)
        self.children = children
        self.respawner = Respawner(
            *(bus, self.alias, children, self.boot, site.ready_timeout), wanted=lambda: self.is_wanted
        )

    @property
    def alias(self) -> str:
        return self.settings.alias

    @property
    def is_wanted(self) -> bool:
        """True if the site needs a child of this server at present."""
        return True

    def is_needed_by(self, children: Iterable[Child]) -> bool:
        """Return whether a site that switches to these children needs a child of this server."""
        return True

    @property
    def patch(self) -> str | None:
        """The patch that a child applies before it imports anything of the project: "gevent" or None."""
        return None

    @property
    def current(self) -> Child | None:
        """The child that serves."""
        return self.children.serving.get(self.alias)

    @property
    def failure(self) -> str | None:
        """Return why this server does not serve at present."""
        if self.current is None or self.current.ended:
            return (
                f"the server {self.alias!r} has no process: {self.respawner.trouble or 'it is not started'}"
            )
        return None

    @property
    def trouble(self) -> str | None:
        return None if self.current is None else self.current.trouble

    @property
    def saturated_for(self) -> float | None:
        current = self.current
        return None if current is None else saturated_for(current)

    def status(self) -> dict[str, Any]:
        current = self.current
        leaving = [each.pid for each in self.children.draining if each.alias == self.alias]
        pids = current.workers if current else []
        return {
            **super().status(),
            "pid": current and current.pid,
            "workers": [pid for pid in pids if current and not current.progress.stands_by(pid)],
            "leaving": leaving,
        }

    def reopen_log_files(self, child: Child) -> list[int]:
        """Tell the processes of a child to reopen their log files; return the PIDs of those that report it.

        Each sends the report `FilesReopened`. The base class tells none, as its child may not expect it.
        """
        return []

    def scale(self, workers: int) -> int:
        """Set the number of workers and return the number before; a `Refusal` says why not."""
        if not self.replaces_workers:
            raise Refusal(f"The server {self.alias!r} ({type(self).__name__}) cannot change its workers.")
        return self.children.scale(self.alias, workers)

    # Start and stop

    def subscribe(self) -> None:
        super().subscribe()
        self.children.observers.append(self.respawner.look)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.children.observers.remove(self.respawner.look)

    def start(self) -> None:
        if self.current is None or self.current.ended:  # else it is of the program before a restart
            try:
                self._start()
            except Refusal as refusal:
                if self.bus.starts_despite_failures:
                    self.respawner.retry(str(refusal))
                raise
        self.respawner.is_active = True

    def _start(self) -> None:
        self.respawner.reset()
        child = self.boot()
        timeout = self.site.ready_timeout
        self.bus.wait_for(lambda: child.is_settled, timeout)
        if child.is_ready:
            self.children.switch([child])
            return
        why = child.why_not_ready(timeout)
        failures = self.children.end([child])
        if not self.bus.exit_asked:
            raise self.refusal("\n".join([why, *failures]), child.progress.status)
        if failures:
            raise Refusal("\n".join(failures), status=EX_SOFTWARE)

    start.priority = 75  # type: ignore[attr-defined]

    def boot(self) -> Child:
        """Start a child, which does not serve yet."""
        descriptors = [each.socket.fileno() for each in self.bound()]
        return self.children.boot(self.alias, self.run, descriptors, self.patch)

    def check(self) -> None:
        if not self.check_run:
            super().check()
            return
        timeout = self.site.ready_timeout
        child = self.children.boot(self.alias, self.check_run, [], self.patch)
        try:
            self.bus.wait_for(lambda: child.is_settled, timeout)
            if not child.is_ready:
                why = child.why_not_ready(timeout)
                raise self.refusal(why, child.progress.status)
        finally:
            self.children.end([child])

    def tell_to_stop(self) -> None:
        """Tell the child to answer the requests in flight and exit."""
        if not self.children.stay:
            self.respawner.is_active = False
            if self.current is not None:
                self.children.dismiss(self.current)

    def stop(self) -> None:
        self.tell_to_stop()  # Children.stop() waits for it

    stop.priority = 25  # type: ignore[attr-defined]
