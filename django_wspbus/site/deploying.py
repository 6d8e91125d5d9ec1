"""Deploys to the fleet for the clients of the control socket: this site coordinates them, and comes last."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ..control.calls import Action, Call, ClientGone, Misuse
from ..control.protocol import Request
from ..fleet.base import Lease, Member, Unavailable
from ..fleet.deploys import OUTCOME, STEP, Deploy, Limits, Stopped
from ..fleet.envelope import Message
from ..fleet.leadership import Timing, name_of_holder
from ..fleet.relay import LEAVE, Relay
from ..fleet.roster import Roster
from ..fleet.turn import Taken, Turn, release
from ..wspbus import Refusal
from .assembly import Assembly
from .following import Follower
from .operations import Operations

DONE = {"graceful": "Reloaded", "restart": "Restarted"}

CLIENT_GONE = "The client of the deploy has gone."


class Deploys:
    """The actions ``graceful`` and ``restart``, also for the whole fleet."""

    def __init__(self, site: Assembly, operations: Operations) -> None:
        self._site = site
        self._operations = operations
        self._deploys: dict[str, Deploy] = {}
        member = site.fleet.member
        for kind in (STEP, OUTCOME):
            member.handlers[kind] = [self._hear]
        member.handlers[LEAVE].append(self._note_left)

    @property
    def actions(self) -> dict[str, Action]:
        return dict.fromkeys(DONE, self._act)

    def _hear(self, message: Message) -> None:
        if (deploy := self._deploys.get(message.subject)) is not None:
            deploy.hear(message)

    def _note_left(self, message: Message) -> None:
        for deploy in list(self._deploys.values()):
            deploy.hear(message)

    # The action

    def _act(self, call: Call) -> Any:
        if call.argument("fleet", bool, default=False):
            return self._deploy(call)
        for name in ("parallel", "skip_missing"):
            if name in call.arguments:
                raise Misuse(f"{call.action} takes --{name.replace('_', '-')} with --fleet only.")
        return self._operations.actions[call.action](call)

    def _deploy(self, call: Call) -> Any:
        relay = self._site.fleet.member.relay
        if relay is None:
            raise Refusal('This site belongs to no fleet: WSPBUS["FLEET"] is not set.')
        if "deployed" in call.arguments:
            return self._finish(relay, call)
        run = Run(self._site, self._operations, relay, call)
        self._deploys[run.deploy.id] = run.deploy
        try:
            return run.run()
        except Unavailable as error:
            raise Refusal(f"The engine of the fleet is unavailable: {error}") from error
        except (Taken, Stopped) as error:
            raise Refusal(str(error)) from error
        finally:
            del self._deploys[run.deploy.id]

    def _finish(self, relay: Relay, call: Call) -> dict[str, Any]:
        """Finish a deploy that the program before has run, whose last part was the restart of this site."""
        deployed = Deployed(**call.argument("deployed", dict))
        release(relay.commands, Lease(**deployed.lease), relay.engine.timeout)
        return deployed.result(self._site, call)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deploy that has reached all other hosts. ``began``: a time of `time.monotonic`."""

    lease: dict[str, Any]
    hosts: int
    skipped: list[str]
    began: float

    def result(self, site: Assembly, call: Call) -> dict[str, Any]:
        seconds, alias = time.monotonic() - self.began, call.arguments.get("alias")
        what = "" if alias is None else f"{alias!r} on "
        hosts = f"{self.hosts} host{'' if self.hosts == 1 else 's'}"
        message = f"{DONE[call.action]} {what}{hosts} in {seconds:.2f} s."
        if self.skipped:
            message += f" Skipped: {', '.join(self.skipped)}."
        site.bus.log(f"The deploy has ended: {message}")
        return {"message": message, "seconds": seconds, "hosts": self.hosts, "skipped": self.skipped}


class OwnPart:
    """The client of the part that is done here, as the last one: its steps bear the name of this host.

    ``then``: the request that the next program has to do if this part restarts the site.
    """

    def __init__(self, call: Call, name: str, arguments: dict[str, Any], then: Request) -> None:
        self._call = call
        self._name = name
        self.action = call.action
        self.arguments = arguments
        self.then = then
        self.is_detached = False

    def step(self, text: str) -> None:
        self._call.step(f"{self._name}: {text}")

    @property
    def is_gone(self) -> bool:
        return self._call.is_gone

    def wait_until_gone(self, seconds: float) -> bool:
        return self._call.wait_until_gone(seconds)

    def detach(self) -> int:
        self.is_detached = True
        return self._call.detach()


