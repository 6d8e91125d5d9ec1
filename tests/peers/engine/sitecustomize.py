"""Imported by every interpreter that finds this directory on PYTHONPATH: CherryPy's engine is our bus.

The test runner of CherryPy starts processes of its own, which inherit it.
"""

import os
import sys
import types
from pathlib import Path

from django_wspbus import wspbus

module = types.ModuleType("cherrypy.process.wspbus")
module.Bus = wspbus.Bus
module.ChannelFailures = wspbus.ChannelFailures
module.states = wspbus.states
module.bus = wspbus.Bus()
sys.modules[module.__name__] = module

with Path(os.environ["ENGINES"]).open("a") as engines:
    engines.write(f"{os.getpid()}\n")
