"""Builds the viewer's front end into the package: third-party scripts from npm, pinned by web/package-lock.json.

`pip install` runs it through hatchling, `make web` alone. The lock file's integrity hashes are checked by npm, no
script of a package is run, and nothing is fetched once Lamella is installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # `python hatch_build.py` in an environment without hatchling
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
WEB, VENDOR = ROOT / "web", ROOT / "src" / "lamella" / "view" / "static" / "vendor"
# What is taken, and as what. Everything else of the packages stays behind.
FILES = {
    "openseadragon/build/openseadragon/openseadragon.min.js": "openseadragon.js",
    "@annotorious/openseadragon/dist/annotorious-openseadragon.js": "annotorious.js",
    "@annotorious/openseadragon/dist/annotorious-openseadragon.css": "annotorious.css",
    "@pixi/unsafe-eval/dist/unsafe-eval.min.js": "pixi-unsafe-eval.js",
}
LICENCES = "LICENCES.txt"
# Annotorious draws with a PixiJS inside its own file, which would make functions from text. The page's content security
# policy forbids that. PixiJS's own remedy, @pixi/unsafe-eval, cannot reach a PixiJS inside another file, so its method
# is handed in at the place where PixiJS would refuse to start (static/before_vendor.js makes the global PIXI).
_REFUSAL = re.compile(
    r'systemCheck\(\)\{if\(!\w+\(\)\)throw new Error\("Current environment does not allow unsafe-eval[^"]*"\)\}'
)
_REMEDY = "systemCheck(){this.syncUniforms=PIXI.ShaderSystem.prototype.syncUniforms}"
# Annotorious keeps lines equally wide at every zoom, but of an object of several pieces the first piece's alone.
_FIRST_PIECE = re.compile(
    r"\{lineStyle:(?P<line>\w+)\}=(?P<one>\w+)\.geometry\.graphicsData\[0\];(?P<width>\w+)>1\?\((?P<before>[^?]*?),"
    r"(?P=line)\.width=(?P=width)/(?P<zoom>\w+),(?P=line)\.native=!1,"
)
_ALL_PIECES = (
    r"{lineStyle:\g<line>}=\g<one>.geometry.graphicsData[0];\g<width>>1?(\g<before>,\g<one>.geometry.graphicsData.forEach("
    r"piece=>Object.assign(piece.lineStyle,{width:\g<width>/\g<zoom>,native:!1})),"
)


class FrontEndError(RuntimeError):
    """The front end cannot be built; the text says what to do."""


def build() -> None:
    """Install the locked packages and copy what the pages use.

    Raises:
        FrontEndError: npm is missing or failed, or a package is not what was pinned.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FrontEndError(
            "the viewer's front end needs Node.js with npm to be built: install it, then run `make web`"
        )
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"],
        cwd=WEB,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise FrontEndError(f"`npm ci` failed in {WEB}:\n{done.stderr.strip()}")
    VENDOR.mkdir(parents=True, exist_ok=True)
    for source, name in FILES.items():
        path = WEB / "node_modules" / source
        if not path.is_file():
            raise FrontEndError(f"{source} is missing from its npm package; correct FILES in hatch_build.py")
        text = path.read_text(encoding="utf-8")
        if name == "annotorious.js":
            text = mended(text)
        (VENDOR / name).write_text(re.sub(r"\n//# sourceMappingURL=.*", "", text), encoding="utf-8")
    (VENDOR / LICENCES).write_text(licences(), encoding="utf-8")


def mended(annotorious: str) -> str:
    """Annotorious as the pages can use it.

    Raises:
        FrontEndError: It is not what was pinned.
    """
    for what, remedy in ((_REFUSAL, _REMEDY), (_FIRST_PIECE, _ALL_PIECES)):
        annotorious, count = what.subn(remedy, annotorious)
        if count != 1:
            raise FrontEndError(f"{what.pattern} is {count} times in Annotorious, not once; look at hatch_build.py")
    return annotorious


def licences() -> str:
    """The licence of every package that was installed: the files above contain most of them."""
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))
    parts = []
    for place, facts in sorted(lock["packages"].items()):
        if not place or facts.get("dev"):
            continue
        texts = sorted(path for path in (WEB / place).glob("*") if re.match(r"(?i)licen[cs]e|copying", path.name))
        said = f"{place.removeprefix('node_modules/')} {facts['version']}, {facts.get('license', 'see below')}"
        # Annotorious' packages name their licence and leave its text out; it is kept beside the lock file.
        own = [WEB / "annotorious.LICENSE.txt"] if place.startswith("node_modules/@annotorious/") else []
        parts.append("\n\n".join([said, *(path.read_text(encoding="utf-8").strip() for path in texts or own)]))
    return f"\n\n{'-' * 80}\n\n".join(parts) + "\n"


def built() -> bool:
    return all((VENDOR / name).is_file() for name in (*FILES.values(), LICENCES))


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]
    """A wheel without the viewer is refused; a checkout without Node works, but for `lamella view`, which says why."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            build()
        except FrontEndError as error:
            if version == "editable":
                self.app.display_warning(f"lamella view will not work: {error}")
                return
            if not built():
                raise
        if version != "editable":
            build_data["artifacts"].append("src/lamella/view/static/vendor/*")


if __name__ == "__main__":
    try:
        build()
    except FrontEndError as error:
        sys.exit(str(error))
