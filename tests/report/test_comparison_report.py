"""What a comparison shows: made-up losses go through the real `judge`, and every number must be found again."""

from __future__ import annotations

import io
import json
import math
import random
import re
import statistics
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import pytest

from windtunnel.comparison.comparison import ArmResult, Comparison, Judgement, SeedRun
from windtunnel.comparison.verdict import Rule, judge, mean_or_nothing, seeds_to_decide
from windtunnel.errors import SaveError
from windtunnel.report.comparison import comparison_tables, save_report
from windtunnel.report.comparison_figure import comparison_figure
from windtunnel.report.comparison_page import comparison_page
from windtunnel.report.comparison_rows import arm_rows, short
from windtunnel.report.progress import TrainingProgress
from windtunnel.report.terminal import PlainConsole
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.training.events import Evaluation, Sample, Started, Step, Stopped

EVIL = "</script><script>alert(1)</script>"
BITS = 0.5  # bits per byte of a nat per token, here


@pytest.mark.parametrize(("metric", "noun"), [("accuracy", "text"), ("recall_at_1", "picture"), ("loss", "token")])
def test_what_has_a_loss_is_named_wherever_it_is_counted(metric, noun):
    found = replace(made({"a": [2.0, 2.1], "b": [2.0, 2.1]}), metric=metric)
    heads = [head.replace("\n", " ") for head in arm_rows(found)[0]]
    assert f"FLOPs/ {noun}" in heads
    assert f"{noun}s /s" in heads
    assert f"99 held-out documents of 999 {noun}s." in comparison_page(found, {"comparison": "<svg></svg>"})
    assert found.title("loss") == f"nats per {noun}"


def made(losses, missing=(), diverged=(), unit="nats per token", documents=True, cost=1.0):
    """A comparison of arms with these losses, one a seed; the arms but the baseline cost `cost` times as much."""
    in_unit = BITS if unit == "bits per byte" else 1.0
    arms = []
    for name, values in losses.items():
        times, runs = cost if arms else 1.0, []
        for seed, value in enumerate(values):
            reason = "diverged" if (name, seed) in diverged else "failed" if (name, seed) in missing else "finished"
            loss = None if reason == "failed" else math.inf if reason == "diverged" else value
            scores = {} if loss is None else {"loss": loss, "bits_per_byte": loss * BITS}
            runs.append(SeedRun(seed, f"runs/{len(arms)}/seed-{seed}", reason, "", scores))
        known = [run.loss for run in runs if run.loss is not None and math.isfinite(run.loss)]
        means = (
            {"loss": mean_interval(known), "bits_per_byte": mean_interval([x * BITS for x in known])} if known else {}
        )
        spent = (int(3552 * times), 100, 4e6, 1.2e12 * times, 3.1e5 * times, 41234.5 / times, 9.7, int(9.2e7 * times))
        arms.append(ArmResult(name, {"model.position": name}, "0" * 64, *spent, means, tuple(runs)))
    base = {run.seed: run.loss for run in arms[0].seeds if run.loss is not None}
    level = statistics.fmean(base.values()) * in_unit if base else 1.0
    rule = Rule(0.005 * level)
    pairs = {
        arm.name: [(r.seed, (r.loss - base[r.seed]) * in_unit) for r in arm.seeds if r.loss and r.seed in base]
        for arm in arms[1:]
    }
    judgements = []
    for verdict in judge({name: [d for _, d in own] for name, own in pairs.items() if own}, rule):
        own = [d for _, d in pairs[verdict.arm]]
        needed = seeds_to_decide(own, verdict, rule) if verdict.word == "undecided" else None
        finished = [x for x in own if math.isfinite(x)]
        d, over = verdict.difference, mean_or_nothing(finished)
        drawn = Estimate(d.estimate, d.estimate - 0.0625, d.estimate + 0.0625, 99, "bootstrap") if documents else None
        other, factor = ("loss", 1.0) if unit == "bits per byte" else ("bits_per_byte", BITS)
        others = {other: mean_or_nothing([x * factor / in_unit for x in finished])}
        limit = "documents" if drawn and len(own) > 1 else None
        sentence = f"{verdict.arm} against {arms[0].name}: {verdict.word}"
        args = (verdict, needed, d.estimate / level, others, over, drawn, limit, tuple(pairs[verdict.arm]), sentence)
        judgements.append(Judgement(verdict.arm, *args))
    metric = "loss" if unit == "nats per token" else "bits_per_byte"
    told = (
        ("held-out text: the same 99 lines",),
        ("a note to bear in mind",),
        f"windtunnel 1; arms {' | '.join(losses)}",
    )
    return Comparison(
        "names", metric, unit, tuple(arms), tuple(judgements), rule, 0.005, 99, 999, *told, "runs/compare"
    )


