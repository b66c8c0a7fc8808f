"""A comparison by slice: made-up sums with known differences are judged as they must be, and real runs as they are."""

import json
import math
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from scipy import stats

from windtunnel import cli
from windtunnel.comparison.comparison import SeedRun
from windtunnel.comparison.judging import Found, conclude
from windtunnel.comparison.plan import make_plan
from windtunnel.comparison.slices import check_slices, judge_slices, notes_on, with_slices
from windtunnel.config import override
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.inspect.answers import FEWEST
from windtunnel.inspect.slices import pairs_by_slice
from windtunnel.library.comparing import compare
from windtunnel.runs.arms import vary
from windtunnel.runs.measure import Measured, read_measured
from windtunnel.training.disk import read_manifest, write_folder
from windtunnel.training.events import Step
from windtunnel.training.recipes import recipe
from windtunnel.training.run import open_run

CHANGES = ["train.steps=30", "train.eval_every=30", "train.save_every=30", "schedule.warmup=5",
           "train.sample_tokens=0", "train.batch_size=8", "model.n_layers=1", "model.n_heads=2", "model.d_model=16",
           "model.context_length=16", "text.dev_fraction=.5", "train.compile=false", "train.threads=1"]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """400 words of two to five letters, copied; half of them are held out."""
    path = tmp_path_factory.mktemp("corpus") / "pairs.tsv"
    words = [a + b + "c" * (i % 4) for i, a in enumerate("abcdefghijklmnopqrst") for b in "abcdefghijklmnopqrst"]
    path.write_text("\n".join(["source\ttarget", *(f"{word}\t{word}" for word in words)]))
    return path


def plan_of(corpus, root, arms="1e-3,1e-2", seeds=4, more=(), **rule):
    base = override(recipe("translate", str(corpus)), [*CHANGES, *more])
    return make_plan(vary(base, [f"optimizer.lr={arms}"]), seeds, root=root, **rule)


@pytest.fixture(scope="module")
def plan(corpus, tmp_path_factory):
    """Two arms that are never trained."""
    return plan_of(corpus, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module", name="lengths")
def _lengths(plan):
    """Of the source of each pair of the dev split, in characters."""
    store = plan.baseline.store
    part = store.splits["dev"]
    pairs = [store.tokenizer.decode(part.ids[a:b]) for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True)]
    return np.array([len(pair.split("\t")[0]) for pair in pairs])


@pytest.fixture(scope="module")
def chosen(lengths):
    """Slices that are known here: one a length."""
    slices = {f"of {n} characters": lengths == n for n in (2, 3, 4, 5)}
    assert min(pairs.sum() for pairs in slices.values()) >= FEWEST
    return slices


def made(plan, chosen, rng, shifts=(), spread=0.02, n_seeds=4, base=1.0):
    """Runs whose loss on each slice is `base` and noise of its own, in the second arm with the slice's shift."""
    n = len(next(iter(chosen.values())))
    targets = rng.integers(3, 7, n).astype(np.float64)
    found = {}
    for arm in plan.grid.arms:
        found[arm.name] = []
        for seed in range(n_seeds):
            level = np.full(n, base)
            for name, pairs in chosen.items():
                level[pairs] += spread * rng.standard_normal() + dict(shifts).get(name, 0) * (arm != plan.baseline)
            exact = (rng.random(n) < 0.5).astype(np.float64)
            sums = {"nats": level * targets, "targets": targets, "right": targets, "exact": exact}
            run = SeedRun(seed, f"runs/{arm.name}/seed-{seed}", "finished", "", {})
            found[arm.name].append(Found(run, Measured(sums, None), None, None, ""))
    return found


def words(slices):
    return {part.name: [j.verdict.word for j in part.judgements] for part in slices}


def by_hand(found, pairs, column="nats", below="targets"):
    """A score of each arm and seed on some pairs, (arms, seeds); `below` None: by the number of pairs."""
    return np.array(
        [
            [
                f.measured.sums[column][pairs].sum() / (f.measured.sums[below][pairs].sum() if below else pairs.sum())
                for f in own
            ]
            for own in found.values()
        ]
    )


