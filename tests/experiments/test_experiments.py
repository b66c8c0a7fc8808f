"""The contract of every experiment: progress, claims that are judged, plain data, a page that needs nothing else."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from windtunnel.errors import ConfigError, SaveError
from windtunnel.experiments import EXPERIMENTS, find_experiment, listing
from windtunnel.experiments.frame import Drawing, Given, Row, Setting, collect
from windtunnel.experiments.rows import ROWS
from windtunnel.report.outcome import Claim, Progress
from windtunnel.report.outcome_page import outcome_page, save_outcome
from windtunnel.report.table import Table
from windtunnel.stats.intervals import Estimate


@pytest.fixture(params=[name for name, experiment in EXPERIMENTS.items() if not experiment.fetched])
def ran(request, quick):
    """An experiment that needs no network, the progress it showed and its outcome."""
    outcome, shown = quick(request.param)
    return EXPERIMENTS[request.param], shown, outcome


def test_progress_is_shown_and_never_runs_over(ran):
    assert ran[1]
    assert all(isinstance(p, Progress) and 0 <= p.done <= p.total for p in ran[1])


def test_every_claim_is_of_its_rows_and_says_what_was_measured(ran):
    experiment, _, outcome = ran
    assert {claim.id for claim in outcome.claims} == set(experiment.rows)
    for claim in outcome.claims:
        assert claim.verdict in ("holds", "does not hold", "undecided")
        assert claim.statement
        assert re.search(r"\d|exact", claim.measured), claim
        assert claim.values


def test_an_outcome_is_plain_data_and_says_that_it_was_quick(ran):
    outcome = ran[2]
    data = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
    assert data["quick"] is True
    assert data["signature"].endswith("seed 0, quick")
    assert "numpy" in data["signature"]
    assert data["title"]
    assert data["what"].endswith(".")
    assert data["settings"]
    assert data["figures"] == list(outcome.figures)
    assert [claim["verdict"] for claim in data["claims"]] == [claim.verdict for claim in outcome.claims]


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_files_of_an_outcome(ran, tmp_path):
    outcome = ran[2]
    files = {path.name: path for path in save_outcome(outcome, tmp_path / "new" / "folder")}
    for name in outcome.figures:
        assert files[f"{name}.png"].read_bytes().startswith(b"\x89PNG")
    assert json.loads(files["outcome.json"].read_text("utf-8"))["title"] == outcome.title
    page = Tags(files["report.html"].read_text("utf-8"))
    assert [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe")] == ["script"]  # the data
    links = {value for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "src", "xlink:href")}
    assert all(link.startswith("#") for link in links)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == len(outcome.figures)
    assert {link[1:] for link in links} <= set(ids)
    assert all(id == "data" or id.startswith(tuple(f"{name}-" for name in outcome.figures)) for id in ids)
    text = "".join(page.text)
    for claim in outcome.claims:
        assert claim.measured in text.replace("\u00a0", " ")  # an interval and a share are not broken
    assert "A quick run" in text


def test_a_page_escapes_what_it_shows(ran):
    script = "</script><script>alert(1)</script>"
    claim = replace(ran[2].claims[0], statement=script, measured="<b>x</b>")
    evil = replace(ran[2], title=script, signature="<b>x</b>", claims=(claim,), quick=False)
    page = outcome_page(evil, {})
    body, data = page.split('<script type="application/json"')
    assert "<script" not in body
    assert "<b>" not in page
    assert data.count("<") == data.count("</script>") + data.count("</body>") + data.count("</html>") == 3
    assert "A quick run" not in page


def test_a_folder_that_cannot_be_made(ran, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError):
        save_outcome(ran[2], tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.2, 0.8, "holds"), (0.0, 1.0, "holds"), (-0.1, 0.5, "undecided"), (0.9, 1.1, "undecided"),
     (-0.5, -0.1, "does not hold"), (1.1, 1.2, "does not hold"), (-1.0, 2.0, "undecided"),
     (math.nan, math.nan, "undecided")],
)  # fmt: skip
def test_a_verdict_from_an_interval(low, high, verdict):
    assert Row("r").within("s", Estimate(0.5, low, high, 3, ""), 0, 1).verdict == verdict


def test_a_verdict_from_equality():
    same, other = ROW.equal("s", [0.0, 1e-9]), ROW.equal("s", [0.0, 2.0], shown="1 and 3")
    assert (same.verdict, same.measured) == ("holds", "apart by at most 1.0e-09")
    assert (other.verdict, other.measured) == ("does not hold", "1 and 3; apart by 0 to 2")
    assert ROW.equal("s", 0.0).measured == "exact"
    assert ROW.equal("s", 0.5, tolerance=0.1).measured == "apart by 0.5"
    assert ROW.equal("s", [0.0, -2.0]).verdict == "does not hold"  # a difference has a sign, a gap has none
    for gaps in ([0.0, math.nan], [math.inf], math.nan):
        assert ROW.equal("s", gaps).verdict == "undecided"


ESTIMATE = Estimate(0.5, 0.25, 0.75, 3, "m")
ROW = Row("r")


def test_each_way_to_a_verdict():
    assert ROW.same("s", {1: 1000}, {1: 1000}) == Claim("r", "s", "1: 1,000", "1: 1,000", "holds", {"got": {1: 1000}})
    assert ROW.same("s", 3, 4).verdict == "does not hold"
    assert ROW.shows("s", True, "1 of 1", "all", n=1) == Claim("r", "s", "all", "1 of 1", "holds", {"n": 1})
    assert ROW.equal("s", 0.0, printed="0").measured == ROW.equal("s", [0.0, 0.0]).measured == "exact"
    said = ROW.within("s", ESTIMATE, 0, 1, shown="share {}; of 3")
    assert (said.measured, said.verdict) == ("share 0.5000 [0.2500, 0.7500] (n=3, m); of 3", "holds")
    assert said.values == {"estimate": ESTIMATE}
    assert ROW.within("s", ESTIMATE, low=0.6).verdict == "undecided"
    assert ROW.within("s", ESTIMATE, high=0.2).verdict == "does not hold"


@pytest.mark.parametrize(
    ("word", "verdict"), [("better", "holds"), ("worse", "does not hold"), ("undecided", "undecided")]
)
def test_a_verdict_from_a_judgement(word, verdict):
    judgement = SimpleNamespace(verdict=SimpleNamespace(word=word, difference=ESTIMATE), sentence="a against b: 1")
    assert ROW.judged("s", judgement, ["better"]).verdict == verdict
    assert ROW.judged("s", judgement, ["better"]).measured == "a against b: 1"
    assert ROW.judged("s", judgement, ["better"], named=False).measured == "1"


def test_what_is_found_is_collected_with_the_title_from_the_docstring(tmp_path):
    figure, table = object(), Table("t", ("a",), (("1",),))

    def run(at):
        """A title.

        What was
        done.
        """
        yield Given({"n": at.size(1000, quick=10)})
        yield Progress("counting")
        yield Drawing("drawn", figure)
        yield table
        yield Given({"seeds": list(at.seeds(8))})
        yield ROW.same("s", 1, 1)

    shown = []
    outcome = collect(SimpleNamespace(run=run), Setting(True, 3, tmp_path), shown.append)
    assert (outcome.title, outcome.what) == ("A title", "What was done.")
    assert outcome.settings == {"n": 10, "seeds": [3, 4]}
    assert (outcome.tables, outcome.figures) == ((table,), {"drawn": figure})
    assert outcome.claims == (ROW.same("s", 1, 1),)
    assert outcome.quick
    assert outcome.signature.endswith("seed 3, quick")
    assert shown == [Progress("counting", 0, 1)]


@pytest.mark.parametrize("command", ["import windtunnel.experiments", "from windtunnel.cli import main; main()"])
def test_the_list_needs_neither_torch_nor_matplotlib(command):
    code = f"""
