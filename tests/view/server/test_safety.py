"""Whom the viewer answers: each test is something that a page of a stranger, or a stranger, would try."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lamella.view.server import safety as safety_module
from lamella.view.server.app import STATIC_FILES
from lamella.view.server.safety import Guard, Safety, host_names

ADDRESS = "http://127.0.0.1:8642"
WRITE = {"x-lamella": "1", "content-type": "application/json"}
TOKEN = "a-token-of-twenty-four-bytes"


async def _save(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


async def _read(request: Request) -> JSONResponse:
    return JSONResponse({"read": True})


def _guarded(**allowed) -> TestClient:
    routes = [
        Route("/", _read),
        Route("/slide/a", _read),
        Route("/api/save", _save, methods=["POST"]),
        Route("/api/read", _read),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, safety=Safety(**allowed))])
    return TestClient(app, base_url=ADDRESS, follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8642", "localhost:9", "LOCALHOST.", "[::1]:8642"])
def test_the_own_names_are_answered(host):
    assert _guarded().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "", "127.0.0.1@evil.example", "localhost:x"]
)
def test_a_name_that_a_stranger_points_here_is_refused(host):
    answer = _guarded().get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "read" not in answer.json()


def test_names_that_the_user_adds_are_answered():
    client = _guarded(hosts=host_names("192.0.2.7", ["Viewer.example"]))
    for host in ("192.0.2.7:8642", "viewer.example", "localhost"):
        assert client.get("/", headers={"host": host}).status_code == 200
    assert host_names("::1")[-1] == "[::1]"


def test_a_viewer_on_all_addresses_answers_to_numbers_but_not_to_names():
    client = _guarded(any_address=True)
    for host in ("192.0.2.7:8642", "[2001:db8::1]:8642", "10.0.0.1"):
        assert client.get("/", headers={"host": host}).status_code == 200
        assert _guarded().get("/", headers={"host": host}).status_code == 421
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421


def test_two_host_headers_are_refused():
    answer = _guarded().get("/", headers=[("host", "127.0.0.1"), ("host", "evil.example")])
    assert answer.status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": ADDRESS},
        {"sec-fetch-site": "cross-site", "origin": ADDRESS},
        {"sec-fetch-site": "none"},
    ],
)
def test_writes_from_another_site_are_refused(headers):
    answer = _guarded().post("/api/save", json={}, headers={**WRITE, **headers})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 403),
        ({"x-lamella": "1", "content-type": "text/plain"}, 415),
        ({"x-lamella": "1", "content-type": "application/x-www-form-urlencoded"}, 415),
        ({"x-lamella": "1"}, 415),
    ],
)
def test_writes_that_a_form_could_send_are_refused(headers, status):
    assert _guarded().post("/api/save", content=b"{}", headers=headers).status_code == status


@pytest.mark.parametrize("headers", [{}, {"origin": ADDRESS}, {"origin": ADDRESS, "sec-fetch-site": "same-origin"}])
def test_own_writes_pass(headers):
    answer = _guarded().post("/api/save", content=b"{}", headers={**WRITE, **headers})
    assert answer.json() == {"bytes": 2}


def test_no_other_site_is_told_that_it_may_write():
    answer = _guarded().options(
        "/api/save", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_reads_from_another_site_are_refused_but_for_links_to_pages():
    client = _guarded()
    picture = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    frame = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    assert client.get("/api/read", headers=picture).status_code == 403
    assert client.get("/api/read", headers=link).status_code == 403
    assert client.get("/slide/a", headers=frame).status_code == 403
    assert client.get("/slide/a", headers=link).status_code == 200
    assert client.get("/api/read", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_without_the_token_nothing_is_told():
    client = _guarded(token=TOKEN)
    for path in ("/", "/api/read", "/nowhere", "/?token=wrong", "/?token=", "/?token=%C3%A9"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    assert client.post("/api/save", json={}, headers=WRITE).status_code == 401
    assert client.get("/", headers={"cookie": "lamella-00000000=x; bad[name]=1"}).status_code == 401


def test_the_token_in_the_address_becomes_a_cookie_and_goes():
    client = _guarded(token=TOKEN)
    answer = client.get(f"/slide/a?x=1&token={TOKEN}&y=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "./a?x=1&y=a%26b"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/slide/a").json() == {"read": True}  # the client keeps cookies
    assert _guarded(token=TOKEN).get("/api/read", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_token_does_not_excuse_another_site():
    client = _guarded(token=TOKEN)
    headers = {**WRITE, "authorization": f"Bearer {TOKEN}", "origin": "https://evil.example"}
    assert client.post("/api/save", json={}, headers=headers).status_code == 403


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = safety_module.secrets.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(safety_module.secrets, "compare_digest", compare)
    client = _guarded(token=TOKEN)
    assert client.get("/?token=guess").status_code == 401
    assert b"guess" in compared


def test_a_body_that_says_that_it_is_too_large_is_not_read():
    answer = _guarded(max_body_bytes=10).post("/api/save", content=b"x" * 11, headers=WRITE)
    assert answer.status_code == 413


def test_a_body_without_a_length_is_counted_while_it_comes():
    def pieces():
        for _ in range(3):
            yield b"xxxxx"

    answer = _guarded(max_body_bytes=10).post("/api/save", content=pieces(), headers=WRITE)
    assert answer.status_code == 413
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/read", "/nowhere", "/slide/.."])
def test_every_answer_has_the_policy(path):
    headers = _guarded().get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


def test_a_fault_is_a_line_under_the_same_policy():
    def broken(request: Request) -> JSONResponse:
        raise RuntimeError("/home/someone/secret")

    app = Starlette(routes=[Route("/", broken)], middleware=[Middleware(Guard, safety=Safety())])
    answer = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False).get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers


def test_pages_hold_nothing_that_the_policy_forbids(viewer, make_slide):
    client = viewer(make_slide("a.tif"))
    for path in ("/", "/slide/a", "/log", "/nowhere"):
        text = client.get(path).text
        assert "<script>" not in text
        assert " style=" not in text
        assert "<style" not in text
        assert " onclick=" not in text
        assert "://" not in text


@contextmanager
def _listening(app):
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listener.close()


def _raw(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Exactly this path: clients would tidy it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, body


def test_no_path_leads_out_of_what_is_served(viewer, make_slide, tmp_path):
    secret = tmp_path / "secret.css"
    secret.write_text("secret")
    (tmp_path / "slides").mkdir()
    client = viewer(make_slide("a.tif", folder=tmp_path / "slides"))
    up = "/".join([".."] * 12)
    paths = [
        f"/static/{up}{secret}",
        f"/static/{up.replace('..', '%2e%2e')}{secret}",
        f"/static/{up.replace('/', '%2f')}{str(secret).replace('/', '%2f')}",
        f"/static/..%5c..%5c{secret.name}",
        f"/static/{secret}",
        "/static/%00",
        "/static/look.css%00.js",
        "/static/../pages.py",
        "/static/%2e%2e/server/pages.py",
        f"/slide/..%2f..%2f{secret.name}",
        "/slide/%2e%2e",
        f"/api/slides/..%2f{secret.name}",
        f"/api/slides/{str(secret).replace('/', '%2f')}/tiles/0/0_0.jpg",
        "/api/slides/a/annotations/..%2f..%2fx.geojson",
        "/api/slides/a/tiles/0/-1_0.jpg",
        "/api/slides/a/tiles/99/0_0.jpg",
        "/run/..%2f..",
        "/scan/%2e%2e%2f",
    ]
    with _listening(client.app) as port:
        for path in paths:
            status, body = _raw(port, path)
            assert status in (400, 404, 405), path
            assert b"secret" not in body
            assert b"StaticFiles" not in body
        assert _raw(port, "/static/look.css")[0] == 200
        assert _raw(port, "/", "HEAD") == (200, b"")


def test_a_link_in_the_static_folder_is_not_followed(viewer, make_slide, tmp_path, monkeypatch):
    (tmp_path / "secret.css").write_text("secret")
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "own.css").write_text("own")
    (tmp_path / "static" / "link.css").symlink_to(tmp_path / "secret.css")
    monkeypatch.setattr(STATIC_FILES, "all_directories", [str(tmp_path / "static")])
    client = viewer(make_slide("a.tif"))
    assert client.get("/static/own.css").text == "own"
    assert client.get("/static/link.css").status_code == 404


def test_refusals_are_json_that_a_script_can_read():
    answer = _guarded().post("/api/save", content=b"{}")
    assert "x-lamella" in json.loads(answer.text)["error"]


def test_every_address_that_writes_refuses_strangers(viewer, make_slide):
    """Of the whole viewer, so that no route is forgotten."""
    client = viewer(make_slide("a.tif", 256, 256))
    writes = [route for route in client.app.routes if set(getattr(route, "methods", None) or ()) - {"GET", "HEAD"}]
    assert len(writes) >= 3  # annotations, their import, prompts
    for route in writes:
        path = re.sub(r"\{(\w+)(:\w+)?\}", "a", route.path)
        for headers in ({}, {**WRITE, "origin": "https://evil.example"}, {**WRITE, "sec-fetch-site": "cross-site"}):
            assert client.post(path, content=b"{}", headers=headers).status_code == 403, path
        assert client.post(path, content=b"{}", headers={"x-lamella": "1"}).status_code == 415, path