def test_a_corpus_without_slices_of_its_own_is_cut_by_the_length_of_the_sources(plan, lengths):
    found = pairs_by_slice(plan.baseline.store, "dev")
    assert len(found) >= 3
    assert np.sum(list(found.values()), axis=0).tolist() == [1] * len(lengths)
    for name, pairs in found.items():
        low, *_, high = [int(digit) for digit in re.findall(r"\d", 2 * name)]
        assert pairs.tolist() == [low <= n <= high for n in lengths]


def test_a_difference_on_one_slice_is_found_there_alone_with_the_numbers_of_a_plain_count(plan, chosen):
    there = "of 4 characters"
    found = made(plan, chosen, np.random.default_rng(0), {there: -0.3})
    slices = judge_slices(plan, found, chosen)
    assert words(slices) == {name: ["better" if name == there else "undecided"] for name in chosen}
    ps = []
    for part, pairs in zip(slices, chosen.values(), strict=True):
        [j], losses, exact = part.judgements, by_hand(found, pairs), by_hand(found, pairs, "exact", None)
        assert part.n == pairs.sum()
        for name, ours, right in zip(found, losses, exact, strict=True):
            assert part.scores[name]["loss"].estimate == pytest.approx(ours.mean(), rel=1e-12)
            assert part.scores[name]["exact_match"].estimate == pytest.approx(right.mean(), rel=1e-12)
        assert part.margin == pytest.approx(0.005 * losses[0].mean())
        assert [d for _, d in j.differences] == pytest.approx(losses[1] - losses[0], abs=1e-12)
        assert j.verdict.p == pytest.approx(stats.ttest_rel(losses[1], losses[0]).pvalue, rel=1e-6)
        assert j.verdict.difference.estimate == pytest.approx((losses[1] - losses[0]).mean(), abs=1e-12)
        wanted = stats.t.interval(1 - j.verdict.level, 3, *_mean_and_error(losses[1] - losses[0]))
        assert (j.verdict.difference.low, j.verdict.difference.high) == pytest.approx(wanted, rel=1e-6)
        assert j.others["exact_match"].estimate == pytest.approx((exact[1] - exact[0]).mean(), abs=1e-12)
        assert j.over_documents.n == part.n
        assert j.over_documents.estimate == pytest.approx(j.verdict.difference.estimate, abs=1e-9)
        assert j.sentence.startswith(f"{part.name}: {j.arm} against {plan.baseline.name}: {j.verdict.word}: ")
        ps.append((j.verdict.p, j.verdict.level))
    assert [level for _, level in sorted(ps)] == pytest.approx([0.05 / 4, *[0.05 / 3] * 3])  # Holm


def _mean_and_error(values):
    return values.mean(), values.std(ddof=1) / math.sqrt(len(values))


def test_where_higher_is_worse_and_runs_diverge_the_words_follow(plan, chosen):
    found = made(plan, chosen, np.random.default_rng(0), {"of 2 characters": 0.3}, n_seeds=8)
    assert words(judge_slices(plan, found, chosen))["of 2 characters"] == ["worse"]
    arm = plan.grid.arms[1].name
    gone = {"loss": math.inf, "exact_match": -math.inf}
    found[arm] = [replace(f, run=replace(f.run, reason="diverged", scores=gone), measured=None) for f in found[arm]]
    slices = judge_slices(plan, found, chosen)
    assert words(slices) == {name: ["worse"] for name in chosen}  # 8 of 8: p = .0078
    assert {part.judgements[0].verdict.diverged for part in slices} == {(8, 0)}


def test_of_equal_arms_about_as_few_verdicts_are_wrong_as_the_level_says(plan, chosen):
    """Without the correction about 1 - 0.95^4 = 19 % of them name a winner: 37 of 200; with it at most 5 %: 10."""
    rng = np.random.default_rng(1)
    wrong = uncorrected = 0
    for _ in range(200):
        judged = [part.judgements[0].verdict for part in judge_slices(plan, made(plan, chosen, rng), chosen)]
        wrong += any(verdict.word in ("better", "worse") for verdict in judged)
        uncorrected += any(verdict.p <= 0.05 for verdict in judged)
    assert 1 <= wrong <= stats.binom.ppf(0.999, 200, 0.05)
    assert uncorrected > stats.binom.ppf(0.999, 200, 0.05)