import atexit, sys
sys.argv = ["windtunnel", "experiment"]
loaded = lambda: print([name for name in ("torch", "matplotlib", "scipy") if name in sys.modules])
atexit.register(loaded)
{command}
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_experiments_are_found_by_name_row_and_claim():
    for name in ("email-ab-test", "000-Q2", "000-q2", "E2", "e2"):
        assert find_experiment(name) is EXPERIMENTS["email-ab-test"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("email-test", "email-ab-test"), ("000-Q9", "000-Q"), ("zzzz", "lists them"), ("009-1", "not built yet"),
     ("009-1", "009-1 (a row to come)")],
)  # fmt: skip
def test_a_name_that_cannot_be_run(name, said, monkeypatch):
    monkeypatch.setitem(ROWS, "009-1", "a row to come")
    with pytest.raises(ConfigError, match=re.escape(said)):
        find_experiment(name)


def test_the_list_says_what_is_built():
    found = {row["row"]: row for row in listing()}
    assert list(found) == list(ROWS)
    built = {row for experiment in EXPERIMENTS.values() for row in experiment.rows if row in ROWS}
    assert {row for row in found if found[row]["state"] == "done"} == built >= {"000-Q1", "000-Q2", "000-Q3", "000-Q5"}
    assert all(found[row]["question"].endswith("?") for row in built)
    assert len({name for e in EXPERIMENTS.values() for name in (e.name, *e.rows)}) == sum(
        1 + len(e.rows) for e in EXPERIMENTS.values()
    )