def losses(means, n=6, noise=0.004):
    rng = random.Random(1)
    shared = [rng.gauss(0, 0.01) for _ in range(n)]
    return {name: [mean + common + rng.gauss(0, noise) for common in shared] for name, mean in means.items()}


LONG = {f"position=learned, n_layers={i}, lr={i}e-4, activation=swiglu": 2 + i / 50 for i in range(12)}
CASES = {
    "words": made(losses({"base": 2.2, "good": 2.1, "bad": 2.3, "same": 2.2005, "maybe": 2.204}, 8, 0.006), cost=1.9),
    "long names": made(losses(LONG)),
    "one seed": made(losses({"base": 2.2, "good": 2.1}, n=1)),
    "diverged": made(losses({"base": 2.2, "b": 2.1, "c": 2.1}), diverged={("b", 2), *(("c", i) for i in range(6))}),
    "missing": made(losses({"base": 2.2, "b": 2.1, "c": 2.1}), missing={("b", 2), *(("c", i) for i in range(6))}),
    "nothing": made(losses({"base": 2.2, "b": 2.1}, n=1), missing={("base", 0), ("b", 0)}),
    "bits": made(losses({"base": 2.2, "good": 2.1}), unit="bits per byte", documents=False),
    "equal": made({"base": [2.2] * 4, "good": [2.1] * 4}),
    "evil": made(losses({EVIL: 2.2, "[red]$x_1$ \\frac{": 2.1}, n=4)),
}


def printed(found, width=80):
    out = io.StringIO()
    console = PlainConsole(file=out, width=width)
    for part in comparison_tables(found):
        console.print(part, highlight=False)
    return out.getvalue()


def artists(axes, name):
    """What was drawn under this name: {row: places}."""
    marked = [a for a in axes.collections if (a.get_gid() or "").startswith(f"{name}-")]
    return {int(a.get_gid().rsplit("-", 1)[1]): a.get_offsets().tolist() for a in marked}


@pytest.fixture(scope="module", name="figures")
def _figures():
    """Each drawn once; drawing is what takes the time."""
    figures = {name: comparison_figure(found) for name, found in CASES.items()}
    for figure in figures.values():
        figure.canvas.draw()
    return figures


@pytest.fixture(scope="module", name="report")
def _report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    return save_report(CASES["evil"], folder)


def test_the_made_up_losses_reach_every_verdict():
    words = {j.verdict.word for j in CASES["words"].judgements}
    assert words == {"better", "worse", "no difference that matters", "undecided"}


def test_the_tables_hold_every_number_and_fit_a_terminal():
    found, shown = CASES["words"], printed(CASES["words"])
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for arm in found.arms:
        assert f"{arm.loss.estimate:.4f} ±{arm.loss.high - arm.loss.estimate:.4f}" in shown
        assert f"{arm.scores['bits_per_byte'].estimate:.4f}" in shown
    for said in ("3.55k", "310k", "1.2T", "41.2k", "92MB", "6.75k", "1.90x", "0.53x"):
        assert said in shown
    for j in found.judgements:
        d = j.verdict.difference
        assert f"{d.estimate:+.4f}   {j.relative:+.2%}" in re.sub(" +", "   ", shown)
        for e in (d, *j.others.values(), j.over_seeds, j.over_documents):
            assert f"[{e.low:+.4f}, {e.high:+.4f}]" in shown
        for p in (j.verdict.p, j.verdict.p_equivalence):
            assert f" {p:.2g} " in shown if p >= 1e-4 else "< 1e-4" in shown
        assert j.sentence in shown
    maybe = next(j for j in found.judgements if j.arm == "maybe")
    assert maybe.seeds_needed
    assert f"~{maybe.seeds_needed} seeds" in shown
    for line in ("paired: held-out text", "note: a note to bear", "signature: windtunnel 1; arms base | good"):
        assert line in shown


