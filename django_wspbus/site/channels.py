"""The channels of a site."""

from __future__ import annotations

from ..conf.signals import SITE_ACTIONS
from ..development.launch import CHANGED, WATCH

SITE_CHANNELS = ("abort", "before_restart", "execv", "autoreload", *SITE_ACTIONS)
"""Channels of the site: before the process ends at once; before a restart, which a listener may refuse; just
before the process is replaced; after a change of a file; and those by which signals order the site."""

RESERVED_CHANNELS = (*SITE_CHANNELS, CHANGED, WATCH)
"""Channels by which the parts of a site work together: an action or a method of the bus is for them."""
