from __future__ import annotations

import os

import pytest
from django.core import checks

from django_wspbus import Plugin, conf
from django_wspbus.conf.findings import IDS
from django_wspbus.site.checks import check_start

SERVER = {"BIND": "127.0.0.1:0"}
REDIS = "django_wspbus.fleet.redis.RedisFleet"


def with_server(**keys):
    return {"SERVERS": {"default": {**SERVER, **keys}}}


# id -> a setting with that one thing wrong, and the path of the key
SHAPES = {
    "E001": ({"PIDFILES": "x"}, 'WSPBUS["PIDFILES"]'),
    "E002": ({"PIDFILE": 1}, 'WSPBUS["PIDFILE"]'),
    "E003": (with_server(BIND=":70000"), 'WSPBUS["SERVERS"]["default"]["BIND"]'),
    "E004": (with_server(BIND=[":1", ":1"]), 'WSPBUS["SERVERS"]["default"]["BIND"]'),
    "E005": (with_server(BACKEND="nowhere.Server"), 'WSPBUS["SERVERS"]["default"]["BACKEND"]'),
    "E007": ({"SIGNALS": {"SIGNONE": "exit"}}, 'WSPBUS["SIGNALS"]["SIGNONE"]'),
    "E008": ({"SIGNALS": {"SIGKILL": "exit"}}, 'WSPBUS["SIGNALS"]["SIGKILL"]'),
    "E012": (with_server(OPTIONS={"worker": 1}), 'WSPBUS["SERVERS"]["default"]["OPTIONS"]["worker"]'),
    "E013": (with_server(OPTIONS={"bind": ":1"}), 'WSPBUS["SERVERS"]["default"]["OPTIONS"]["bind"]'),
    "E014": (with_server(BACKEND="django_wspbus.Plugin"), 'WSPBUS["SERVERS"]["default"]["BACKEND"]'),
    "E015": ({"STOP_TIMEOUT": 0}, 'WSPBUS["STOP_TIMEOUT"]'),
    "E018": ({"AUTORELOAD": True, "DAEMONIZE": True}, 'WSPBUS["AUTORELOAD"]'),
    "E020": (
        with_server(BACKEND="django_wspbus.servers.threaded.ThreadedServer", REQUEST_TIMEOUT=5),
        'WSPBUS["SERVERS"]["default"]["REQUEST_TIMEOUT"]',
    ),
    "W002": (with_server(REQUEST_TIMEOUT=60), 'WSPBUS["SERVERS"]["default"]["OPTIONS"]["timeout"]'),
    "E021": (
        with_server(OPTIONS={"max_requests": 5}, RECYCLE={"REQUESTS": 5}),
        'WSPBUS["SERVERS"]["default"]["OPTIONS"]["max_requests"]',
    ),
    "E027": ({"PROCESSES": {"default": {"COMMAND": ["check"]}}}, 'WSPBUS["PROCESSES"]["default"]'),
    "E028": ({"PROCESSES": {"a": {"COMMAND": ["chek"]}}}, 'WSPBUS["PROCESSES"]["a"]["COMMAND"]'),
    "W001": ({"SIGNALS": {"SIGUSR1": "gracefull"}}, 'WSPBUS["SIGNALS"]["SIGUSR1"]'),
}
MACHINE = {
    "E005": (with_server(APPLICATION="nowhere.app"), 'WSPBUS["SERVERS"]["default"]["APPLICATION"]'),
    "E006": (with_server(APPLICATION="os.name"), 'WSPBUS["SERVERS"]["default"]["APPLICATION"]'),
    "E009": ({"USER": "no-such-user"}, 'WSPBUS["USER"]'),
    "E010": ({"PIDFILE": "/nowhere/site.pid"}, 'WSPBUS["PIDFILE"]'),
    "E011": ({"DAEMONIZE": {"STDOUT": "/nowhere/out.log"}}, 'WSPBUS["DAEMONIZE"]["STDOUT"]'),
    "E016": (
        with_server(OPTIONS={"config": "/nowhere/gunicorn.py"}),
        'WSPBUS["SERVERS"]["default"]["OPTIONS"]["config"]',
    ),
    "W003": (
        {"FLEET": {"NAME": "shop", "BACKEND": REDIS, "OPTIONS": {"url": "unix:///nowhere/redis.sock"}}},
        'WSPBUS["FLEET"]',
    ),
}
PARAMETERS = [
    *(pytest.param(each, *SHAPES[each], False, id=each) for each in SHAPES),
    *(pytest.param(each, *MACHINE[each], True, id=f"{each} deploy") for each in MACHINE),
]