def test_a_name_that_leaves_its_numbers_no_room_stands_whole_above_them():
    found = made(losses({"family=translator": 2.2, "family=transformer": 2.1}))
    loss = re.escape(f"{found.arms[1].loss.estimate:.4f}")
    assert re.search(rf"^family=transformer\n +{loss} ", printed(found, 60), re.MULTILINE)
    assert re.search(rf"^family=transformer +{loss} ", printed(found, 120), re.MULTILINE)
    assert all(printed(CASES["long names"]).count(f"\n{j.arm}\n") >= 2 for j in CASES["long names"].judgements)


@pytest.mark.parametrize("width", [40, 60])
def test_columns_that_do_not_fit_follow_in_a_table_of_their_own(width):
    shown = printed(CASES["words"], width)
    assert "…" not in shown
    assert set(re.findall(r"\S*\d\S*", printed(CASES["words"], 200))) == set(re.findall(r"\S*\d\S*", shown))
    tables = shown.partition("good against base")[0]
    assert max(map(len, tables.splitlines())) <= width
    for arm in CASES["words"].arms:
        assert tables.count(f"\n{arm.name}") >= 2
    last = CASES["words"].judgements[0].others["bits_per_byte"].estimate
    assert re.search(rf"^good .*{re.escape(f'{last:+.4f}')}$", tables, re.MULTILINE)


def test_small_differences_are_not_shown_as_zero():
    """Losses near 2e-7, as of a model that knows its text by heart."""
    noise = random.Random(3)
    table = {name: [at + noise.gauss(0, 1e-9) for _ in range(6)] for name, at in (("base", 2e-7), ("good", 1.5e-7))}
    found = made(table)
    shown = printed(found)
    assert "0.0000" not in shown
    d = found.judgements[0].verdict.difference
    assert f"{d.estimate:+.2e}" in shown
    assert f"[{d.low:+.2e}, {d.high:+.2e}]" in shown
    assert "margin, 1e-09?" in shown
    assert found.judgements[0].sentence in shown


def test_a_cost_is_marked_only_when_it_is_higher():
    assert not re.search(r"\d\.\d+x", printed(made(losses({"base": 2.2, "good": 2.1}), cost=0.5)))
    assert not re.search(r"\d\.\d+x", printed(made(losses({"base": 2.2, "good": 2.1}), cost=1.015)))
    assert "2.5x" in printed(made(losses({"base": 2.2, "good": 2.1}), cost=2.5))


def test_the_loss_is_in_the_unit_of_the_comparison():
    found = CASES["bits"]
    shown = printed(found)
    for arm in found.arms:
        assert f"{arm.scores['bits_per_byte'].estimate:.4f} ±" in shown
        assert f"{arm.loss.estimate:.4f} ±" not in shown
    assert "limits\n" not in shown


def test_what_did_not_end_well_is_stated():
    assert "1 diverged" in printed(CASES["diverged"])
    assert "5 of 6" in printed(CASES["missing"])
    assert "nothing can be judged yet" in printed(CASES["nothing"])
    assert "nan" not in printed(CASES["one seed"]) + printed(CASES["nothing"])


@pytest.mark.parametrize("width", [1, 20, 40])
@pytest.mark.parametrize("case", CASES)
def test_a_narrow_terminal_does_not_break_the_tables(case, width):
    assert printed(CASES[case], width)


def test_names_are_no_markup():
    assert printed(CASES["evil"], 120).count("[red]$x_1$") == 5  # three tables, sentence, signature


@pytest.mark.parametrize(("n", "text"), [(0, "0"), (999, "999"), (999.7, "1k"), (3552, "3.55k"), (1.2e6, "1.2M"),
                                         (1.04e8, "104M"), (2.5e22, "25Z"), (None, "-")])  # fmt: skip
def test_numbers_are_short(n, text):
    assert short(n) == text


