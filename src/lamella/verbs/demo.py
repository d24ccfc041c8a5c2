"""`lamella demo -o demo_out`: the whole road on generated slides, and on the user's own beside them.

Every step is a verb, called as its command line would call it; the commands are printed, so that they can be repeated
on real slides. A rerun does only what is missing.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from pydantic import Field

from lamella.config import Request, Settings
from lamella.engine.rundir import claim
from lamella.errors import LamellaError
from lamella.formats.atomic import write_text
from lamella.slides.phantom import LABEL_STEP_PX0, write_phantoms
from lamella.verbs import anchors as anchors_verb
from lamella.verbs import embed as embed_verb
from lamella.verbs import index as index_verb
from lamella.verbs import pretrain as pretrain_verb
from lamella.verbs import preview as preview_verb
from lamella.verbs.demo_page import Road, show
from lamella.verbs.evaluation import slides as slide_evaluation
from lamella.verbs.pretraining.slides import CrossConfig

PROFILE = "demo"
DEFAULT_OUT = Path("demo_out")
PAGE = "index.html"
_VERBS: dict[str, Callable[[Request], int]] = {
    "index": index_verb.run,
    "anchors": anchors_verb.run,
    "preview": preview_verb.run,
    "pretrain": pretrain_verb.run,
    "embed": embed_verb.run,
    "evaluate": slide_evaluation.run,
}


class PhantomSettings(Settings):
    """The generated slides."""

    slides: Annotated[int, Field(ge=2)] = 10
    """How many; two scanners take turns."""
    test_slides: Annotated[int, Field(ge=0)] = 6
    """How many of them pretraining never sees."""
    size_px: Annotated[int, Field(ge=256, multiple_of=LABEL_STEP_PX0)] = 2560
    """Side of a slide in pixels of 0.5 um."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the tissue and the staining."""


class Config(Settings):
    """Settings of `lamella demo`: those of each verb, under its name. Without -p, the profile `demo` is taken."""

    phantom: PhantomSettings = PhantomSettings()
    index: index_verb.Config = index_verb.Config()
    anchors: anchors_verb.Config = anchors_verb.Config()
    preview: preview_verb.Config = preview_verb.Config()
    pretrain: CrossConfig = CrossConfig()
    embed: embed_verb.Config = embed_verb.Config()
    evaluate: slide_evaluation.Config = slide_evaluation.Config()


@dataclass(frozen=True)
class _Step:
    """One verb of the road."""

    verb: str
    paths: tuple[Path, ...]
    out: Path
    settings: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        words = ["lamella", self.verb, *self.paths, "-r", self.settings, "-o", self.out]
        return shlex.join(map(str, words))

    def run(self) -> int:
        request = Request(self.verb, self.paths, self.out, run=self.settings, options=self.options)
        return _VERBS[self.verb](request)


def run(request: Request) -> int:
    """Generate, index, learn, judge, show; 1 if some of the user's slides could not be used."""
    if request.paths:
        raise LamellaError(
            "lamella demo", "it takes no paths", f"For your own slides: lamella demo --slides {request.paths[0]}."
        )
    resolved = Request(**{**vars(request), "profile": request.profile or PROFILE}).resolve(Config)
    out, slides = request.out or DEFAULT_OUT, tuple(request.options.get("slides") or ())
    road = _road(out, slides)
    if request.dry_run:
        print(yaml.safe_dump(resolved.tree(), sort_keys=False).rstrip())
        print("\n".join(step.command for step in [*road, *_own_road(out, slides)]))
        return 0
    for slide in slides:
        if not slide.exists():
            raise LamellaError(slide, "there is no such slide", "Correct the path given with --slides.")
    inputs = {"slides": [str(path.resolve()) for path in slides]}
    claimed = claim(out, resolved.tree(), resolved.origins, verb="demo", inputs=inputs)
    started = time.monotonic()
    _generate(claimed.folder, resolved.config.phantom)
    _write_settings(out, resolved.tree())
    with _threads(resolved.config.pretrain.data.workers):
        for number, step in enumerate(road, 1):
            _take(step, f"{number}/{len(road)}")
            if step.verb == "pretrain" and not (step.out / "model" / "config.json").exists():
                print("the demo was stopped while it trained; the same command goes on from there")
                return 0
    failed = _take_own(_own_road(out, slides))
    shown = _show(out, resolved.config, bool(slides), [step.command for step in [*road, *_own_road(out, slides)]])
    print(f"\nthe demo took {_clock(time.monotonic() - started)}")
    print(f"{'wrote' if shown else 'nothing new in'} {out / PAGE}: open it in a browser")
    return 1 if failed else 0


