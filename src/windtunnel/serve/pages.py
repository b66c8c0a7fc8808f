"""The page, and what it asks for: runs, curves, traces, comparisons, experiments."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from windtunnel.config import Config, differences, fingerprint, flatten, parse, plain
from windtunnel.errors import ConfigError
from windtunnel.experiments import find_experiment, listing
from windtunnel.inspect.doctor.checks import of_history, underfitting
from windtunnel.inspect.doctor.history import history
from windtunnel.runs.history import Log, as_csv
from windtunnel.serve import looking
from windtunnel.serve.bodies import read
from windtunnel.serve.curves import Logs, series
from windtunnel.serve.index import Index
from windtunnel.serve.job import Job
from windtunnel.serve.results import Results, artefact
from windtunnel.serve.safety import Json, error
from windtunnel.training.run import TrainedModel

A = TypeVar("A", bound=looking.Asked)
MOST_RUNS = 64
"""Runs in one question."""
ALONE = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
)
"""The policy of a file that was written for itself: its scripts run, in a place where they reach nothing."""
OWN, REPORTS = files("windtunnel.serve") / "static", files("windtunnel.report") / "assets"
STATIC = {
    **{name: REPORTS / name for name in ("style.css", "heat.js", "trace.js", "attention.js", "translation.js")},
    **{name: OWN / name for name in ("app.js", "html.js", "runs.js", "chart.js", "look.js", "results.js", "page.css")},
    **{name: OWN / name for name in ("uPlot.esm.js", "uPlot.min.css", "uPlot.LICENSE")},
}
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
SHELL = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{token}<title>windtunnel</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{base}static/style.css">
<link rel="stylesheet" href="{base}static/uPlot.min.css">
<link rel="stylesheet" href="{base}static/page.css">
<script type="module" src="{base}static/app.js"></script>
</head>
<body class="app">
<a class="skip" href="#main">skip to the content</a>
<header><strong>windtunnel</strong>
<nav aria-label="views"><a href="#/runs">Runs</a> <a href="#/look">Look</a> <a href="#/comparisons">Comparisons</a>
<a href="#/experiments">Experiments</a></nav></header>
<main id="main" tabindex="-1"><noscript>The page needs JavaScript; the command line does without.</noscript></main>
<div id="said" role="status" aria-live="polite"></div>
</body>
</html>
"""


class Page:
    """What the page's routes share."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.index, self.results, self.logs, self.job = Index(self.root), Results(self.root), Logs(), Job()
        threading.Thread(target=self.index.refresh, daemon=True).start()  # before anybody asks

    def close(self) -> None:
        """Stop what was started."""
        self.job.close()


class Chart(Config):
    """What is drawn of which runs."""

    runs: Annotated[str, Field(max_length=17 * MOST_RUNS)] = ""
    quantity: Annotated[str, Field(max_length=80)] = "loss"
    axis: Annotated[str, Field(max_length=20)] = "step"
    width: Annotated[int, Field(ge=10, le=8000)] = 800
    first: Annotated[float, Field(allow_inf_nan=False)] | None = None
    last: Annotated[float, Field(allow_inf_nan=False)] | None = None
    log: bool = False
    smooth: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] = 0.0
    band: bool = True


class Start(Config):
    """An experiment to start."""

    name: Annotated[str, Field(max_length=80)]
    quick: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Check(Config):
    """A run to examine."""

    run: Annotated[str, Field(max_length=64)]


def page_of(request: Request) -> Page:
    """What the routes share; made with the application, see `create_app`."""
    found: Page = request.app.state.page
    return found


async def shell(request: Request) -> Response:
    """The page itself, which holds no data; on a machine that only its own user reaches, with the token."""
    policy = request.app.state.policy
    known = "" if policy.always else f'<meta name="token" content="{escape(policy.token)}">\n'
    base = f"{request.scope.get('root_path', '').rstrip('/')}/"
    return Response(SHELL.format(token=known, base=escape(base)), media_type="text/html")


async def static(request: Request) -> Response:
    """One of the page's own files."""
    name = request.path_params["name"]
    if name not in STATIC:
        return error(404, "there is no such file")
    data, tag = _static(name)
    return tagged(request, data, TYPES.get(Path(name).suffix, "text/plain; charset=utf-8"), tag)


@cache
def _static(name: str) -> tuple[bytes, str]:
    data = STATIC[name].read_bytes()
    return data, tag_of(data)


def tag_of(data: bytes) -> str:
    """The ETag of an answer."""
    return f'"{sha256(data).hexdigest()[:32]}"'


def tagged(request: Request, data: bytes, kind: str, tag: str) -> Response:
    """The data, or that they are those which the browser has."""
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


async def answered(request: Request, make: Callable[[Page], Any]) -> Response:
    """What a function of the page gives, as JSON with its ETag."""
    page = page_of(request)
    data = await run_in_threadpool(lambda: json.dumps(make(page), ensure_ascii=True, allow_nan=False).encode())
    return tagged(request, data, "application/json", tag_of(data))


async def runs(request: Request) -> Response:
    """The table of runs."""
    return await answered(request, lambda page: page.index.table())


def logs(page: Page, ids: str) -> list[tuple[str, list[tuple[str, Log]]]]:
    """The logs of runs by identity, in their groups."""
    chosen = list(dict.fromkeys(ids.split(",")))
    if not 1 <= len(chosen) <= MOST_RUNS:
        raise ConfigError(f"expected 1 to {MOST_RUNS} runs, given {len(chosen)}")
    found: dict[str, list[tuple[str, Log]]] = {}
    for id in chosen:
        log = page.logs.of(page.index.run(id))
        found.setdefault(page.index.group(id), []).append((page.index.name(id), log))
    return list(found.items())


