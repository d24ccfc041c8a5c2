"""The command line: a table of verbs. Imports nothing heavy, so that `lamella --help` answers at once."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella import __version__
from lamella.config import Request, Settings
from lamella.errors import LamellaError

DONE, SOME_FAILED, USER_ERROR = 0, 1, 2


@dataclass(frozen=True)
class Flag:
    """A verb's own flag, beside those that every verb has."""

    name: str
    help: str
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Verb:
    """One verb.

    Its module `lamella.verbs.<name>` has `run(request) -> int` and, if it has settings, `Config`, or `CONFIGS` (title
    -> schema) where they depend on what the verb is given.
    """

    summary: str
    paths: str
    example: str
    flags: tuple[Flag, ...] = ()


# Of the verbs that go slide by slide.
_PER_SLIDE = (
    Flag("--shard", "do every n-th slide only, as job i of n of a cluster: 3/8", (("metavar", "i/n"),)),
    Flag("--retry-failed", "do only the slides that failed before", (("action", "store_true"),)),
)
_MPP = Flag("--mpp", "micrometres per pixel at level 0 of every slide given; wins over the files", (("type", float),))

VERBS: dict[str, Verb] = {
    "doctor": Verb("check this machine: readers, device, disk, extras", "", "lamella doctor"),
    "demo": Verb(
        "the whole road on generated slides, in minutes",
        "",
        "lamella demo -o demo_out",
        (Flag("--slides", "your own slides to show beside the generated ones", (("nargs", "+"), ("type", Path))),),
    ),
    "index": Verb(
        "list slides, their pixel size and their tissue",
        "a manifest CSV, folders or slide files",
        "lamella index slides/ -o index",
        (_MPP, *_PER_SLIDE),
    ),
    "anchors": Verb(
        "list the places on the slides to learn from",
        "an index folder, or an anchor CSV to import",
        "lamella anchors index -p ctx1p0_tgt0p5_fov512um_k4 -o anchors",
        (
            Flag("--index", "the slide index that an imported CSV belongs to", (("type", Path),)),
            Flag("--csv", "also write the catalogue as this CSV file", (("type", Path),)),
            *_PER_SLIDE,
        ),
    ),
    "preview": Verb(
        "draw what the model will see",
        "an anchors folder; or data sets of images, volumes or video with method.name=...",
        "lamella preview anchors -o previews num_samples=4",
    ),
    "pretrain": Verb(
        "train an encoder without labels",
        "an anchors folder; or data sets of images, volumes or video with method.name=...",
        "lamella pretrain anchors -p small -o runs/first budget.images=50000",
    ),
    "encoders": Verb(
        "list the encoders, or all facts of one",
        "nothing, or the name of one",
        "lamella encoders phikon-v2",
        (Flag("--json", "print the list as JSON", (("action", "store_true"),)),),
    ),
    "datasets": Verb(
        "list the data set layouts, or what one data set holds",
        "nothing, or the folder, archive or CSV of a data set",
        "lamella datasets chest/pneumoniamnist.npz check=true",
    ),
    "embed": Verb(
        "turn tiles (one file per slide) or images (one table) into features",
        "a model folder (or encoder name), and an index folder or a data set of images",
        "lamella embed runs/first/model index -o features",
        _PER_SLIDE,
    ),
    "convert": Verb(
        "tiles, features, expression, annotations to and from CLAM, TRIDENT, slide2vec, QuPath, AnnData, tables, masks",
        "a file or folder of tiles or features, of Lamella or of another program",
        "lamella convert features -o for_clam to=clam --index index",
        (Flag("--index", "the slide index; says pixel sizes that the files do not", (("type", Path),)),),
    ),
    "adapt": Verb(
        "train a model on masks: one that labels every pixel by itself, or a promptable one",
        "data sets of images with masks, with method.name=automatic or prompted",
        "lamella adapt glas/manifest.csv -p segment_small -o runs/glands data.dataset.mpp=0.62 data.folds=5",
    ),
    "weak": Verb(
        "segment slides with labels of whole slides or patches only, by image prototypes, in six stages",
        "run (or coordinates, features, prototypes, train, evaluate, predict), the study's YAML, and slides to predict",
        "lamella weak run study.yaml -o out",
        (
            Flag(
                "--redo", "first remove the outputs of this stage, and what is made from them", (("metavar", "STAGE"),)
            ),
            *_PER_SLIDE,
        ),
    ),
    "expression": Verb(
        "predict gene expression from H&E, judged patient by patient beside its controls, in five stages",
        "run (or check, features, train, evaluate, predict), the study's YAML, and slides to predict",
        "lamella expression run study.yaml -o out",
        (
            Flag(
                "--redo", "first remove the outputs of this stage, and what is made from them", (("metavar", "STAGE"),)
            ),
            *_PER_SLIDE,
        ),
    ),
    "evaluate": Verb(
        "judge an encoder, a segmenter or a promptable model beside baselines and controls",
        "a model (or run) folder, and an index folder or a data set of images, volumes or films",
        "lamella evaluate runs/first/model index -o results labels.column=tissue",
    ),
    "name": Verb(
        "name regions by texts (CLIP): of a data set with masks, or polygons on a slide",
        "a CLIP model, and a data set with masks, or a slide with --regions",
        "lamella name plip glas/manifest.csv prompts=glands dataset.mask_classes.gland=255 -o names",
        (
            Flag("--regions", "GeoJSON of the polygons to name on the slide", (("type", Path),)),
            Flag("--mpp", "micrometres per pixel of the slide at level 0; wins over the file", (("type", float),)),
        ),
    ),
    "predict": Verb(
        "label every pixel of whole slides: masks, probabilities, outlines for QuPath",
        "a model folder (or that of a run with folds), and slides: files, folders, manifests, index folders",
        "lamella predict runs/glands/model slides/ -o predicted",
        (_MPP, *_PER_SLIDE),
    ),
    "segment": Verb(
        "outline the objects that you point at on a slide (SAM 2)",
        "a slide or an image",
        "lamella segment slide.svs --box 1000,800,1400,1200 -o out",
        (
            Flag(
                "--box",
                "x0,y0,x1,y1 around an object, in level-0 pixels; once for each object",
                (("action", "append"),),
            ),
            Flag("--points", "clicks 'x,y;x,y' on an object; once for each object", (("action", "append"),)),
            Flag("--negatives", "clicks 'x,y;x,y' on what belongs to no object", (("action", "append"),)),
            Flag("--prompts", "GeoJSON of rectangles, polygons and points, as QuPath exports it", (("type", Path),)),
            Flag("--region", "x0,y0,x1,y1 to show the model, instead of a view around each object"),
            Flag(
                "--everything",
                "outline every object that the model sees in --region; no box and no click",
                (("action", "store_true"),),
            ),
            Flag("--um", "the flags' numbers are micrometres, not level-0 pixels", (("action", "store_true"),)),
            Flag("--mpp", "micrometres per pixel of the slide at level 0; wins over the file", (("type", float),)),
        ),
    ),
    "view": Verb(
        "look at slides, layers, runs and scans in a browser, annotate, prompt",
        "slides, an index, runs, predictions, features, scans, or folders of these",
        "lamella view slides/ index predicted",
        (
            Flag("--host", "answer other machines, too, at this address; asks for a token"),
            Flag("--export", "write a folder that opens without a server, and end", (("type", Path),)),
            _MPP,
        ),
    ),
    "explain": Verb(
        "draw where an encoder looks and what it tells apart, and how a run or an evaluation went",
        "a model (or run) folder and a data set or index folder; or a run or results folder alone",
        "lamella explain runs/first/model images/ -o pictures",
    ),
    "release": Verb(
        "a model folder to hand on, its card filled from its results",
        "a model folder and results folders",
        "lamella release runs/first/model results -o release licence=apache-2.0",
    ),
    "inspect": Verb(
        "what scans, images and videos hold, without whom they show",
        "DICOM, NIfTI, image and video files, or folders of one DICOM series",
        "lamella inspect scan.dcm volume.nii.gz",
        (Flag("--json", "print the facts as JSON", (("action", "store_true"),)),),
    ),
    "deidentify": Verb(
        "DICOM files without what tells who they are",
        "DICOM files, or folders of them",
        "lamella deidentify scans -o scans_to_share dates=shift",
        (Flag("--key", "key file of an earlier run, so that pseudonyms agree with it", (("type", Path),)),),
    ),
    "config": Verb("print every setting of a verb", "the verb", "lamella config pretrain"),
}