@pytest.mark.parametrize("case", CASES)
def test_the_figure_has_a_dot_for_every_seed(case, figures):
    found = CASES[case]
    left, right = figures[case].axes
    dots, crosses, paired = artists(left, "losses"), artists(left, "diverged"), artists(right, "differences")
    judged = {j.arm: j for j in found.judgements}
    for row, arm in enumerate(found.arms):
        own = [r for r in arm.seeds if r.loss is not None]
        wanted = [r.scores[found.metric] for r in own if r.reason == "finished"]
        assert dots[row] == [[pytest.approx(value), row] for value in wanted]
        assert len(crosses.get(row, [])) == sum(r.reason == "diverged" for r in arm.seeds)
        if arm.name in judged:
            gone = {r.seed for r in arm.seeds if r.reason == "diverged"}
            kept = [d for seed, d in judged[arm.name].differences if seed not in gone]
            assert paired[row] == [[pytest.approx(d), row] for d in kept]
    low, high = left.get_xlim()
    assert all(low <= x <= high for row in dots.values() for x, _ in row)


@pytest.mark.parametrize("case", CASES)
def test_the_band_of_the_figure_is_the_margin_and_the_means_have_their_intervals(case, figures):
    found, right = CASES[case], figures[case].axes[1]
    (band,) = [patch for patch in right.patches if patch.get_gid() == "margin"]
    assert band.get_extents().transformed(right.transData.inverted()).intervalx == pytest.approx(
        [-found.rule.margin, found.rule.margin]
    )
    ends = [sorted(line.get_xdata()) for line in right.get_lines() if line.get_marker() == "|"]
    with_interval = [j.verdict.difference for j in found.judgements if not math.isnan(j.verdict.difference.low)]
    assert ends == [[d.low, d.high] for d in with_interval]
    said = [text.get_text() for text in right.texts]
    for j in found.judgements:
        assert any(text.startswith(j.verdict.word) for text in said)
        mean = j.verdict.difference.estimate
        assert any(text.startswith("no seed finished in both" if math.isnan(mean) else f"{mean:+.4f}") for text in said)


def test_seeds_are_joined_across_arms_and_not_through_a_run_that_diverged(figures):
    left = figures["diverged"].axes[0]
    lines = {line.get_gid(): line.get_xdata() for line in left.get_lines() if line.get_gid()}
    arms = CASES["diverged"].arms
    assert list(lines["seed-0"][:2]) == [arms[0].seeds[0].loss, arms[1].seeds[0].loss]
    assert math.isnan(lines["seed-2"][1])
    assert left.get_xlim()[1] < 3
    assert [text.get_text().partition("\n")[2] for text in left.get_yticklabels()] == ["", "1 diverged", "6 diverged"]


@pytest.mark.parametrize("case", CASES)
def test_nothing_in_the_figure_overlaps_or_is_cut_off(case, figures):
    figure = figures[case]
    left, right = figure.axes
    names = [text.get_window_extent() for text in left.get_yticklabels()]
    words = [text.get_window_extent() for text in right.texts if text.get_text()]
    for boxes in (names, words, [t.get_window_extent() for t in (left.title, right.title)]):
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert max(len(line) for text in left.get_yticklabels() for line in text.get_text().split("\n")) <= 30
    page = figure.bbox
    for box in [*names, *words, figure.legends[0].get_window_extent()]:
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    assert not any(text.get_parse_math() for text in left.get_yticklabels())


def test_a_report_is_a_picture_a_drawing_and_a_page(report):
    assert [path.name for path in report] == ["comparison.png", "comparison.svg", "report.html"]
    assert report[0].read_bytes().startswith(b"\x89PNG")
    ElementTree.parse(report[1])


def test_a_page_is_safe_and_whole(report):
    found, page = CASES["evil"], report[2].read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert "<script>alert" not in page
    assert "<!--" not in page
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(block[1]) == json.loads(json.dumps(found.to_dict()))
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert "innerHTML" not in page
    assert unescape(re.search(r'<pre id="signature">(.*?)</pre>', page, re.DOTALL)[1]) == found.signature
    for run in (run for arm in found.arms for run in arm.seeds):
        assert f"<td>{run.loss:.6f}</td><td>{run.scores['bits_per_byte']:.6f}</td><td>{run.folder}</td>" in page


def test_the_drawing_on_the_page_has_the_colours_of_its_theme(report):
    page = report[2].read_text(encoding="utf-8")
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert not re.search(r"#[0-9a-f]{6}[;\" ]", svg.replace('"#', ""))
    used = set(re.findall(r"var\((--\w+)\)", svg))
    assert {"--ink", "--page", "--better", "--undecided"} <= used
    assert all(len(re.findall(rf"{name}: #\w{{6}};", page)) == 2 for name in used)