async def curves(request: Request) -> Response:
    """The lines of a chart."""
    wanted = parse(Chart, request.query_params)

    def make(page: Page) -> Any:
        groups = logs(page, wanted.runs)
        known = list(dict.fromkeys(name for _, members in groups for _, log in members for name in log.quantities()))
        lines = series(
            groups, wanted.quantity, wanted.axis, wanted.width, wanted.first, wanted.last, wanted.log, wanted.smooth,
            wanted.band,
        )  # fmt: skip
        return {"quantities": known, "series": lines}

    return await answered(request, make)


async def table(request: Request) -> Response:
    """Every number of the chosen runs as CSV."""
    groups = await run_in_threadpool(logs, page_of(request), request.query_params.get("runs", ""))
    rows = as_csv([one for _, members in groups for one in members])
    headers = {"Content-Disposition": 'attachment; filename="runs.csv"'}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


async def about(request: Request) -> Response:
    """Of some runs: the settings that differ between them, and what their histories say is wrong."""

    def make(page: Page) -> Any:
        ids = [id for id in request.query_params.get("runs", "").split(",")[:MOST_RUNS] if id]
        found = [(id, page.index.name(id), page.index.run(id)) for id in ids]
        columns = {fingerprint(run.config, exclude=["seed"]): (page.index.group(id), run) for id, _, run in found}
        configs = [run.config for _, run in columns.values()]
        paths = {path for other in configs[1:] for path in differences(configs[0], other)} - {"seed"}
        flat = [flatten(config) for config in configs]
        return {
            "columns": [name for name, _ in columns.values()],
            "differ": {path: [one.get(path) for one in flat] for path in sorted(paths)},
            "runs": [
                {"id": id, "name": name, "findings": _findings(run), "settings": flatten(run.config)}
                for id, name, run in found
            ],
        }

    return await answered(request, lambda page: plain(make(page)))


def _findings(run: Any) -> list[Any]:
    past = history(run.events("step", "evaluation", "stopped"))
    return [] if past is None else [*of_history(past, run.config), *underfitting(past, run.config)]


async def judged(request: Request) -> Response:
    """The comparisons and outcomes."""
    return await answered(request, lambda page: page.results.table())


async def shown(request: Request) -> Response:
    """A file of a result or a run, which cannot reach anything."""
    page, params = page_of(request), request.path_params
    data, kind = await run_in_threadpool(artefact, page.index, page.results, params["id"], params["entry"])
    return Response(data, headers={"Content-Type": kind, "Content-Security-Policy": ALONE})


async def experiments(request: Request) -> Response:
    """The built-in experiments by name, and what runs."""

    def make(page: Page) -> Any:
        names = {row["name"]: row["question"] for row in listing() if row["state"] == "done"}
        return {"experiments": [{"name": name, "question": names[name]} for name in names], "job": page.job.state()}

    return await answered(request, make)


async def acted(request: Request, act: Callable[[Page], None]) -> Response:
    """What runs, once something was started or stopped."""
    page = page_of(request)

    def made() -> Any:
        act(page)
        return page.job.state()

    return Json(await run_in_threadpool(made))


async def start(request: Request) -> Response:
    """Start an experiment."""
    wanted = await read(request, Start)

    def act(page: Page) -> None:
        name = find_experiment(wanted.name).name
        out = page.root / "experiments" / (name + ("-quick" if wanted.quick else ""))
        quick = ["--quick"] if wanted.quick else []
        page.job.start("experiment", name, ["experiment", name, "--seed", str(wanted.seed), "--out", str(out), *quick])

    return await acted(request, act)


async def check(request: Request) -> Response:
    """Start the doctor on a run."""
    wanted = await read(request, Check)

    def act(page: Page) -> None:
        run, out = page.index.run(wanted.run), page.root / "checks" / wanted.run
        page.job.start("check", page.index.name(wanted.run), ["check", str(run.folder), "--out", str(out)])

    return await acted(request, act)


async def stop(request: Request) -> Response:
    """Stop what runs."""
    return await acted(request, lambda page: page.job.stop())


async def job(request: Request) -> Response:
    """What runs, and what it has printed."""
    return await answered(request, lambda page: page.job.state())


def computing(kind: type[A], function: Callable[[TrainedModel, A], dict[str, Any]]) -> Callable[[Request], Any]:
    """The route of something that a run's model must compute."""

    async def route(request: Request) -> Response:
        wanted = await read(request, kind)
        name = await run_in_threadpool(page_of(request).index.model, wanted.run)
        found = await request.app.state.worker.run(lambda trained: function(trained, wanted), name)
        return Json(plain(found))

    return route


ROUTES: list[Route] = [
    Route("/", shell),
    Route("/static/{name}", static),
    Route("/page/runs", runs),
    Route("/page/curves", curves),
    Route("/page/curves.csv", table),
    Route("/page/about", about),
    Route("/page/results", judged),
    Route("/page/artefact/{id}/{entry}", shown),
    Route("/page/experiments", experiments),
    Route("/page/job", job),
    Route("/page/experiments/start", start, methods=["POST"]),
    Route("/page/check", check, methods=["POST"]),
    Route("/page/job/stop", stop, methods=["POST"]),
    Route("/page/look", computing(looking.Look, looking.traced), methods=["POST"]),
    Route("/page/again", computing(looking.Again, looking.again), methods=["POST"]),
    Route("/page/attention", computing(looking.Asked, looking.attended), methods=["POST"]),
    Route("/page/lens", computing(looking.Asked, looking.guessed), methods=["POST"]),
]
