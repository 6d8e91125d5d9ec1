"""The requests that a worker answers to itself: contents, failures, and the reasons in the log."""

from __future__ import annotations

import itertools
import logging
import re
import sys
from wsgiref.validate import validator

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import got_request_exception
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.test import Client
from django.urls import path
from django.utils.log import AdminEmailHandler

from django_wspbus import Refusal, __version__, conf
from django_wspbus.application import warmup
from django_wspbus.application.mounts import Mounts
from django_wspbus.application.warmup import warm_up

REQUESTS = []


def page(request, name=None):
    REQUESTS.append(request)
    return HttpResponse("page")


def broken(request):
    REQUESTS.append(request)
    raise ZeroDivisionError("of a view")


def raising(error):
    def view(request):
        REQUESTS.append(request)
        raise error

    return view


def lines(request):
    yield b"first"
    raise ZeroDivisionError("of a view")


def nested(request):
    """One request that makes another, which fails: the failure is none of ours."""
    client = Client(raise_request_exception=False, headers={"host": "shop.example.org"})
    return HttpResponse(client.get("/broken").status_code)


urlpatterns = [
    path("", page),
    path("shop/<name>", page),
    path("broken", broken),
    path("missing", raising(Http404())),
    path("denied", raising(PermissionDenied())),
    path("suspicious", raising(SuspiciousOperation())),
    path("left", raising(SystemExit(3))),
    path("interrupted", raising(KeyboardInterrupt())),
    path("down", lambda request: HttpResponse(f"Down\n for {'ä' * 300}", status=503)),
    path("nothing", lambda request: HttpResponse(status=503)),
    path("image", lambda request: HttpResponse(b"\x89", status=503, content_type="image/png")),
    path("streaming", lambda request: StreamingHttpResponse(lines(request))),
    path("endless", lambda request: StreamingHttpResponse(itertools.repeat(b"x" * 100_000))),
    path("nested", nested),
]


def failing_handler(request, exception=None):
    raise LookupError("of a handler")


def excused(get_response):
    """A middleware that makes a page of what went wrong."""

    def middleware(request):
        response = get_response(request)
        return HttpResponse("excused") if response.status_code == 500 else response

    return middleware


def unavailable(get_response):
    """A middleware that changes the status of what went wrong."""

    def middleware(request):
        response = get_response(request)
        return HttpResponse(status=503) if response.status_code == 500 else response

    return middleware


def failing_late(get_response):
    def middleware(request):
        get_response(request)
        raise LookupError("of a middleware")

    return middleware


def hiding(get_response):
    """A middleware that reports an error, and hides it behind another."""

    def middleware(request):
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            got_request_exception.send(sender=None, request=request)
            raise LookupError("of a middleware") from None

    return middleware


@pytest.fixture(autouse=True)
def site(settings, django_db_blocker):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    settings.ALLOWED_HOSTS = ["shop.example.org"]
    settings.DEBUG = False
    REQUESTS.clear()
    before = logging.getLogger("django.request").filters[:], got_request_exception.receivers[:]
    with django_db_blocker.unblock():  # a request looks at the connections that are open
        yield settings
    assert (logging.getLogger("django.request").filters, got_request_exception.receivers) == before


@pytest.fixture
def handle():
    """Give Django's logger a handler for the length of the test."""
    logger = logging.getLogger("django")
    handlers = []

    def add(handler):
        handlers.append(handler)
        logger.addHandler(handler)

    yield add
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.fixture
def logged(handle):
    """The messages that Django logs."""
    messages = []

    class Recorder(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    handle(Recorder())
    return messages


@pytest.fixture
def mailed(handle):
    """The subjects of what Django would mail to the admins."""
    subjects = []

    class Mailer(AdminEmailHandler):
        def send_mail(self, subject, *args, **kwargs):
            subjects.append(subject)

    handle(Mailer())
    return subjects


def django():
    """Django's own application, which must be asked as the standard says."""
    return validator(WSGIHandler())


def reason(application, path="/"):
    with pytest.raises(Refusal) as caught:
        warm_up(application, [path])
    return str(caught.value)


def app(status="200 OK", body=(b"",), headers=(("Content-Type", "text/plain"),)):
    """Return an application that answers so, and notes the variables of its requests."""

    def answer(environ, start_response):
        answer.environs.append(environ)
        start_response(status, list(headers))
        return body

    answer.environs = []
    return answer


# What is sent


@pytest.mark.parametrize(
    ("asked", "path_info", "query"),
    [
        ("/", "/", ""),
        ("/shop/", "/shop/", ""),
        ("/shop/?page=2&q=a?b", "/shop/", "page=2&q=a?b"),
        ("/a%20b/%C3%A4", "/a b/Ã¤", ""),
        ("/ä/%41", "/Ã¤/A", ""),
        ("/?q=ä%20+b", "/", "q=%C3%A4%20+b"),
        ("//twice//", "//twice//", ""),
    ],
)
def test_a_request_is_what_a_server_makes_of_the_path(asked, path_info, query):
    answer = app()
    warm_up(validator(answer), [asked])
    (environ,) = answer.environs
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path_info, query)
    assert (environ["SCRIPT_NAME"], environ["REQUEST_METHOD"]) == ("", "GET")
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["HTTP_USER_AGENT"] == f"django-wspbus/{__version__} (warm-up)"
    assert environ["wsgi.input"].read(1) == b""
    assert "wsgi.file_wrapper" not in environ