# A setting on the command line, as opposed to a path: a dotted name and an equals sign.
_SETTING = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 1 when some inputs failed (they are listed in failed.csv), 2 when the user must mend something.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return DONE
    if argv[0] == "--version":
        print(f"lamella {__version__}")
        return DONE
    name = argv[0]
    if name not in VERBS:
        print(_unknown_verb(name), file=sys.stderr)
        return USER_ERROR
    arguments = _parser(name).parse_intermixed_args(argv[1:])
    return _guarded(name, arguments)


def _guarded(name: str, arguments: argparse.Namespace) -> int:
    try:
        request = _request(name, arguments)
        if name == "config":
            return _print_schema(request)
        return int(importlib.import_module(f"lamella.verbs.{name}").run(request))
    except LamellaError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"lamella {name}: {error}", file=sys.stderr)
    except BrokenPipeError:  # `lamella config pretrain | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain again at its end
        return DONE
    except KeyboardInterrupt:
        if arguments.debug:
            traceback.print_exc()
        print(
            f"lamella {name}: interrupted by Ctrl-C. What was finished is kept; the same command goes on from there.",
            file=sys.stderr,
        )
    return USER_ERROR


def _request(name: str, arguments: argparse.Namespace) -> Request:
    settings = [text for text in arguments.items if _SETTING.match(text) and not Path(text).exists()]
    paths = [Path(text) for text in arguments.items if text not in settings]
    own = {flag.name.lstrip("-").replace("-", "_") for flag in VERBS[name].flags}
    return Request(
        verb=name,
        paths=tuple(paths),
        out=arguments.out,
        profile=arguments.profile,
        run=arguments.run,
        overrides=tuple(settings),
        dry_run=arguments.dry_run,
        options={key: getattr(arguments, key) for key in own},
    )