class Run:
    """A deploy for one client."""

    def __init__(self, site: Assembly, operations: Operations, relay: Relay, call: Call) -> None:
        self._site = site
        self._operations = operations
        self._relay = relay
        self._call = call
        self._began = time.monotonic()
        self._shown = ""
        self._skips = call.argument("skip_missing", bool, default=False)
        self._arguments = {name: each for name, each in call.arguments.items() if name == "alias"}
        self._follower = Follower("deploy")
        engine, member = relay.engine, site.fleet.member
        self._timeout = 2 * engine.timeout  # calls of others may come before
        holder = name_of_holder(member.host, member.pid)
        self._turn = Turn(relay.commands, Timing(engine.lease), self._timeout, holder)
        self.deploy = Deploy(relay, self._turn, self._limits(), self._show, self._why_to_stop)

    def _limits(self) -> Limits:
        parallel = self._call.argument("parallel", int, 1)
        if parallel < 1:
            raise Misuse("'parallel' is the number of hosts at a time, from 1.")
        # A host answers while it boots new workers, but not while it executes its next program.
        restarts = self._call.action == "restart" and not self._arguments
        silence = self._relay.engine.lease + (self._site.settings.ready_timeout if restarts else 0.0)
        return Limits(parallel=parallel, skips_silent=self._skips, silence=silence)

    def run(self) -> Any:
        if (trouble := self._relay.trouble) is not None:
            raise Unavailable(trouble)
        self._turn.take(self._wait)
        is_handed_over = False
        try:
            with self._operations.watched(self._follower):
                name, hosts = self._choose()
                names = ", ".join([*(each for each, _ in hosts), name])
                self._site.bus.log(f"A deploy of the fleet begins ({self._call.action}): {names}")
                self.deploy.run(hosts, self._call.action, self._arguments, name)
            own = self._own_part(name)
            try:
                return self._act_here(own, name)
            finally:
                is_handed_over = own.is_detached
        except (Stopped, Refusal) as error:
            self._site.bus.log(f"The deploy of the fleet has stopped. {error}", level=40)
            if self._call.is_gone:
                raise ClientGone from error
            raise
        finally:
            if not is_handed_over:  # else the next program releases it
                self._turn.release()

    # The hosts

    def _choose(self) -> tuple[str, list[tuple[str, Member]]]:
        """Return the name of this host, and the others; a `Refusal` if one of them cannot be reached."""
        roster = self._relay.commands.call(
            lambda engine: Roster(engine.members(), engine.time(), engine.lease), self._timeout
        )
        name, hosts, silent = self._site.fleet.member.host, [], []
        for each in (*roster.living, *roster.missing):
            if each.id == self._relay.id:
                name = roster.name(each)
            elif each.is_site and each in roster.missing:
                silent.append((roster.name(each), f"no sign of life for {roster.seconds_since(each):.0f} s"))
            elif each.is_site and not self._relay.signer.accepts(each.key):
                silent.append((roster.name(each), "it signs with another SECRET_KEY"))
            elif each.is_site:
                hosts.append((roster.name(each), each))
        if silent and not self._skips:
            reasons = "\n".join(f"{host} cannot be reached: {reason}." for host, reason in silent)
            raise Refusal(f"{reasons}\nNo host has been changed. With --skip-missing the others are.")
        for host, reason in silent:
            self.deploy.progress.skipped.append(host)
            self._show(f"{host}: skipped, as it cannot be reached: {reason}")
        for host, number in Counter(each.host for each in roster.living if not each.is_site).items():
            processes = f"{number} process{'' if number == 1 else 'es'}"
            self._show(f"{host}: {processes} of another program, which a deploy does not reach: restart that")
        return name, hosts

    def _own_part(self, name: str) -> OwnPart:
        progress = self.deploy.progress
        deployed = Deployed(asdict(self._turn.lease), len(progress.done) + 1, progress.skipped, self._began)
        then = {**self._arguments, "fleet": True, "deployed": asdict(deployed)}
        return OwnPart(self._call, name, self._arguments, Request(self._call.action, then))

    def _act_here(self, own: OwnPart, name: str) -> Any:
        progress = self.deploy.progress
        try:
            result = self._operations.act(own)
        except (Refusal, RuntimeError, Misuse) as error:
            done = f"\nDone: {', '.join(progress.done)}." if progress.done else ""
            raise Refusal(f"{name}: {error}{done}") from error
        if own.is_detached:
            return None
        self._show(f"{name}: {result['message']}")
        deployed = Deployed({}, len(progress.done) + 1, progress.skipped, self._began)
        return deployed.result(self._site, self._call)

    # The client

    def _show(self, text: str) -> None:
        with suppress(ClientGone):  # the deploy stops between two hosts
            self._call.step(text)

    def _wait(self, reason: str, seconds: float) -> None:
        if reason != self._shown:
            self._shown = reason
            self._show(reason)
        if self._call.wait_until_gone(seconds):
            raise ClientGone

    def _why_to_stop(self) -> str:
        if (outcome := self._follower.outcome) is not None:
            self._turn.release()  # nothing can be waited for
            return str(outcome.error or "The site that runs the deploy restarts.")
        return CLIENT_GONE if self._call.is_gone else ""
