from __future__ import annotations

# The same bus, journal, threads and processes as for the tests of the bus itself.
from tests.wspbus.conftest import bus, in_thread, journal, run  # noqa: F401
