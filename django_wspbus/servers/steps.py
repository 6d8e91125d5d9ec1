"""The steps of a reload, a restart or an exit, as clients that wait for it see them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Observer = Callable[[str], object]


class Steps:
    """Shows each step of what the site does to its observers. ``current``: the last step."""

    def __init__(self) -> None:
        self.current = ""
        self._observers: list[Observer] = []

    def show(self, text: str) -> None:
        """Show a step, unless it is the same as the last one."""
        if text != self.current:
            self.current = text
            for observer in list(self._observers):
                observer(text)

    def forget(self) -> None:
        """Forget the last step, as what it belonged to is over."""
        self.current = ""

    @contextlib.contextmanager
    def shown_to(self, observer: Observer) -> Iterator[None]:
        """Call a function with each step, in the thread that does the step: it must not wait."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)