def test_arms_with_the_same_sums_make_no_difference(plan, chosen):
    found = made(plan, chosen, np.random.default_rng(2))
    found[plan.grid.arms[1].name] = found[plan.baseline.name]
    assert words(judge_slices(plan, found, chosen)) == {name: ["no difference that matters"] for name in chosen}


def test_a_slice_of_few_pairs_has_no_verdict_and_costs_the_others_nothing(plan, chosen):
    few = dict(chosen)
    name, pairs = next(iter(few.items()))
    few[name] = pairs & (pairs.cumsum() <= FEWEST - 1)
    found = made(plan, chosen, np.random.default_rng(0), {name: -0.3})
    first, *others = judge_slices(plan, found, few)
    assert (first.n, first.enough, first.judgements) == (FEWEST - 1, False, ())
    assert first.scores[plan.baseline.name]["loss"].n == 4
    assert min(part.judgements[0].verdict.level for part in others) == pytest.approx(0.05 / 3)


def test_each_correction_is_for_slices_and_arms_together(corpus, tmp_path, chosen):
    for correction, level in (("holm", 0.05 / 8), ("dunnett", 0.05 / 8), ("bonferroni", 0.05 / 8), ("none", 0.05)):
        plan = plan_of(corpus, tmp_path, "1e-3,1e-2,3e-2", correction=correction)
        slices = judge_slices(plan, made(plan, chosen, np.random.default_rng(0)), chosen)
        assert [len(part.judgements) for part in slices] == [2] * 4
        assert min(j.verdict.level for part in slices for j in part.judgements) == pytest.approx(level)


def test_a_baseline_without_any_loss_is_no_error(plan, chosen):
    found = made(plan, chosen, np.random.default_rng(0), spread=0.0, base=0.0, shifts={"of 3 characters": 0.3})
    slices = judge_slices(plan, found, chosen)
    assert words(slices)["of 3 characters"] == ["worse"]
    assert {part.margin for part in slices} == {0.005}
    [j] = slices[1].judgements
    assert math.isnan(j.relative)
    assert "nan" not in j.sentence


@pytest.mark.parametrize(
    ("vary_", "kind", "message"),
    [
        ("text.tokenizer=characters,bytes", "translate", "has another tokenizer than tokenizer=characters"),
        ("model.position=rope,learned", "auto", "is trained for language"),
    ],
)
def test_arms_that_cannot_be_judged_by_slice_are_refused_before_they_train(corpus, tmp_path, vary_, kind, message):
    name = str(corpus) if kind == "translate" else "names"
    changes = ["model.context_length=32"] if kind == "translate" else []
    plan = make_plan(vary(override(recipe(kind, name), changes), [vary_]), 4, root=tmp_path / "runs")
    with pytest.raises(ConfigError, match=message):
        check_slices(plan)
    with pytest.raises(ConfigError, match=message), ThreadPoolExecutor(1) as executor:
        compare(
            vary(override(recipe(kind, name), changes), [vary_]),
            seeds=4,
            executor=executor,
            slices=True,
            out=tmp_path / "runs",
        )
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """Two arms that were trained; the comparison by slice."""
    plan = plan_of(corpus, tmp_path_factory.mktemp("trained"))
    arms = vary(override(recipe("translate", str(corpus)), CHANGES), ["optimizer.lr=1e-3,1e-2"])
    with ThreadPoolExecutor(1) as executor:
        return plan, compare(arms, seeds=4, executor=executor, slices=True, out=plan.grid.root, progress=False)