@pytest.fixture
def check(settings):
    """Set WSPBUS and run the system checks; return what they say of it."""

    def run(wspbus, *, deploy):
        settings.WSPBUS = {"SERVERS": {"default": SERVER}, **wspbus}
        found = checks.run_checks(include_deployment_checks=deploy)
        return [message for message in found if message.id.startswith("django_wspbus.")]

    return run


def test_every_id_is_produced_here():
    of_other_settings = {"E017", "E019"}  # what test_conf.py and test_application.py have
    of_engines = {"E022", "E023", "E024", "E025", "E026"}  # what tests/fleet/ has
    assert set(SHAPES) | set(MACHINE) | of_other_settings | of_engines == set(IDS)


@pytest.mark.parametrize(("id", "wspbus", "path", "deploy_only"), PARAMETERS)
def test_each_finding_has_its_id_the_path_of_the_key_and_its_kind(check, id, wspbus, path, deploy_only):  # noqa: A002
    (found,) = check(wspbus, deploy=True)
    assert found.id == f"django_wspbus.{id}"
    assert found.msg.startswith(f"{path}: ")
    assert found.level == (checks.ERROR if id.startswith("E") else checks.WARNING)
    assert check(wspbus, deploy=False) == ([] if deploy_only else [found])


def test_a_good_setting_gives_no_finding(check):
    assert check({}, deploy=True) == []


def test_no_setting_at_all_gives_no_finding(settings):
    del settings.WSPBUS
    found = checks.run_checks(include_deployment_checks=True)
    assert [message for message in found if message.id.startswith("django_wspbus")] == []


def test_all_that_is_wrong_with_the_machine_is_found_at_once(check):
    found = check(
        {
            "SERVERS": {
                "a": {**SERVER, "APPLICATION": "os.name", "OPTIONS": {"config": "/nowhere/gunicorn.py"}},
                "b": {**SERVER, "APPLICATION": "nowhere.app", "MOUNTS": {"/c": "os.nothing"}},
            },
            "USER": "no-such-user",
            "GROUP": "no-such-group",
            "PIDFILE": os.devnull + "/site.pid",
        },
        deploy=True,
    )
    assert sorted(message.id.removeprefix("django_wspbus.") for message in found) == [
        *("E005", "E005", "E006", "E009", "E009", "E010", "E016")
    ]


def test_code_of_the_project_that_fails_at_import_is_a_finding_that_says_where(check, tmp_path, monkeypatch):
    (tmp_path / "broken_application.py").write_text("\n\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = check(with_server(APPLICATION="broken_application.app"), deploy=True)
    assert found.id == "django_wspbus.E005"
    assert "ZeroDivisionError: division by zero" in found.msg
    assert f"{tmp_path / 'broken_application.py'}, line 3" in found.msg


def test_backends_that_are_wrong_keep_the_checks_from_what_depends_on_them(check):
    wspbus = {**with_server(BACKEND="nowhere.Server", APPLICATION="nowhere.app"), "USER": "no-such-user"}
    assert [message.id for message in check(wspbus, deploy=True)] == ["django_wspbus.E005"]


def test_what_runbus_checks_is_all_but_the_applications(settings):
    settings.WSPBUS = {**with_server(APPLICATION="nowhere.app"), "USER": "no-such-user"}
    assert [problem.id for problem in check_start(conf.get())] == ["E009"]
    settings.WSPBUS = {**with_server(OPTIONS={"worker": 1}), "USER": "no-such-user"}
    assert [problem.id for problem in check_start(conf.get())] == ["E012"]


def test_the_command_check_shows_all_that_is_wrong_and_fails(project):
    project.configure(WSPBUS={"SERVERS": {"default": {"BIND": "x"}}, "USERS": "me", "UMASK": "9"})
    result = project.run("check")
    assert result.returncode == 1
    for message in (
        "(django_wspbus.E003)",
        "(django_wspbus.E001)",
        "(django_wspbus.E002)",
        "HINT: Did you mean 'USER'?",
    ):
        assert message in result.stderr
    assert "Traceback" not in result.stderr


class Broken(Plugin):
    def check(self):
        raise RuntimeError("this check")


def test_a_check_of_a_plugin_that_fails_is_seen(settings):
    settings.WSPBUS = with_server() | {"PLUGINS": [{"BACKEND": f"{__name__}.Broken"}]}
    with pytest.raises(RuntimeError, match="this check"):
        check_start(conf.get())