def test_django_sees_the_path_as_it_is_written():
    warm_up(django(), ["/shop/a%20ä?q=%C3%B6", "/"])
    first, second = REQUESTS
    assert (first.path, first.GET["q"]) == ("/shop/a ä", "ö")
    assert first.build_absolute_uri() == "http://shop.example.org/shop/a%20%C3%A4?q=%C3%B6"
    assert second.path == "/"


def test_what_is_mounted_answers_for_its_prefix():
    main, mounted = app(), app()
    warm_up(Mounts(main, {"/legacy": mounted}), ["/legacy/x", "/"])
    assert [environ["PATH_INFO"] for environ in mounted.environs] == ["/x"]
    assert [environ["PATH_INFO"] for environ in main.environs] == ["/"]


def test_without_paths_nothing_is_asked():
    answer = app("500 Internal Server Error")
    warm_up(answer, [])
    assert answer.environs == []


# A host and a scheme that the project accepts


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (["shop.example.org", "other.example.org"], "shop.example.org"),
        ([".example.org"], "example.org"),
        (["*"], "localhost"),
        (["*", "shop.example.org"], "shop.example.org"),
        (["", ".", "*.example.org", "shop.example.org:8000", "a_b", "::1", "shop.example.org."], "localhost"),
        (["shop.example.org:8000", "Other.example.org"], "Other.example.org"),
        (["[::1]"], "[::1]"),
        (["127.0.0.1"], "127.0.0.1"),
        ([], "localhost"),
    ],
)
def test_the_host_is_the_first_that_is_allowed_and_can_be_named(site, allowed, host):
    site.ALLOWED_HOSTS = allowed
    assert conf.own_host() == (host, "http", {})


@pytest.mark.parametrize("allowed", [["shop.example.org"], [".example.org"], ["*"], ["[::1]"], ["A.example"]])
@pytest.mark.parametrize("forwarded", [True, False])
def test_django_accepts_the_host(site, allowed, forwarded):
    site.ALLOWED_HOSTS = allowed
    site.USE_X_FORWARDED_HOST = site.USE_X_FORWARDED_PORT = forwarded
    warm_up(django(), ["/"])
    (request,) = REQUESTS
    assert request.get_host() == conf.own_host()[0] == request.META["SERVER_NAME"]
    assert request.get_port() == "80"


def test_under_debug_a_project_without_allowed_hosts_is_asked_as_localhost(site):
    site.DEBUG = True
    site.ALLOWED_HOSTS = []
    warm_up(django(), ["/"])
    assert REQUESTS[0].get_host() == "localhost"


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("header", [("HTTP_X_FORWARDED_PROTO", "https"), None])
def test_the_request_is_secure_if_the_project_wants_it_so(site, redirects, header):
    site.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
    site.SECURE_SSL_REDIRECT = redirects
    site.SECURE_PROXY_SSL_HEADER = header
    warm_up(django(), ["/"])
    (request,) = REQUESTS  # not redirected
    assert request.is_secure() is redirects
    assert request.META["SERVER_PORT"] == ("443" if redirects else "80")
    assert ("HTTP_X_FORWARDED_PROTO" in request.META) is (redirects and header is not None)


def test_a_proxy_header_of_the_wrong_shape_is_left_to_django_to_name(site):
    site.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
    site.SECURE_SSL_REDIRECT = True
    site.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO",)
    assert "The SECURE_PROXY_SSL_HEADER setting must be a tuple" in reason(django())


# What is no failure