def test_real_runs_are_judged_by_what_was_measured_of_them(trained):
    plan, found = trained
    chosen = pairs_by_slice(plan.baseline.store, "dev")
    whole = conclude(plan)
    assert replace(found, slices=(), notes=whole.notes) == whole
    assert found.notes[: len(whole.notes)] == whole.notes
    assert f"Holm's correction is for all {len(chosen)} verdicts together" in found.notes[len(whole.notes)]
    measured = {arm.name: [read_measured(Path(run.folder)) for run in arm.seeds] for arm in found.arms}
    for part, pairs in zip(found.slices, chosen.values(), strict=True):
        for name, own in measured.items():
            losses = [m.sums["nats"][pairs].sum() / m.sums["targets"][pairs].sum() for m in own]
            assert part.scores[name]["loss"].estimate == pytest.approx(np.mean(losses), rel=1e-9)
            exact = [m.sums["exact"][pairs].mean() for m in own]
            assert part.scores[name]["exact_match"].estimate == pytest.approx(np.mean(exact), rel=1e-9)
    assert json.loads(json.dumps(found.to_dict()))["slices"][0]["n"] == found.slices[0].n


def test_notes_say_which_verdicts_other_pairs_or_another_test_could_turn(plan, chosen):
    found = made(plan, chosen, np.random.default_rng(0), {"of 4 characters": -0.3})
    notes = list(notes_on(plan, judge_slices(plan, found, chosen)))
    assert len(notes) == 2
    assert (
        "1 of 1 verdicts of better or worse rest on the differences being about normal" in notes[1]
    )  # 4 seeds: p >= .125
    one = chosen["of 4 characters"].argmax()  # this pair brings all of the difference
    for arm, own in found.items():
        for f in own:
            f.measured.sums["nats"] = f.measured.sums["targets"] + f.run.seed
            f.measured.sums["nats"][one] += f.run.seed + 900 * (arm != plan.baseline.name)
    [told] = [n for n in notes_on(plan, judge_slices(plan, found, chosen)) if "could turn" in n]
    arm, n = plan.grid.arms[1].name, chosen["of 4 characters"].sum()
    assert told == f"of 4 characters: the verdict on {arm} holds for these {n} pairs; others could turn it"


def test_where_no_run_is_there_nothing_is_said_of_verdicts(plan, chosen):
    slices = judge_slices(plan, {arm.name: [] for arm in plan.grid.arms}, chosen)
    assert words(slices) == {name: [] for name in chosen}
    assert list(notes_on(plan, slices)) == []


def steps_of(found):
    """Every step that a run of a comparison was trained for, with its time."""
    folders = [Path(run.folder) for arm in found.arms for run in arm.seeds]
    return [[event for event in open_run(folder).events() if isinstance(event, Step)] for folder in folders]


def test_what_an_older_version_measured_is_told_and_the_cure_works_without_training(
    corpus, trained, monkeypatch, capsys
):
    plan, found = trained
    run = Path(found.arms[0].seeds[0].folder)
    before = steps_of(found)
    facts = {key: read_manifest(run / "measured")[key] for key in ("kind", "step", "peak_memory")}
    sums = {name: column for name, column in read_measured(run).sums.items() if name != "exact"}
    write_folder(run / "measured", {"documents.safetensors": safetensors.numpy.save(sums)}, facts, replace=True)
    with pytest.raises(ArtifactError, match=r"measured does not hold exact of each document.*delete this folder"):
        with_slices(plan)
    shutil.rmtree(run / "measured")
    changes = [word for change in CHANGES for word in ("--set", change)]
    words = ["compare", corpus, "--recipe", "translate", "--vary", "optimizer.lr=1e-3,1e-2", "--seeds", 4,
             "--out", plan.grid.root, "--json", *changes]  # fmt: skip
    told = []
    for more in ([], ["--slices"]):
        monkeypatch.setattr("sys.argv", ["windtunnel", *map(str, words), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        told.append(json.loads(out))
    assert steps_of(found) == before
    assert told[0]["slices"] == []
    assert told[1]["slices"] == json.loads(json.dumps(found.to_dict()))["slices"]
    assert told[1]["judgements"] == told[0]["judgements"]
    files = {path.name for path in plan.folder.iterdir()}
    assert {"slices.png", "slices.svg", "report.html", "comparison.json"} <= files
    assert json.loads((plan.folder / "comparison.json").read_text())["slices"] == told[1]["slices"]
