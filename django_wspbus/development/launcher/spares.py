"""The warm spare, as the launcher sees it: started when a site serves, and taken as the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ...process.messages import Message
from .child import Child

MOST_TRIES = 8
"""How many are tried until one is fit, each without what the ones before were not fit for."""


class Spares:
    """``spawn()`` starts one for an ``invocation``; ``say(line)`` tells the developer why there is none."""

    def __init__(self, invocation: Message, spawn: Callable[[], Child], say: Callable[[str], None]) -> None:
        self.current: Child | None = None
        self._invocation = invocation
        self._spawn = spawn
        self._say = say
        self._library: Message | None = None
        self._unfit: list[str] = []
        self._tries = 0
        self._has_given_up = False

    def learn(self, library: Message | None) -> bool:
        """Prepare one for a site that imports this: `doubts.describe`; None if there is to be none.

        Return whether that is another project, in a way, than the one a spare would have been prepared for.
        """
        before, self._library = self._library, library
        doubt = None if library is None else library["doubt"]
        if doubt is not None and (before is None or before["doubt"] != doubt):
            self._say(f"Warm spare disabled: {doubt}.")
        is_another = before is not None and library is not None and _is_another(before, library)
        if library != before:
            if is_another:  # the order of modules alone differs after each boot of a spare
                self._unfit = []
            self._tries = 0
            self._has_given_up = False
            self.end()
        if library is None or doubt is not None:
            self._has_given_up = True
        if self.current is None and not self._has_given_up:
            self._start()
        return is_another

    def hear(self, told: Message) -> None:
        """Take note of what one has told: whether it is "prepared", what is "unfit", "why" none can be."""
        assert self.current is not None
        if told.get("prepared"):
            self.current.started = True
            self._tries = 0
            return
        self.end()
        has_news = set(told["unfit"]) != set(self._unfit)
        self._unfit = told["unfit"]
        if told["why"] is not None:
            self._say(f"Warm spare disabled: {told['why']}.")
        elif self._tries >= MOST_TRIES:
            self._say(f"Warm spare disabled: none of {MOST_TRIES} attempts was as good as new.")
        self._has_given_up = told["why"] is not None or not has_news or self._tries >= MOST_TRIES
        if not self._has_given_up:
            self._start()

    def look(self) -> None:
        """Start another one if somebody has killed it; one that was not prepared would not live, either."""
        if self.current is not None and self.current.process.poll() is not None:
            was_fit = self.current.started
            self.end()
            if was_fit:
                self._start()

    def take(self) -> Child | None:
        """Return the spare, as the next site, if it is fit."""
        if self.current is None or not self.current.started:
            return None
        taken, self.current = self.current, None
        taken.become_site()
        return taken

    def end(self) -> None:
        if self.current is not None:
            self.current.end()
            self.current = None

    def _start(self) -> None:
        self._tries += 1
        self.current = self._spawn()
        with contextlib.suppress(OSError):  # it has died already, which will be seen
            order = {**(self._library or {}), "unfit": self._unfit}
            self.current.link.post({"invocation": self._invocation, "prepare": order})


def _is_another(before: Message, now: Message) -> bool:
    """Whether a boot has changed what imports go by in another way than the one before."""
    signs: Message = now["signs"]
    has_new_signs = any(set(values) - set(before["signs"][what]) for what, values in signs.items())
    return has_new_signs or bool(now["changed"] != before["changed"])