@pytest.mark.parametrize("case", CASES)
def test_a_page_says_every_verdict_setting_and_note(case):
    found = CASES[case]
    page = unescape(comparison_page(found, {"comparison": "<svg></svg>"}).partition("<script")[0])
    for j in found.judgements:
        assert j.sentence in page
        assert f'class="words">{j.verdict.word}<' in page
        mean = j.verdict.difference.estimate
        assert ("-" if math.isnan(mean) else f"{mean:+.4f}") in page
        assert not any(word in page for word in (">nan", ">inf", "+nan", "+inf"))
    for said in (*found.pairing, *found.notes, "model.position", *(run.folder for a in found.arms for run in a.seeds)):
        assert said in page
    assert ">nan" not in page


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="file"):
        save_report(CASES["one seed"], tmp_path / "file" / "report")


def shown_progress(events, terminal, brief=True):
    out = io.StringIO()
    progress = TrainingProgress(PlainConsole(file=out, force_terminal=terminal, width=120), brief)
    with progress:
        for label, event in events:
            progress.show(label, event)
    return out.getvalue(), progress


def run(label, reason="finished"):
    start, step = Started(0, 10, 99, 1e3, 1e9), Step(1, 3.0, 0.1, 1.0, 10, 0.1)
    seen = Evaluation(1, "dev", {"loss": 2.5, "bits_per_byte": 1.0}, 10, True)
    return [
        (label, event)
        for event in (start, step, seen, Sample(1, "text"), Stopped(1, reason, "why" * (reason != "finished")))
    ]


def test_brief_progress_is_a_line_for_each_run_that_ends():
    said, _ = shown_progress([*run("a [x], seed 0"), *run("b", "diverged")], terminal=False)
    assert said == "a [x], seed 0: finished, dev 2.5000\nb: diverged: why, dev 2.5000\n"
    sampled = [(label, replace(e, whole=False) if isinstance(e, Evaluation) else e) for label, e in run("d")]
    assert shown_progress(sampled, terminal=False)[0] == "d: finished, dev 2.5000 (on a sample of 10 tokens)\n"
    said, _ = shown_progress([("c", Stopped(0, "interrupted", "not begun"))], terminal=False)
    assert said == ""
    said, _ = shown_progress([("c", Stopped(0, "failed", "no worker"))], terminal=False)
    assert said == "c: failed: no worker\n"


def test_progress_that_is_not_brief_tells_evaluations_and_samples():
    said, _ = shown_progress(run("a"), terminal=False, brief=False)
    assert said == "a: step 1/10  loss 3.000  dev 2.500  100 tokens/s  0% of peak\na: writes 'text'\n"


def test_the_loss_shown_is_of_the_last_steps_however_few_of_them_are_told():
    """The loss falls from 3 to 0 in 300 steps; the mean of the last, 0.95^k of weight each, lags 19 steps behind."""
    steps = [("a", Step(n, 3 - n / 100, 0.1, 1.0, 10, 0.1)) for n in range(1, 301)]
    seen = ("a", Evaluation(300, "dev", {"loss": 2.5}, 10, True))
    start = ("a", Started(0, 300, 99, 1e3, 1e9))
    for told, loss in ((steps, "0.190"), (steps[99::100], "0.006")):
        said, _ = shown_progress([start, *told, seen], terminal=False, brief=False)
        assert said == f"a: step 300/300  loss {loss}  dev 2.500  100 tokens/s  0% of peak\n"


def test_of_many_runs_only_those_that_train_have_a_bar():
    few, progress = shown_progress([e for i in range(8) for e in run(f"few {i}")], terminal=True)
    assert len(progress.bars.tasks) == 8
    assert "runs ended 8" in few
    assert "writes" not in few
    many = [e for i in range(9) for e in run(f"many {i}")]
    said, progress = shown_progress([*many, *run("[open]")[:2]], terminal=True)
    assert [task.description for task in progress.bars.tasks] == ["[open]"]
    assert "[open]" in said
    assert "runs ended 9" in said
    assert not shown_progress(run("a"), terminal=True, brief=False)[1].bars.headline
