"""Reloads, restarts and exits for the clients of the control socket, which see each step and the outcome."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..control.calls import Action, Call, ClientGone, Misuse, send_last
from ..control.protocol import Error, Reply, Request, Result
from ..servers.child import ChildServer
from ..servers.swap import NOTHING_TO_RELOAD, counted
from ..successor.state import WaitingClient
from ..wspbus import Refusal
from ..wspbus.plugin import Plugin
from .assembly import Assembly
from .following import Client, Follower, Outcome, reason_of
from .programs import restart_programs

LOOK_INTERVAL = 0.5
"""Seconds between two looks at the number of requests in flight, while the site drains for a client."""

TIME_TO_ANSWER = 1.0
"""Seconds that the end of the process waits until clients have been sent the outcome."""


class Operations(Plugin):
    """Moves the bus of the site for clients.

    A client that has asked for a restart is handed over to the next program, which sends it the outcome.
    ``clients``: those that the program before has handed over.
    """

    role = "site"

    def __init__(self, site: Assembly, clients: list[WaitingClient]) -> None:
        super().__init__(site.bus)
        self.site = site
        self._clients = clients
        self._followers: list[Follower] = []

    @property
    def actions(self) -> dict[str, Action]:
        return {"graceful": self._reload, "restart": self._restart, "stop": self._exit}

    # Actions

    def act(self, call: Client) -> Any:
        """Do an action for a client: "graceful" or "restart"."""
        return self._reload(call) if call.action == "graceful" else self._restart(call)

    def _reload(self, call: Client) -> dict[str, Any]:
        if not self.site.swap.child_servers:
            self.bus.defer(self.site.programs.reload)
            restarted = " Its programs are restarted." if self.site.programs.programs else ""
            return {"message": f"{NOTHING_TO_RELOAD}{restarted}", "seconds": 0.0}
        seconds = self._follow(call, partial(self.bus.request, "graceful"))
        return {"message": f"Reloaded in {seconds:.2f} s.", "seconds": seconds}

    def _restart(self, call: Client) -> Any:
        """Restart the site; with the argument "alias", only the child of a server, or a program."""
        if (alias := call.arguments.get("alias")) is not None:
            if programs := self.site.programs.of(alias):
                return restart_programs(self.bus, call, programs, self.site.settings.ready_timeout)
            server = self._child_server(alias)
            seconds = self._follow(call, partial(self._request_replacement, server))
            return {"message": f"Restarted {alias!r} in {seconds:.2f} s.", "seconds": seconds}
        return self._restart_site(call)

    def _restart_site(self, call: Client) -> None:
        with self._follower("restart", call) as follower:
            self.bus.request("restart", follower.note_outcome)
            self._show_steps(call, follower)
            is_same_process = self.site.children.survive_restarts  # else the launcher starts another
            call.step("executing the next program" if is_same_process else "booting the site")
            self._hand_over(call, follower.began, call.then)

    def _exit(self, call: Call) -> None:
        with self._follower("exit", call) as follower:
            self.bus.defer(self.bus.exit)
            self._show_steps(call, follower)
            call.hold(self._end_of_exit(follower))

    def _hand_over(self, call: Client, began: float, then: Request | None) -> None:
        """Leave a client to the next program; ``then``: what that has to do for it, besides its start."""
        request = (None, {}) if then is None else (then.action, then.arguments)
        self.site.control.waiting.append(WaitingClient(call.detach(), began, *request))

    def _end_of_exit(self, follower: Follower) -> Reply:
        if self.bus.failed:
            return Error("The site has stopped, but not cleanly: see its log.")
        return Result({"message": f"Stopped in {follower.age:.2f} s.", "seconds": follower.age})

    def _child_server(self, alias: Any) -> ChildServer:
        for server in self.site.planned:
            if server.settings.alias == alias:
                if isinstance(server, ChildServer):
                    return server
                raise Refusal(f"The server {alias!r} runs in the site process: restart the site.")
        known = [server.settings.alias for server in self.site.planned]
        known += dict.fromkeys(program.settings.alias for program in self.site.programs.programs)
        raise Misuse(
            f"There is no server or program {str(alias)[:200]!r}. The site has {', '.join(map(repr, known))}."
        )

    def _request_replacement(self, server: ChildServer, done: Callable[[Exception | None], None]) -> None:
        def replace() -> None:
            error: Exception | None = None
            try:
                self.site.swap.replace_children([server])
            except Exception as failure:
                error = failure
                self.bus.log(reason_of(failure), level=40)
            done(error)

        self.bus.defer(lambda: self.bus.turns.take(replace))

    # Following

    def _follow(self, call: Client, begin: Callable[[Callable[[Exception | None], None]], object]) -> float:
        """Show a client the steps of an operation; return its seconds, or raise the reason why it failed."""
        with self._follower("reload", call) as follower:
            begin(follower.note_outcome)
            self._show_steps(call, follower)
            return follower.age

    @contextlib.contextmanager
    def _follower(self, waits_for: str, call: Client) -> Iterator[Follower]:
        if self.site.swap.under_way is not None:
            call.step(f"waiting for the {self.site.swap.under_way} that is under way")
        follower = Follower(waits_for)
        with self.watched(follower), self.site.swap.steps.shown_to(follower.items.put):
            yield follower

    @contextlib.contextmanager
    def watched(self, follower: Follower) -> Iterator[None]:
        """Give a follower the outcome if the site exits, or restarts, meanwhile."""
        self._followers.append(follower)
        if self.bus.exit_asked:
            self._note_exit(follower)
        try:
            yield
        finally:
            self._followers.remove(follower)
            follower.is_served.set()

    def _show_steps(self, call: Client, follower: Follower) -> None:
        shown = ""
        while True:
            try:
                item = follower.items.get(timeout=LOOK_INTERVAL)
            except queue.Empty:
                if call.is_gone:
                    raise ClientGone from None
                if not self._drains:
                    continue
                item = self._draining()
            if isinstance(item, Outcome):
                break
            if item != shown:
                shown = item
                call.step(item)
        if item.is_too_late:
            self._hand_over(call, follower.began, call.then or Request(call.action, call.arguments))
            raise ClientGone("the next program answers it")
        if item.error is not None:
            raise RuntimeError(reason_of(item.error))

    @property
    def _drains(self) -> bool:
        return self.bus.exit_asked and self.bus.state is self.bus.states.STOPPING

    def _draining(self) -> str:
        return f"draining ({counted(sum(child.in_flight for child in self.site.children.all()))})"

    # The end of this program

    def stop(self) -> None:
        """Show clients that the site drains; what has not begun is for the next program, if there is one."""
        if not self.bus.exit_asked:
            return
        for follower in list(self._followers):
            self._note_exit(follower)
        if not self.bus.execv:
            self._answer_clients(Error("The site exits."))
            self.site.swap.steps.show(self._draining())

    stop.priority = 0  # type: ignore[attr-defined]

    def _note_exit(self, follower: Follower) -> None:
        """Tell a client that the site exits, or restarts, before what it waits for."""
        if self.bus.execv:
            follower.note_outcome(is_too_late=True)
        elif follower.waits_for != "exit":
            follower.note_outcome(Refusal(f"The site exits before the {follower.waits_for}."))

    def exit(self) -> None:
        """Send the outcome to the clients of an exit, and wait until they have it."""
        followers = list(self._followers)
        for follower in followers:
            self._note_exit(follower)
            follower.note_outcome()
        deadline = time.monotonic() + TIME_TO_ANSWER
        for follower in followers:
            follower.is_served.wait(max(deadline - time.monotonic(), 0))
        if not self.bus.execv:  # a restart may have become an exit
            stopped = Result({"message": "Stopped.", "seconds": 0.0})
            for client in self.site.control.take_waiting():
                send_last(
                    socket.socket(fileno=client.descriptor),
                    stopped if client.action == "stop" else Error("The site exits."),
                )

    exit.priority = 96  # type: ignore[attr-defined]  # when all other listeners of the site have run

    # The beginning of the next program

    def report_start(self) -> None:
        """Answer the clients of the restart, once the bus is STARTED."""
        if self.bus.failed_start:
            reason = reason_of(self.bus.failed_start)
            self._answer_clients(
                Error(f"The site has restarted, but a start listener failed. Its workers serve. {reason}")
            )
        else:
            self._answer_clients(None)

    def _answer_clients(self, error: Error | None) -> None:
        clients, self._clients = self._clients, []
        for client in clients:
            if client.action is not None and error is None:
                request = Request(client.action, client.arguments)
                self.site.control.calls.begin(request, socket.socket(fileno=client.descriptor))
                continue
            seconds = time.monotonic() - client.began
            message = {"message": f"Restarted in {seconds:.2f} s.", "seconds": seconds}
            send_last(socket.socket(fileno=client.descriptor), error or Result(message))

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self._answer_clients(Error("The site ended before it served."))