@pytest.mark.parametrize("path", ["/missing", "/nowhere", "/denied", "/suspicious", "/shop"])
def test_an_answer_below_500_will_do(path):
    warm_up(django(), [path])


def test_a_redirect_will_do(site):
    site.PREPEND_WWW = True
    warm_up(django(), ["/"])
    assert REQUESTS == []


def test_what_django_logs_of_other_answers_is_logged(logged):
    warm_up(django(), ["/nowhere"])
    assert logged == ["Not Found: /nowhere"]


def test_a_page_that_a_middleware_makes_of_an_error_will_do_and_the_error_is_logged(site, logged, mailed):
    site.MIDDLEWARE = [f"{__name__}.excused"]
    warm_up(django(), ["/broken"])
    assert logged == ["Internal Server Error: /broken"]
    assert mailed == ["ERROR (EXTERNAL IP): Internal Server Error: /broken"]


def test_a_request_that_the_application_makes_by_itself_is_none_of_ours(logged):
    warm_up(django(), ["/nested"])
    assert logged == ["Internal Server Error: /broken"]


@pytest.mark.parametrize("how", ["iterable", "write"])
def test_a_response_without_an_end_is_read_for_a_while_and_closed(how, monkeypatch):
    monkeypatch.setattr(warmup, "MOST_OF_A_BODY", 1000)
    closed = []

    class Body:
        def __iter__(self):
            return itertools.repeat(b"x" * 100)

        def close(self):
            closed.append(self)

    def endless(environ, start_response):
        write = start_response("200 OK", [])
        if how == "write":
            for data in Body():
                write(data)
        return Body()

    warm_up(endless, ["/"])
    assert len(closed) == (how == "iterable")


def test_an_endless_response_of_django_ends():
    warm_up(WSGIHandler(), ["/endless"])


# What is a failure


@pytest.mark.parametrize("debug", [True, False])
def test_an_error_in_a_view_is_reported_once_and_logged_nowhere_else(site, logged, mailed, debug):
    site.DEBUG = debug
    text = reason(django(), "/broken")
    first, second, *_, last = text.splitlines()
    assert first == "WSPBUS[\"WARMUP\"]: the request for '/broken' was answered 500 Internal Server Error."
    assert re.fullmatch(r"tests/application/test_warmup\.py, line \d+: ZeroDivisionError: of a view", second)
    assert last == "ZeroDivisionError: of a view"
    assert text.count("\nZeroDivisionError: of a view") == 1
    assert f'File "{__file__}"' in text
    assert "/warmup.py" not in text.replace(__file__, "")
    assert (logged, mailed) == ([], [])


def test_the_first_path_that_fails_is_the_last_to_be_asked():
    with pytest.raises(Refusal, match="the request for '/broken' was answered"):
        warm_up(django(), ["/", "/broken", "/left"])
    assert [request.path for request in REQUESTS] == ["/", "/broken"]


def test_an_error_that_leaves_the_application_is_reported_once(site, logged):
    site.DEBUG_PROPAGATE_EXCEPTIONS = True
    text = reason(django(), "/broken")
    assert text.startswith(
        "WSPBUS[\"WARMUP\"]: the request for '/broken' failed.\ntests/application/test_warmup.py, line "
    )
    assert text.count("\nZeroDivisionError: of a view") == 1
    assert logged == []


@pytest.mark.parametrize(("path", "first"), [("/broken", "ZeroDivisionError"), ("/missing", "Http404")])
def test_an_error_in_an_error_handler_is_reported_with_the_error_that_it_handles(monkeypatch, path, first):
    monkeypatch.setitem(globals(), "handler500", failing_handler)
    monkeypatch.setitem(globals(), "handler404", failing_handler)
    text = reason(django(), path)
    assert text.count(f"{first}: of a view" if path == "/broken" else first) == 1
    assert "LookupError: of a handler" in text.splitlines()[-1]


def test_each_of_two_errors_is_reported(site, logged):
    site.MIDDLEWARE = [f"{__name__}.failing_late"]
    text = reason(django(), "/broken")
    assert text.count("\nZeroDivisionError: of a view") == 1
    assert text.splitlines()[-1] == "LookupError: of a middleware"
    assert logged == []


def test_an_error_is_reported_whatever_status_is_made_of_it(site):
    site.MIDDLEWARE = [f"{__name__}.unavailable"]
    text = reason(django(), "/broken")
    assert "'/broken' was answered 503 Service Unavailable.\ntests/application/test_warmup.py, line " in text
    assert text.splitlines()[-1] == "ZeroDivisionError: of a view"


