"""WSGI applications of other frameworks beside Django's."""

from __future__ import annotations

import json

import pytest

from tests.projects import Project

from .clients import ask
from .conftest import KINDS, address_of, configure

LEGACY = """\
import json

from flask import Flask, request, url_for

flask_app = Flask(__name__)


@flask_app.route("/page/<name>", methods=["GET", "POST"])
def page(name):
    return {"flask": name, "root": request.script_root, "url": url_for("page", name="x"),
            "body": request.get_data(as_text=True)}


def bare(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"bare": [environ["SCRIPT_NAME"], environ["PATH_INFO"]]}).encode()]
"""


@pytest.mark.extended
def test_each_request_goes_to_the_longest_prefix_of_its_path(shop: Project) -> None:
    pytest.importorskip("flask")
    shop.write("legacy.py", LEGACY)
    mounts = {"/legacy": "legacy.flask_app", "/legacy/deep": "legacy.bare", "/äö": "legacy.bare"}
    kinds = ("threaded", "gthread")
    configure(shop, {kind: {**KINDS[kind], "MOUNTS": mounts} for kind in kinds})
    with shop.serve() as site:
        for kind in kinds:
            address = address_of(site, kind)
            status, body = ask(address, "/legacy/page/one", b"sent")
            assert (status, json.loads(body)) == (
                200,
                {"flask": "one", "root": "/legacy", "url": "/legacy/page/x", "body": "sent"},
            )
            assert ask(address, "/legacy")[0] == 404  # of Flask, which has no such page
            for path, found in (
                ("/legacy/deep", ["/legacy/deep", ""]),
                ("/legacy/deep/", ["/legacy/deep", "/"]),
                ("/legacy/deep/x?y=z", ["/legacy/deep", "/x"]),
            ):
                assert json.loads(ask(address, path)[1]) == {"bare": found}
            assert ask(address)[1].endswith("STARTED")
            assert "Flask" not in ask(address, "/legacyx")[1]
            assert ask(address, "/legacyx")[0] == 404
            assert ask(address, "/%C3%A4%C3%B6/x")[1].count("bare") == 1
        assert site.stop() == 0
