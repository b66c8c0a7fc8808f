"""Slices of a run that translates: the numbers are those of a plain count over what it writes."""

import re
from dataclasses import replace

import numpy as np
import pytest

from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.generation.translate import Translated, translate, translate_all
from windtunnel.inspect import slices as module
from windtunnel.inspect.slices import choose, evaluate_slices, evaluate_stress, made_sources
from windtunnel.report.slices import free_test_line, slice_lines, slices_figure
from windtunnel.stats.proportions import fisher_exact, wilson
from windtunnel.text.corpora.corpus import Judging
from windtunnel.text.corpora.pig_latin import SLICES, pig_latin, words
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate, unit_sums
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load

CHANGES = ["model.family=transformer", "train.steps=80", "train.eval_every=80", "train.save_every=80",
           "schedule.warmup=20", "train.sample_tokens=0", "train.batch_size=32", "model.n_layers=2", "model.d_model=32",
           "model.context_length=16", "text.dev_fraction=.25", "train.compile=false", "train.threads=1"]  # fmt: skip


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    """A run that copies words of two to five letters; every word with an a may be answered by x too."""
    folder = tmp_path_factory.mktemp("copy")
    sources = [a + b + "c" * (i % 4) for i, a in enumerate("abcdefghij") for b in "abcdefghijklmnopqrst"]
    pairs = [f"{s}\t{t}" for s in sources for t in ([s, "x"] if "a" in s else [s])]
    (folder / "pairs.tsv").write_text("\n".join(["source\ttarget", *pairs]))
    list(fit(override(recipe("translate", str(folder / "pairs.tsv")), CHANGES), folder / "run"))
    return load(folder / "run")


@pytest.fixture(scope="module")
def latin(tmp_path_factory):
    """A run on pig-latin-small that has hardly begun to learn."""
    changes = [*CHANGES, "train.steps=60", "model.context_length=96", "text.dev_fraction=.03"]
    folder = tmp_path_factory.mktemp("latin") / "run"
    list(fit(override(recipe("translate", "pig-latin-small"), changes), folder))
    return load(folder)


def dev_pairs(trained):
    store = trained.run.store()
    part = store.splits["dev"]
    spans = zip(part.offsets[:-1], part.offsets[1:], strict=True)
    return [tuple(store.tokenizer.decode(part.ids[a:b]).split("\t")) for a, b in spans]


def test_every_number_is_that_of_a_plain_count(copier):
    found, pairs = evaluate_slices(copier, n_wrong=2), dev_pairs(copier)
    sources = list(dict.fromkeys(source for source, _ in pairs))
    written = {source: translate(copier, source)[0] for source in sources}
    right = {s: written[s].complete and written[s].target in ([s, "x"] if "a" in s else [s]) for s in sources}
    assert 0 < sum(right.values()) < len(sources) < len(pairs)
    assert found.n_pairs == len(pairs)
    sums = unit_sums(copier.model, open_task(copier.run.config), "dev")
    any_right, first = found.scores
    assert any_right.exact == wilson(sum(right.values()), len(sources))
    assert first.name == "the first target only"
    assert first.exact.estimate == sum(right[s] and written[s].target == s for s in sources) / len(sources)
    assert [(b.name, b.exact.estimate) for b in found.baselines] == [("copy the source", 1)]
    for score in found.slices:
        low, *_, high = [int(digit) for digit in re.findall(r"\d", 2 * score.name)]
        those = [right[s] for s in sources if low <= len(s) <= high]
        assert (score.n, score.exact) == (len(those), wilson(sum(those), len(those)))
        inside = np.array([low <= len(source) <= high for source, _ in pairs])
        assert score.loss == pytest.approx(sums["nats"][inside].sum() / sums["targets"][inside].sum())
    assert sum(score.n for score in found.slices) == len(sources)
    wrong = [s for s in sources if not right[s]]
    assert found.n_wrong == len(wrong)
    assert [w.source for w in found.wrong] == wrong[:2]
    assert found.wrong[0].written == written[wrong[0]].target
    whole = evaluate(copier.model, open_task(copier.run.config), "dev", copier.step)
    assert any_right.loss == pytest.approx(whole.loss, rel=1e-5)


def test_greedy_and_teacher_forced_agree_pair_by_pair(copier):
    found = evaluate_slices(copier)
    assert (found.free_test.n, found.free_test.differ) == (found.n_pairs, 0)
    assert 0 < found.free_test.greedy == found.free_test.teacher_forced
    assert "agree on all" in free_test_line(found)


def test_a_decoder_that_does_not_write_the_best_token_is_told(copier, monkeypatch):
    def worse(trained, sources):
        return [replace(one, target=one.target + "z") for one in translate_all(trained, sources)]

    monkeypatch.setattr(module, "translate_all", worse)
    found = evaluate_slices(copier)
    assert found.free_test.differ == found.free_test.teacher_forced > 0 == found.free_test.greedy
    assert free_test_line(found).startswith("FREE TEST: teacher-forced and greedy exact match differ on")


