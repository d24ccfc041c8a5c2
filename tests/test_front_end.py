"""How the viewer's third-party scripts get into the package."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCK = json.loads((ROOT / "web" / "package-lock.json").read_text(encoding="utf-8"))
PACKAGE = json.loads((ROOT / "web" / "package.json").read_text(encoding="utf-8"))


@pytest.fixture
def hook():
    """hatch_build.py, anew for each test."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_is_pinned_with_its_hash():
    packages = {place: facts for place, facts in LOCK["packages"].items() if place}
    assert len(packages) > 20
    for place, facts in packages.items():
        assert facts["integrity"].startswith("sha512-"), place
        assert not facts.get("link"), place
        assert facts.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/"), place
    asked = {**PACKAGE["dependencies"], **PACKAGE["devDependencies"]}
    assert asked == {name: packages[f"node_modules/{name}"]["version"] for name in asked}  # exact, no ranges


def test_no_script_of_a_package_is_run(hook, monkeypatch):
    ran = []

    def run(command, **options):
        ran.append(command)
        return subprocess.CompletedProcess(command, 1, "", "stop here")

    monkeypatch.setattr(hook.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(hook.subprocess, "run", run)
    with pytest.raises(hook.FrontEndError, match="stop here"):
        hook.build()
    assert ran[0][1:3] == ["ci", "--ignore-scripts"]


@pytest.mark.parametrize("built", [True, False])
def test_without_npm_only_a_checkout_goes_on(hook, monkeypatch, built):
    warned = []

    class App:
        display_warning = staticmethod(warned.append)

    class Hook(hook.CustomBuildHook):
        app = App()

        def __init__(self) -> None:
            pass

    monkeypatch.setattr(hook.shutil, "which", lambda name: None)
    monkeypatch.setattr(hook, "built", lambda: built)
    Hook().initialize("editable", {})
    assert re.search(r"lamella view will not work: .*install it, then run `make web`", warned[0])
    data = {"artifacts": []}
    if built:  # an earlier build left them: they are what was pinned then
        Hook().initialize("standard", data)
        assert data["artifacts"] == ["src/lamella/view/static/vendor/*"]
    else:
        with pytest.raises(hook.FrontEndError, match=r"Node\.js"):
            Hook().initialize("standard", data)


def test_a_package_that_changed_its_files_is_refused(hook, monkeypatch, tmp_path):
    monkeypatch.setattr(hook, "WEB", tmp_path)
    monkeypatch.setattr(hook, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(hook.shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(hook.subprocess, "run", lambda *a, **b: subprocess.CompletedProcess(a, 0, "", ""))
    with pytest.raises(hook.FrontEndError, match=r"openseadragon\.min\.js is missing"):
        hook.build()


def test_no_third_party_code_is_in_the_repository():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "web/package-lock.json" in listed
    assert not [path for path in listed if "node_modules" in path or "/vendor/" in path]


def test_the_licences_of_what_is_shipped_are_shipped(hook):
    if not hook.built():
        pytest.skip("the front end is not built: `make web` (needs Node.js)")
    text = (hook.VENDOR / hook.LICENCES).read_text(encoding="utf-8")
    for name in ("openseadragon 6.", "@annotorious/openseadragon 3.", "@pixi/unsafe-eval 7."):
        assert re.search(rf"^{re.escape(name)}", text, re.MULTILINE)
    for part in text.split("-" * 80):
        assert len(part.strip().splitlines()) > 5 or "see below" not in part, part  # a heading and a licence
    assert "axe-core" not in text  # for tests only


def _built(kind: str, folder: Path) -> Path:
    """A distribution made as pip makes it, in an environment of its own."""
    checkout = folder / "checkout"  # a copy: npm would take packages for tests away from under them
    left = shutil.ignore_patterns(".git", ".venv", "node_modules", "vendor", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, checkout, ignore=left)
    code = "import hatchling.build as b, sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", "hatchling"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"hatchling cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    done = subprocess.run([python, "-c", code, kind, folder], cwd=checkout, capture_output=True, text=True, check=True)
    return folder / done.stdout.split()[-1]


@pytest.mark.slow
def test_a_wheel_has_the_front_end_and_its_licences(hook, tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    with zipfile.ZipFile(_built("build_wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        assert b"OpenSeadragon" in wheel.read("lamella/view/static/vendor/openseadragon.js")
    for name in (*hook.FILES.values(), hook.LICENCES):
        assert f"lamella/view/static/vendor/{name}" in names
    for name in ("static/look.css", "static/slide.js", "templates/page.html", "templates/gallery.html"):
        assert f"lamella/view/{name}" in names
    assert not [name for name in names if "node_modules" in name]


@pytest.mark.slow
def test_an_sdist_is_made_without_npm_and_holds_what_a_wheel_is_made_of(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with tarfile.open(_built("build_sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"hatch_build.py", "web/package.json", "web/package-lock.json", "web/annotorious.LICENSE.txt"} <= names
    assert not [name for name in names if "node_modules" in name or "/vendor/" in name]
