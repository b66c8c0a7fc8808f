"""The contract of every experiment: progress, claims that are judged, plain data, a page that needs nothing else."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from windtunnel.errors import ConfigError, SaveError
from windtunnel.experiments import EXPERIMENTS, find_experiment
from windtunnel.experiments.frame import Outcome, Progress, equal, exactly, finish, within
from windtunnel.experiments.page import outcome_page, save_outcome
from windtunnel.experiments.rows import ROWS
from windtunnel.experiments.tables import listing
from windtunnel.stats.intervals import Estimate


@pytest.fixture(params=EXPERIMENTS)
def ran(request, quick):
    """An experiment, the progress it showed and its outcome."""
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
        assert claim.measured.replace(" %", "\u00a0%") in text
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
    assert within(Estimate(0.5, low, high, 3, ""), 0, 1) == verdict


def test_a_verdict_from_equality():
    assert (exactly(True), exactly(False)) == ("holds", "does not hold")
    same, other = equal("r", "s", "", [0.0, 1e-9]), equal("r", "s", "", [0.0, 2.0], shown="1 and 3")
    assert (same.verdict, same.measured) == ("holds", "apart by at most 1.0e-09")
    assert (other.verdict, other.measured) == ("does not hold", "1 and 3; apart by 0 to 2")
    assert equal("r", "s", "", [0.0]).measured == "exact"
    assert equal("r", "s", "", [0.0, math.nan]).verdict == equal("r", "s", "", [math.inf]).verdict == "undecided"


def test_finish_returns_what_the_generator_returns():
    outcome = Outcome("t", "w", {}, (), {}, (), False, "s")

    def run():
        yield Progress("a", 0, 1)
        return outcome

    assert finish(run()) is outcome


def test_experiments_are_found_by_name_row_and_claim():
    for name in ("email-ab-test", "000-Q2", "000-q2", "E2", "e2"):
        assert find_experiment(name) is EXPERIMENTS["email-ab-test"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("email-test", "email-ab-test"), ("000-Q9", "000-Q"), ("zzzz", "lists them"), ("004-4.2", "not built yet"),
     ("000-t3b", "000-T3b (data-parallel training")],
)  # fmt: skip
def test_a_name_that_cannot_be_run(name, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        find_experiment(name)


def test_the_list_says_what_is_built():
    found = {row["row"]: row for row in listing(EXPERIMENTS, ROWS)}
    assert list(found) == list(ROWS)
    built = {row for experiment in EXPERIMENTS.values() for row in experiment.rows if row in ROWS}
    assert {row for row in found if found[row]["state"] == "done"} == built >= {"000-Q1", "000-Q2", "000-Q3", "000-Q5"}
    assert all(found[row]["question"].endswith("?") for row in built)
    assert len({name for e in EXPERIMENTS.values() for name in (e.name, *e.rows)}) == sum(
        1 + len(e.rows) for e in EXPERIMENTS.values()
    )
