from __future__ import annotations

import pytest

from django_wspbus import conf


@pytest.fixture
def read(settings):
    """Set WSPBUS; return the settings."""

    def read(**wspbus):
        settings.WSPBUS = {"SERVERS": {"default": {"BIND": "127.0.0.1:0"}}, **wspbus}
        return conf.get()

    return read