def _parser(name: str) -> argparse.ArgumentParser:
    verb = VERBS[name]
    parser = argparse.ArgumentParser(
        prog=f"lamella {name}",
        description=verb.summary[0].upper() + verb.summary[1:] + ".",
        epilog=f"example:\n  {verb.example}\n\nsettings:\n  lamella config {name}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    takes = f"{verb.paths}; key=value settings" if verb.paths else "key=value settings"
    parser.add_argument("items", nargs="*", metavar="PATH | key=value", help=takes)
    parser.add_argument("-p", "--profile", help="settings file, or the name of a shipped profile")
    parser.add_argument("-r", "--run", type=Path, help="settings file of this run; wins over the profile")
    parser.add_argument("-o", "--out", type=Path, help="folder to write to")
    parser.add_argument("--dry-run", action="store_true", help="print the settings and the counts, write nothing")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for flag in verb.flags:
        parser.add_argument(flag.name, help=flag.help, **dict(flag.kwargs))
    return parser


def _overview() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: lamella VERB [paths] [-p profile] [-r run.yaml] [-o folder] [key=value ...]\n\n"
        "Learn from slides, medical images, volumes and video with few or no labels.\n\n"
        f"verbs:\n{rows}\n\n"
        "`lamella VERB --help` shows an example, `lamella config VERB` every setting. Start with `lamella demo`."
    )


def _unknown_verb(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, VERBS, n=1)
    hint = f"Did you mean `lamella {near[0]}`?" if near else "`lamella --help` lists the verbs."
    return f"lamella: {name} is not a verb. {hint}"


def schemas_of(verb: str) -> dict[str, type[Settings]]:
    """Title -> settings of a verb; one under an empty title where there is one for all it is given."""
    if verb == "config":
        return {}
    module = importlib.import_module(f"lamella.verbs.{verb}")
    own = getattr(module, "Config", None)
    return getattr(module, "CONFIGS", None) or ({} if own is None else {"": own})


def _print_schema(request: Request) -> int:
    from lamella.config import describe

    if len(request.paths) != 1 or str(request.paths[0]) not in VERBS:
        raise LamellaError("lamella config", "it takes one verb", f"One of: {', '.join(VERBS)}.")
    verb = str(request.paths[0])
    schemas = schemas_of(verb)
    if not schemas:
        print(f"lamella {verb} has no settings beside its flags.")
        return DONE
    for title, schema in schemas.items():
        if title:
            print(f"\n# {title}")
        for path, kind, default, description in describe(schema):
            print(f"{path} = {default}    ({kind})")
            if description:
                print(f"    {description}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