def test_a_target_without_its_end_is_not_what_the_loss_counts_as_right():
    written = [Translated("a", "b", 0.5, complete=False), Translated("c", "d", 0.5, complete=True)]
    pairs = [("a", "b"), ("c", "d"), ("c", "e")]
    assert module._free_test(written, pairs, np.array([0.0, 1, 0])) == module.FreeTest(3, 1, 1, 0)
    assert module._free_test(written, pairs, np.array([1.0, 0, 1])) == module.FreeTest(3, 2, 1, 3)


def test_the_sources_of_a_split_are_cut_into_four_by_length_or_by_the_slices_of_the_corpus():
    sources = [c * n for n in (1, 2, 3, 4, 9) for c in "ab"]
    assert {name: those.sum() for name, those in choose(sources, Judging()).items()} == {
        "1 to 2 characters": 4, "of 3 characters": 2, "of 4 characters": 2, "of 9 characters": 2}  # fmt: skip
    assert list(choose(["aa", "bb"], Judging())) == ["of 2 characters"]
    own = choose(["ab", "b", "c"], Judging(slices={"a": lambda s: "a" in s, "b": lambda s: "b" in s, "z": "z".__eq__}))
    assert {name: those.tolist() for name, those in own.items()} == {
        "a": [True, False, False], "b": [True, True, False], "none of these": [False, False, True]}  # fmt: skip


def test_the_worst_slice_is_named_and_compared_with_all_others():
    def score(name, hits, n):
        return module.Score(name, n, wilson(hits, n), wilson(0, n), None)

    exact = np.array([True] * 130 + [False] * 20)
    answers = module.Answers(exact, *[np.zeros(150, int)] * 4)
    found = module._worst([score("few", 0, 10), score("easy", 100, 100), score("hard", 25, 40)], answers)
    assert found.name == "hard"
    assert found.p == pytest.approx(2 * fisher_exact(25, 40, 105, 110))
    assert module._worst([score("few", 0, 10), score("easy", 130, 140)], answers) is None
    for hits in (0, 20, 40):
        assert module._worst([score("one", hits, 40), score("other", hits, 40)], answers) is None


def test_pig_latin_is_cut_by_its_own_slices_and_beside_its_baselines(latin):
    found = evaluate_slices(latin)
    sources = [source for source, _ in dev_pairs(latin)]
    n = {name: sum(map(bool, map(pattern.search, sources))) for name, pattern in SLICES.items()}
    assert {s.name: s.n for s in found.slices if s.name != "none of these"} == {k: v for k, v in n.items() if v}
    assert [baseline.name for baseline in found.baselines] == ["move one letter", "copy the source"]
    assert 0.6 < found.baselines[0].exact.estimate < 0.9
    assert found.baselines[1].exact.estimate == 0
    assert found.free_test.differ == 0


def test_stress_sources_fill_every_slice_and_none_is_in_the_corpus(latin):
    store = latin.run.store()
    sources = made_sources(store, latin.model.config.context_length)
    assert sources == made_sources(store, latin.model.config.context_length)
    assert not set(sources) & set(words())
    for pattern in SLICES.values():
        assert sum(pattern.search(source) is not None for source in sources) >= 300
    short = made_sources(store, 20, n=5)
    assert short
    assert all(len(source) + 1 + len(pig_latin(source)) < 20 for source in short)


def test_stress_sources_are_judged_as_held_out_ones_are(latin):
    found = evaluate_stress(latin, n=4)
    assert (found.split, found.n_pairs, found.free_test.differ) == ("stress", found.scores[0].n, 0)
    assert {score.name for score in found.slices} >= set(SLICES)
    assert all(score.n >= 4 for score in found.slices if score.name in SLICES)
    assert all(wrong.expected == (pig_latin(wrong.source),) for wrong in found.wrong)
    assert found.scores[0].loss > 0
    assert any(line.startswith("free test") for line in slice_lines(found))


def test_a_corpus_without_a_rule_has_no_stress_set(copier):
    with pytest.raises(ConfigError, match=r"--stress makes words by a rule, and pairs\.tsv has none"):
        evaluate_stress(copier)


def test_the_figure_has_a_row_with_its_interval_for_each_slice(latin):
    found = evaluate_slices(latin)
    figure = slices_figure([found, replace(found, worst=module.Worst(found.slices[0].name, 1.0))])
    assert ["square: the worst" in axes.get_title("left") for axes in figure.axes] == [found.worst is not None, True]
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_yticklabels()] == [f"{s.name} ({s.n})" for s in found.slices]
        drawn = [bars.get_segments()[0] for c in axes.containers for bars in c.lines[2]]
        ends = [(segment[0, 0], segment[1, 0]) for segment in drawn]
        assert np.allclose(ends, [(s.exact.low, s.exact.high) for s in found.slices])


def test_all_sources_are_translated_uncut_and_greedily(copier):
    assert [one.source for one in translate_all(copier, ["ab", "cd"])] == ["ab", "cd"]
    assert translate_all(copier, ["ab"]) == translate(copier, "ab")