def test_a_status_without_an_error_is_reported_with_the_beginning_of_its_text(logged):
    line, text = reason(django(), "/down").splitlines()
    assert line == "WSPBUS[\"WARMUP\"]: the request for '/down' was answered 503 Service Unavailable."
    assert text == "Down for " + "ä" * (warmup.MOST_OF_A_REASON - len("Down for "))
    assert logged == []


@pytest.mark.parametrize("path", ["/nothing", "/image"])
def test_a_body_that_says_nothing_is_left_out(path):
    assert reason(django(), path).endswith("was answered 503 Service Unavailable.")


def test_the_beginning_of_a_text_may_come_in_parts_and_be_json():
    headers = [("content-type", "Application/JSON")]
    text = reason(app("503 No", [b'{"database"', b": ", b'"down"}'], headers))
    assert text.splitlines()[1] == '{"database": "down"}'


def test_an_error_after_the_status_is_a_failure():
    text = reason(django(), "/streaming")
    assert text.startswith(
        "WSPBUS[\"WARMUP\"]: the request for '/streaming' failed.\ntests/application/test_warmup.py, line "
    )
    assert text.splitlines()[-1] == "ZeroDivisionError: of a view"


def test_an_error_at_the_close_is_a_failure():
    class Body(list):
        def close(self):
            raise ZeroDivisionError("of a body")

    assert reason(validator(app(body=Body()))).splitlines()[-1] == "ZeroDivisionError: of a body"


def test_an_application_that_leaves_the_process_has_failed():
    assert reason(django(), "/left").splitlines()[-1] == "SystemExit: 3"


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt):
        warm_up(django(), ["/interrupted"])


# Applications of other frameworks


def test_a_page_of_flask_will_do_and_its_500_is_a_failure_that_flask_logs(caplog):
    flask = pytest.importorskip("flask")
    flask_app = flask.Flask(__name__)
    flask_app.add_url_rule("/", view_func=lambda: "page")
    flask_app.add_url_rule("/broken", endpoint="broken", view_func=lambda: 1 / 0)
    warm_up(validator(flask_app), ["/", "/nowhere"])
    text = reason(validator(flask_app), "/broken")
    assert "'/broken' was answered 500 INTERNAL SERVER ERROR.\n<!doctype html> <html lang=en>" in text
    assert caplog.messages == ["Exception on /broken [GET]"]


def test_an_application_that_starts_no_response_has_failed():
    assert reason(lambda environ, start_response: []) == (
        "WSPBUS[\"WARMUP\"]: the request for '/' failed.\n"
        "RuntimeError: The application did not call start_response."
    )


def test_an_application_that_starts_two_responses_has_failed():
    def twice(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])

    assert "RuntimeError: The application called start_response twice." in reason(twice)


def fails_after(body):
    """Return an application that fails after a body, and reports that as PEP 3333 says."""

    def failing(environ, start_response):
        write = start_response("200 OK", [])
        try:
            write(body)
            raise ZeroDivisionError("of an application")
        except ZeroDivisionError:
            start_response("500 No", [], sys.exc_info())
        return []

    return failing


@pytest.mark.parametrize(("body", "what"), [(b"", "was answered 500 No."), (b"begun", "failed.")])
def test_an_error_that_an_application_hands_to_start_response_is_reported(body, what):
    text = reason(fails_after(body))
    assert text.startswith(
        f"WSPBUS[\"WARMUP\"]: the request for '/' {what}\ntests/application/test_warmup.py, line "
    )
    assert text.count("\nZeroDivisionError: of an application") == 1


def test_an_error_that_shows_itself_among_its_causes_is_reported():
    error = ZeroDivisionError("in a circle")
    error.__cause__ = error

    def failing(environ, start_response):
        raise error

    assert reason(failing).count("\nZeroDivisionError: in a circle") == 1


def test_an_error_that_hides_what_led_to_it_is_reported_beside_that(site):
    site.MIDDLEWARE = [f"{__name__}.hiding"]
    text = reason(django())
    assert text.count("\nZeroDivisionError: ") == text.count("\nLookupError: ") == 1


def test_a_signal_without_an_error_or_with_another_request_means_nothing(site):
    def signalling(environ, start_response):
        got_request_exception.send(sender=None, request=None)
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            got_request_exception.send(sender=None, request=None)
        return app("503 No")(environ, start_response)

    assert reason(signalling).endswith("503 No.")
