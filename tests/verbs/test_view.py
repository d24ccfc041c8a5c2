"""The verb: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
import uvicorn
from starlette.testclient import TestClient

from lamella.cli import main
from lamella.config import Request
from lamella.errors import LamellaError
from lamella.verbs import view

_RUN = """
import sys
from lamella.cli import main
code = main(sys.argv[1:])
print("torch" in sys.modules, code)
"""


@pytest.fixture
def slides(make_slide, tmp_path):
    (tmp_path / "slides").mkdir()
    make_slide("a.tif", 256, 256, folder=tmp_path / "slides")
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")
    return tmp_path / "slides"


@pytest.fixture
def front_end(monkeypatch, tmp_path):
    """A checkout whose front end is built."""
    from lamella.view.server import pages

    (tmp_path / "static" / "vendor").mkdir(parents=True)
    (tmp_path / "static" / "vendor" / "openseadragon.js").touch()
    monkeypatch.setattr(pages, "STATIC", tmp_path / "static")


def _asked(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
def test_it_says_where_it_is_and_ends_in_order(slides, front_end, monkeypatch, capsys, host):
    """In this process; the server's own loop is another's."""
    seen = {}

    def run_server(server, sockets):
        client = TestClient(server.config.app, base_url="http://127.0.0.1")
        seen.update(port=sockets[0].getsockname()[1], status=client.get("/").status_code, config=server.config)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run_server)
    assert main(["view", str(slides), "port=0", *(["--host", host] if host else [])]) == 0
    text = capsys.readouterr().out
    address = re.search(r"open  http://127\.0\.0\.1:(\d+)/(\S*)", text)
    assert int(address[1]) == seen["port"]
    assert seen["status"] == (200 if host is None else 401)
    assert bool(address[2]) == (host is not None)
    assert ("ssh -N -L" in text) == (host is None)
    assert not seen["config"].access_log  # it would hold the token


@pytest.mark.slow
@pytest.mark.parametrize("host", [None, "127.0.0.1"])
def test_it_serves_until_ctrl_c(slides, tmp_path, host):
    from lamella.view.server.pages import STATIC

    if not (STATIC / "vendor" / "openseadragon.js").is_file():
        pytest.skip("the front end is not built: `make web` (needs Node.js)")
    command = [sys.executable, "-c", _RUN, "view", str(slides), "port=0", *(["--host", host] if host else [])]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        _check_serving("".join(lines), host)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        watchdog.cancel()
    assert process.returncode == 0
    assert rest.strip() == "False 0"  # no torch without a model, no traceback
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slides"]  # looking writes nothing


def _check_serving(text: str, host: str | None) -> None:
    address = re.search(r"open  (http://127\.0\.0\.1:(\d+)/\S*)", text)
    assert address, text
    assert "2 slides (1 of them cannot be read" in text
    if host is None:
        assert f"-L {address[2]}:127.0.0.1:{address[2]} " in text
        assert _asked(address[1]) == 200
    else:  # the token is asked for even at the own address, if others may come
        assert len(address[1].partition("?token=")[2]) >= 43
        assert _asked(f"http://127.0.0.1:{address[2]}/") == 401


def test_a_dry_run_prints_settings_and_what_was_found(slides, capsys):
    assert main(["view", str(slides), "--dry-run", "author=eve"]) == 0
    text = capsys.readouterr().out
    assert "author: eve" in text
    assert "2 slides (1 of them cannot be read" in text
    assert "annotations are saved in annotations/" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no paths are given"),
        (["nowhere"], "no such file or folder"),
        (["{slides}", "prefix=lamella"], "prefix"),
        (["{slides}", "prefix=/a/../b?"], "prefix"),
        (["{slides}", "author=../eve"], "author '../eve'"),
        (["{slides}", "port=70000"], "port"),
    ],
)
def test_what_cannot_be_is_refused(slides, front_end, capsys, arguments, said):
    assert main(["view", *(text.format(slides=slides) for text in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_a_checkout_without_its_front_end_says_what_to_run(slides, monkeypatch, tmp_path, capsys):
    from lamella.view.server import pages

    monkeypatch.setattr(pages, "STATIC", tmp_path / "nothing")
    assert main(["view", str(slides)]) == 2
    assert "run `make web`" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(slides, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["view", str(slides)]) == 2
    assert "pip install 'lamella[view]'" in capsys.readouterr().err


def test_settings_reach_what_is_served(slides, front_end, monkeypatch):
    seen = {}

    def serve(served, config, host):
        seen.update(served=served, host=host)
        return 0

    monkeypatch.setattr(view, "_serve", serve)
    settings = ("open_slides=2", "tile_memory_mb=3", "author=eve")
    request = Request("view", (slides,), slides / "drawn", overrides=settings, options={"host": None})
    assert view.run(request) == 0
    served = seen["served"]
    assert served.slides.max_slides == 2
    assert served.tiles.max_bytes == 3 << 20
    assert served.author == "eve"
    assert served.annotations.folder == slides / "drawn"
    assert served.prompter is None
    assert "model=" in served.no_prompter


def test_a_folder_of_annotations_among_the_paths_is_the_one_that_is_written_to(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "annotations.json").write_text("{}")
    one = Request("view", (tmp_path / "one",))
    assert view._annotation_folder(one) == tmp_path / "one"
    with pytest.raises(LamellaError, match="several folders of annotations"):
        view._annotation_folder(Request("view", (tmp_path / "one", tmp_path / "two")))
