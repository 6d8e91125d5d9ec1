"""gunicorn's master under a site, which decides how many workers there are, and which of them ends.

This is the only module that depends on the inside of gunicorn: the names in `USED`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    from .hooks import Hooks


class SiteArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs the workers that the site wants, those that stand by, and those that retire.

    gunicorn would end the oldest worker when there are too many; here the site ends a worker of its choice.
    """

    def __init__(self, app: Any, hooks: Hooks) -> None:
        self.hooks = hooks
        super().__init__(app)

    def manage_workers(self) -> None:
        number = max(self.hooks.count_workers(self.cfg.workers), len(self.WORKERS))
        if number != self._get_num_workers():  # setting it calls a hook
            self._set_num_workers(number)
        super().manage_workers()

    def murder_workers(self) -> None:
        """Kill workers that hang, but none that retires with threads: the site limits its time."""
        for worker in list(self.WORKERS.values()):
            if isinstance(worker, ThreadWorker) and self.hooks.retires(worker):
                worker.notify()
        super().murder_workers()

    def handle_ttin(self) -> None:
        self.log.warning("The site decides on the number of workers: SIGTTIN has no effect.")

    def handle_ttou(self) -> None:
        self.log.warning("The site decides on the number of workers: SIGTTOU has no effect.")
