"""The output of each action in a pipe: one line for each thing, in aligned columns; and its exit status."""

from __future__ import annotations

import json

import pytest

NO_ARGUMENTS = {}


def test_requests_are_listed_with_the_oldest_first(play):
    one = {
        "server": "default",
        "pid": 4105,
        "thread": 0x7FC865C246C0,
        "method": "GET",
        "age": 0.25,
        "idle": 0.25,
    }
    requests = [
        {**one, "path": "/", "age": 0.25, "idle": 0.25, "stuck": False},
        {**one, "path": "/report\x1b[2J", "age": 75.0, "idle": 61.3, "stuck": True},
    ]
    result = play(requests={"requests": requests, "unrecorded": 2}).run("requests")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "   Age    Idle  Method  Path            Process  Thread              Server   State",
        r"  75 s    61 s  GET     /report\x1b[2J     4105  0x00007fc865c246c0  default  stuck",
        "0.25 s  0.25 s  GET     /                  4105  0x00007fc865c246c0  default",
        "2 more requests in flight: not recorded, as the records are full",
    ]
    assert play(requests={"requests": []}).run("requests").stdout == "No request is in flight.\n"


def test_stacks_are_shown_for_each_process_and_asked_for_one(play):
    site = play(
        stacks={
            "processes": [
                {
                    "pid": 4101,
                    "role": "site",
                    "server": None,
                    "stacks": "Thread 1\n  File a.py",
                    "error": None,
                },
                {
                    "pid": 4105,
                    "role": "worker",
                    "server": "default",
                    "stacks": None,
                    "error": "It has ended.",
                },
            ]
        }
    )
    result = site.run("stacks")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Process 4101, site",
        "    Thread 1",
        "      File a.py",
        "",
        "Process 4105, worker of 'default'",
        "    It has ended.",
    ]
    assert site.requests["stacks"] == {}
    site.run("stacks", "4105")
    assert site.requests["stacks"] == {"pid": 4105}


def test_listeners_are_listed(play):
    listeners = [{"channel": "start", "priority": 50, "role": "worker", "listener": "shop.listeners.warm"}]
    result = play(listeners={"listeners": listeners}).run("listeners")
    assert result.stdout.splitlines() == [
        "Channel  Priority  Role    Listener",
        "start          50  worker  shop.listeners.warm",
    ]


def test_publish_shows_who_answered_what_and_who_did_not(play):
    place = {"role": "worker", "server": "default"}
    replies = [
        {"pid": 4105, **place, "results": [1, {"é": None}], "error": None},
        {"pid": 4106, **place, "results": None, "error": "KeyError: 'sku'"},
    ]
    site = play(publish={"replies": replies, "missing": [{"pid": 4107, **place, "reason": "It is stopped."}]})
    result = site.run("publish", "prices", '"sku-1"', "-1", "null")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        "Process  Role    Server   Results",
        '   4105  worker  default  [1, {"é": null}]',
        "   4106  worker  default  failed: KeyError: 'sku'",
        "   4107  worker  default  did not answer: It is stopped.",
    ]
    assert site.requests["publish"] == {"channel": "prices", "args": ["sku-1", -1, None]}
    site = play(publish={"replies": replies[:1], "missing": []})
    assert site.run("publish", "prices").returncode == 0


@pytest.mark.parametrize("action", ["graceful", "restart", "stop"])
def test_steps_are_shown_when_they_happen_then_the_outcome(play, action):
    def answer(call):
        call.step("booting 'default'")
        call.step("1 of 2 ready")
        return {"message": "Reloaded in 0.84 s.", "seconds": 0.84}

    site = play(**{action: answer})
    result = site.run(action)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["booting 'default'", "1 of 2 ready", "Reloaded in 0.84 s."]
    assert site.requests[action] == {}
    result = site.run(action, "--json")
    assert json.loads(result.stdout) == {"message": "Reloaded in 0.84 s.", "seconds": 0.84}


REASON = "The new code does not boot:\nTraceback (most recent call last):\n  File a.py\nSyntaxError: \x1b[2J"


@pytest.mark.parametrize("action", ["graceful", "restart"])
def test_refused_code_exits_with_1_the_reason_and_the_traceback(play, action):
    def answer(call):
        call.step("booting 'default'")
        raise RuntimeError(REASON)

    result = play(**{action: answer}).run(action)
    assert (result.returncode, result.stdout) == (1, "booting 'default'\n")
    assert result.stderr == REASON.replace("\x1b", r"\x1b") + "\n"
    result = play(**{action: answer}).run(action, "--json")
    assert (result.returncode, json.loads(result.stdout)) == (1, {"error": REASON, "status": 1})
    assert result.stderr


def test_the_children_of_one_server_are_restarted_alone(play):
    site = play(restart={"message": "Restarted in 1.92 s.", "seconds": 1.92})
    assert site.run("restart", "default").stdout == "Restarted in 1.92 s.\n"
    assert site.requests["restart"] == {"alias": "default"}


def test_scale_says_how_many_workers_there_were(play):
    site = play(scale={"server": "default", "before": 2, "workers": 1})
    assert site.run("scale", "default", "1").stdout == "'default' is to have 1 worker instead of 2.\n"
    assert site.requests["scale"] == {"server": "default", "workers": 1}
    site = play(scale={"server": "default", "before": 2, "workers": 2})
    assert site.run("scale", "default", "2").stdout == "'default' has 2 workers already.\n"


def test_reopen_lists_the_files_and_fails_with_one_of_them(play):
    site = play(reopen={"files": ["/var/log/a.log"], "failures": ["/var/log/b.log: Permission denied"]})
    result = site.run("reopen")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == "reopened /var/log/a.log\nfailed: /var/log/b.log: Permission denied\n"
    site = play(reopen={"files": [], "failures": []})
    result = site.run("reopen")
    assert (result.returncode, result.stdout) == (0, "No log file is open.\n")


TEXT = "two\nlines \x1b[2J" + "x" * 300
RECORD = {"time": 86400 * 365 + 0.25, "pid": 4105, "level": "ERROR", "logger": "shop", "text": TEXT}


@pytest.mark.parametrize("follows", [False, True])
def test_logs_are_escaped_and_not_cut_and_no_text_can_pass_for_a_record(play, follows):
    def answer(call):
        if not call.arguments["follow"]:
            return {"records": [RECORD]}
        call.record(RECORD)
        return {"records": []}

    result = play(logs=answer).run("logs", *(["-f"] if follows else []), env={"TZ": "UTC"})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "1971-01-01 00:00:00.250 4105 ERROR shop: two",
        r"    lines \x1b[2J" + "x" * 300,
    ]
    result = play(logs=answer).run("logs", "--follow", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [RECORD, {"records": []}]


def test_an_action_that_the_site_does_not_know_is_named(play):
    result = play().run("requests")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "The site does not know the action 'requests'. It knows: hello.\n"


def test_a_log_that_is_followed_goes_on_over_a_restart(play):
    records = [{"time": time, "pid": 1, "level": "INFO", "logger": "a", "text": "b"} for time in range(3)]
    sent = []

    def answer(call):
        for each in records[: 3 if sent else 2]:
            call.record(each)
        if not sent:
            sent.append(True)
            call.cut_off()

    result = play(logs=answer).run("logs", "--follow", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()[:3]] == records
    assert result.returncode == 0
    assert play(4102, logs=lambda call: call.cut_off()).run("logs", "-f").returncode == 1
