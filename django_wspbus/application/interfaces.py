"""Recognize WSGI and ASGI applications without calling them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

WRAPPERS = ("whitenoise.", "werkzeug.middleware.", "django.contrib.staticfiles.", "django_wspbus.")
"""Modules whose applications pass each request on, unchanged, to the application in an attribute."""

WRAPPED = ("application", "app")


def find_fault(application: Any) -> str | None:
    """Return why ``application(environ, start_response)`` would fail; None if it seems to be valid."""
    application = unwrap(application)
    if not callable(application):
        return f"{application!r} is not callable"
    if is_asgi(application):
        return "it is an ASGI application"
    if inspect.isclass(application) and not _makes_iterables(application):
        return "it is a class whose instances are not iterable"
    signature = _signature(application)
    if signature is None:
        return None
    try:
        signature.bind(object(), object())
    except TypeError as error:
        return f"it cannot be called with (environ, start_response): {error}"
    return None


def is_asgi(application: Any) -> bool:
    """Return whether a callable is a coroutine function, or takes (scope, receive, send)."""
    call = application.__call__ if inspect.isclass(application) else type(application).__call__
    if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call):
        return True
    signature = _signature(application)
    return signature is not None and list(signature.parameters)[:3] == ["scope", "receive", "send"]


def unwrap(application: Any) -> Any:
    """Return the application to which well-known middleware passes requests on."""
    while type(application).__module__.startswith(WRAPPERS):
        inner = [each for name in WRAPPED if (each := getattr(application, name, None)) is not None]
        if not inner:
            break
        application = inner[0]
    return application


def _signature(application: Any) -> inspect.Signature | None:
    try:
        # The callable's own signature, not that of a function that functools.wraps has copied.
        return inspect.signature(application, follow_wrapped=False)
    except (TypeError, ValueError):  # written in C
        return None


def _makes_iterables(application: type) -> bool:
    """Return whether calling a class may return an iterable. A metaclass or __new__ may return any object."""
    if type(application) is not type or any("__new__" in vars(base) for base in application.__mro__[:-1]):
        return True
    return hasattr(application, "__iter__") or hasattr(application, "__getitem__")