@contextmanager
def _threads(readers: int) -> Iterator[None]:
    """Leave cores to the processes that read: on two cores, two threads beside a reader wait for each other."""
    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    torch.set_num_threads(max(1, min(before, cores - readers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _road(out: Path, slides: Sequence[Path]) -> list[_Step]:
    """The steps on the generated slides."""
    settings = out / "settings"
    model = out / "run" / "model"
    return [
        _Step("index", (out / "phantom" / "manifest.csv",), out / "index", settings / "index.yaml"),
        _Step("anchors", (out / "index",), out / "anchors", settings / "anchors.yaml"),
        _Step("preview", (out / "anchors",), out / "previews", settings / "preview.yaml"),
        _Step("pretrain", (out / "anchors",), out / "run", settings / "pretrain.yaml"),
        _Step("embed", (model, out / "index"), out / "features", settings / "embed.yaml"),
        _Step("evaluate", (model, out / "index"), out / "results", settings / "evaluate.yaml"),
    ]


def _own_road(out: Path, slides: Sequence[Path]) -> list[_Step]:
    """The steps on the user's slides: what the model sees of them, and what the demo's encoder makes of them."""
    if not slides:
        return []
    settings, own = out / "settings", out / "yours"
    return [
        _Step("index", tuple(slides), own / "index", settings / "index.yaml"),
        _Step("anchors", (own / "index",), own / "anchors", settings / "anchors.yaml"),
        _Step("preview", (own / "anchors",), own / "previews", settings / "preview.yaml"),
        _Step("embed", (out / "run" / "model", own / "index"), own / "features", settings / "embed.yaml"),
    ]


def _generate(out: Path, settings: PhantomSettings) -> None:
    started = time.monotonic()
    write_phantoms(
        out / "phantom",
        slides=settings.slides,
        size_px=settings.size_px,
        seed=settings.seed,
        test_slides=settings.test_slides,
    )
    print(f"{settings.slides} generated slides in {out / 'phantom'} ({_clock(time.monotonic() - started)})")


def _write_settings(out: Path, tree: dict[str, Any]) -> None:
    """One settings file for each verb, for `-r`."""
    for verb in _VERBS:
        path = out / "settings" / f"{verb}.yaml"
        text = yaml.safe_dump(tree[verb], sort_keys=False)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def _take(step: _Step, number: str) -> int:
    print(f"\n[{number}] {step.command}")
    started = time.monotonic()
    code = step.run()
    print(f"[{number}] {step.verb} took {_clock(time.monotonic() - started)}")
    return code


def _take_own(road: Sequence[_Step]) -> bool:
    """Go the road of the user's slides as far as they allow. Whether something failed, which is printed."""
    failed = False
    for number, step in enumerate(road, 1):
        try:
            failed |= _take(step, f"yours {number}/{len(road)}") != 0
        except LamellaError as error:
            print(f"your slides: {error}")
            return True
    return failed


def _show(out: Path, config: Config, own: bool, commands: Sequence[str]) -> bool:
    """Draw what is missing and write the page; whether it changed."""
    road = Road(
        page=out / PAGE,
        pictures=out / "pictures",
        index=out / "index",
        previews=out / "previews",
        anchors=out / "anchors",
        run=out / "run",
        features=out / "features",
        results=out / "results" / "results.json",
        classes=config.evaluate.labels.classes,
        own=out / "yours" if own else None,
        commands=tuple(commands),
        seed=config.evaluate.seed,
    )
    return show(road)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
