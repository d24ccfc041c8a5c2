"""The addresses of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from lamella.view.server.catalogue.items import RunItem
from lamella.view.server.pages import fragment, page
from lamella.view.server.runs.charts import Wish, charts_of, status_of, version_of
from lamella.view.server.runs.run_compare import compare
from lamella.view.server.runs.run_curves import CurveMemory, RunCurves
from lamella.view.server.runs.run_files import PICTURE_TYPES, Listings, is_inside
from lamella.view.server.runs.run_page import run_values
from lamella.view.server.served import Served

_LISTINGS, _CURVES = Listings(), CurveMemory()


def run_page(request: Request) -> Response:
    """GET /run/{run}?find=&given=: curves, results, pictures, settings (those that are searched for), model cards."""
    item = _run(request, request.path_params["run"])
    values = run_values(item, _LISTINGS.of(item.folder))
    find, given = request.query_params.get("find", ""), "given" in request.query_params
    shown = [
        each
        for each in values["settings"]
        if (each.given or not given) and find.casefold() in f"{each.key} {each.value} {each.origin}".casefold()
    ]
    searched = {"find": find, "given": given, "shown_settings": shown}
    return page(request, "run.html", **_curves(request, [item]), **values, **searched)


def compare_page(request: Request) -> Response:
    """GET /runs/compare?a=&b=: the difference of two runs; without them, the choice of two."""
    chosen = [request.query_params.get(key, "") for key in "ab"]
    if not all(chosen):
        return page(request, "run_compare.html", chosen=chosen, runs=[], found=None)
    runs = [_run(request, each) for each in chosen]
    names = names_of(runs)
    first, second = ((run.folder, _LISTINGS.of(run.folder)) for run in runs)
    found = compare((first[0], second[0]), (first[1], second[1]), (names[0], names[1]))
    values = {"chosen": chosen, "runs": runs, "names": names, "found": found}
    return page(request, "run_compare.html", **values, **_curves(request, runs))


def run_charts(request: Request) -> JSONResponse:
    """GET /api/runs/{run}/charts?b=RUN&x=&log=&smooth=&logs=&seen=VERSION: the charts anew, once their logs have grown.

    The logs are read on from where they were read before, not from their beginnings.
    """
    others = [other for other in request.query_params.getlist("b") if other]
    runs = _read([_run(request, run) for run in (request.path_params["run"], *others[:1])])
    wish, version = Wish.of_query(request.query_params), version_of(runs.values())
    answer = {
        "version": version,
        "status": status_of([*runs.values()]),
        "more": any(run.left_bytes for run in runs.values()),
        "html": None,
    }
    if request.query_params.get("seen") != version:
        answer["html"] = fragment("run_charts.html", charts=charts_of(runs, wish))
    return JSONResponse(answer)


def run_picture(request: Request) -> FileResponse:
    """GET /api/runs/{run}/pictures/{picture}: a picture of the run's own folder, by the id that its page has."""
    item = _run(request, request.path_params["run"])
    file = _LISTINGS.of(item.folder).pictures[request.path_params["picture"]]
    # Once more, since the folder was listed a moment ago.
    if not file.path.is_file() or not is_inside(file.path, item.folder.resolve()):
        raise KeyError(file.id)
    return FileResponse(file.path, media_type=PICTURE_TYPES[file.path.suffix.lower()])


def _curves(request: Request, chosen: Sequence[RunItem]) -> dict[str, Any]:
    """The charts of one run or two as their page shows them at first."""
    runs, wish = _read(chosen), Wish.of_query(request.query_params)
    version, written = version_of(runs.values()), status_of([*runs.values()])
    return {"wish": wish, "charts": charts_of(runs, wish), "version": version, "written": written}


def _read(chosen: Sequence[RunItem]) -> dict[str, RunCurves]:
    """Curves by the run's name, after what was added to the logs has been read."""
    found: dict[str, RunCurves] = {}
    for run, name in zip(chosen, names_of(chosen), strict=True):
        found[name] = _CURVES.of(run.folder)
        found[name].read(_LISTINGS.of(run.folder).logs.values())
    return found


def names_of(runs: Sequence[RunItem]) -> list[str]:
    """Titles; runs of one title are told apart by their ids, which are never the same."""
    titles = [run.title for run in runs]
    return [run.id if titles.count(run.title) > 1 else run.title for run in runs]


def _run(request: Request, run_id: str) -> RunItem:
    served: Served = request.app.state.served
    return served.catalogue.runs[run_id]


ROUTES = [
    Route("/run/{run}", run_page),
    Route("/runs/compare", compare_page),
    Route("/api/runs/{run}/charts", run_charts),
    Route("/api/runs/{run}/pictures/{picture}", run_picture),
]
