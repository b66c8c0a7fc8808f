"""Mixes of corpora: how they are written, that their weights are the shares of the tokens, and what they share."""

import json

import numpy as np
import pytest

from windtunnel.errors import ConfigError, DataError
from windtunnel.models import MLPConfig, TransformerConfig
from windtunnel.tasks import LanguageConfig
from windtunnel.text.batches import IGNORED, batch, in_epochs
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.mixes import corpora_in, mix_text, parse_mix
from windtunnel.text.store import TextConfig, prepare

MODEL = TransformerConfig(context_length=16, n_layers=1, n_heads=1, d_model=8)


@pytest.fixture
def texts(tmp_path):
    """Running text of a-m, lines of n-z of 2 to 12 letters, and documents of digits in JSONL."""
    rng = np.random.default_rng(0)
    (tmp_path / "a.txt").write_text("".join(rng.choice(list("abcdefghijklm"), 9000)))
    names = ("".join(rng.choice(list("nopqrstuvwxyz"), rng.integers(2, 13))) for _ in range(400))
    (tmp_path / "b.csv").write_text("text\n" + "\n".join(names))
    documents = ("".join(rng.choice(list("0123456789"), 200)) for _ in range(60))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in documents))
    return tmp_path


def task_of(mix, model=MODEL, **text):
    config = TextConfig(**text)
    return LanguageConfig().make(model, prepare(open_corpus(mix, config.unit, config.columns), config))


def share_of_a(task, n_examples=4000):
    """The share of the predicted tokens that are letters of a.txt."""
    rows = in_epochs(task.examples("train"), 0, 0, n_examples)
    of_a = np.isin(rows.targets.numpy(), task.store.tokenizer.encode("abcdefghijklm"))
    return of_a.sum() / rows.n_targets


def test_a_mix_is_parsed_into_shares_that_sum_to_1():
    assert parse_mix("a.txt:7, names:3") == (("a.txt", 0.7), ("names", 0.3))
    assert parse_mix("x/a:b.txt:1e0,c:0") == (("x/a:b.txt", 1.0), ("c", 0.0))
    assert [parse_mix(text) for text in ("names", "a.txt", "C:/a", "data/[a,b].txt", "a,b")] == [None] * 5


def test_equal_mixes_are_written_alike_however_they_were_given():
    thirds = mix_text(parse_mix("c:1,a:1,b:1"))
    assert thirds == "a:0.3333333333,b:0.3333333333,c:0.3333333333"
    assert mix_text(parse_mix(thirds)) == thirds
    assert mix_text(parse_mix("b : 1 , a: 1,c :1")) == thirds
    assert mix_text(parse_mix("a:1.7e308,b:1.7e308,c:1.7e308")) == thirds
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = rng.integers(0, 1000, rng.integers(2, 9)) + 1
        written = mix_text(
            parse_mix(",".join(f"{name}:{weight}" for name, weight in zip("abcdefgh", weights, strict=False)))
        )
        assert mix_text(parse_mix(written)) == written


def test_a_path_that_is_gone_is_one_corpus_whatever_it_looks_like():
    assert corpora_in("/gone/h:8080") == ("/gone/h:8080",)
    assert corpora_in("a:1,b:1") == ("a", "b")


def test_a_file_whose_name_looks_like_a_mix_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:1,b:2").write_text("text")
    assert open_corpus("a:1,b:2").parts == ()


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ("a.txt:0.7,b.csv", "'b.csv' has no weight"),
        ("a.txt:-1,b.csv:2", "the weight of a.txt is -1; expected a number of at least 0"),
        ("a.txt:nan,b.csv:2", "the weight of a.txt is nan"),
        ("a.txt:1e999,b.csv:2", "the weight of a.txt is 1e999"),
        ("a.txt:1x,b.csv:2", "the weight of a.txt is 1x"),
        ("a.txt:0,b.csv:0", "no positive weight"),
        ("a.txt:1", "is of one corpus"),
        ("a.txt:1,a.txt:2", "has a.txt twice"),
        ("a.txt:1,pig-latin:1", "has the fields source, target, and a mix is of plain texts"),
        ("a.txt:1,labels.csv:1", "has the fields text, label"),
    ],
)
def test_a_mix_that_cannot_be_is_refused_with_the_reason(texts, monkeypatch, mix, said):
    monkeypatch.chdir(texts)
    (texts / "labels.csv").write_text("text,label\nx,y\n")
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        open_corpus(mix)


def test_a_part_that_is_not_there_and_parts_without_weights_are_told(texts, monkeypatch):
    monkeypatch.chdir(texts)
    with pytest.raises(DataError, match=r"no corpus or path 'gone\.txt'"):
        open_corpus("a.txt:1,gone.txt:1")
    with pytest.raises(DataError, match="several corpora need a weight each"):
        open_corpus("a.txt,b.csv")
    (texts / "copy.txt").write_bytes((texts / "a.txt").read_bytes())
    with pytest.raises(DataError, match=r"(a|copy).txt and .*(copy|a).txt hold the same text"):
        task_of("a.txt:1,copy.txt:1")


@pytest.mark.parametrize(("weight", "expected"), [("0.7", 0.7), ("0.2", 0.2), ("0", 0.0)])
@pytest.mark.parametrize("other", ["b.csv", "c.jsonl"])
def test_weights_are_shares_of_the_training_tokens(texts, monkeypatch, weight, expected, other):
    monkeypatch.chdir(texts)
    mix = f"a.txt:{weight},{other}:{1 - float(weight):g}"
    assert share_of_a(task_of(mix, tokenizer="characters")) == pytest.approx(expected, abs=0.01)


def test_lines_are_read_as_lines_and_weighed_by_their_tokens(texts, monkeypatch):
    monkeypatch.chdir(texts)
    (texts / "b.txt").write_text((texts / "b.csv").read_text())
    task = task_of("b.txt:0.5,names:0.5", unit="line")
    assert [part.by_line for part in task.parts] == [True, True]
    task = task_of("a.txt:0.25,names:0.75")
    assert sorted(part.by_line for part in task.parts) == [False, True]
    rows = in_epochs(task.examples("train"), 0, 0, 4000)
    windows = (rows.targets != IGNORED).all(dim=1) & (rows.ids[:, 0] != task.store.tokenizer.end_id)
    assert int(windows.sum()) * 16 / rows.n_targets == pytest.approx(0.25, abs=0.01)


def test_the_weights_hold_in_every_batch_to_an_example(texts, monkeypatch):
    monkeypatch.chdir(texts)
    source = task_of("a.txt:0.75,c.jsonl:0.25").examples("train")
    for step in range(8):
        assert np.bincount(source.cycle[12 * step : 12 * step + 12]).tolist() in ([9, 3], [3, 9])


def test_a_batch_is_a_function_of_seed_and_step_however_the_steps_are_cut(texts, monkeypatch):
    monkeypatch.chdir(texts)
    source = task_of("a.txt:0.6,b.csv:0.3,names:0.1").examples("train")
    several = in_epochs(source, 3, 5 * 20, 9 * 20)
    for i, step in enumerate(range(5, 9)):
        one = batch(source, 20, 3, step)
        width = one.ids.shape[1]
        assert several.targets[20 * i : 20 * i + 20, :width].equal(one.targets)
        assert several.ids[20 * i : 20 * i + 20, :width].equal(one.ids)
    assert not batch(source, 20, 4, 5).targets.equal(batch(source, 20, 3, 5).targets)


def test_a_corpus_gives_the_examples_that_it_gives_alone_each_once_an_epoch(texts, monkeypatch):
    monkeypatch.chdir(texts)
    task = task_of("a.txt:0.5,c.jsonl:0.5")
    source = task.examples("train")
    i = next(i for i, part in enumerate(task.parts) if part.store.corpus.name == "a.txt")
    alone = task.parts[i].examples("train")
    rows = in_epochs(source, 0, 0, 2 * len(source))
    mine = (source.cycle[np.arange(2 * len(source)) % source.CYCLE] == i).nonzero()[0]
    assert rows.targets[mine].equal(in_epochs(alone, 0, 0, len(mine)).targets)


def test_after_a_whole_cycle_the_sources_go_on_where_they_were(texts, monkeypatch):
    monkeypatch.chdir(texts)
    source = task_of("a.txt:0.3,c.jsonl:0.7").examples("train")
    total, start = len(source.cycle), 2 * len(source.cycle) - 6
    across = source.draw(0, start, start + 12)
    for i, part in enumerate(source.sources):
        mine = (source.cycle[np.arange(start, start + 12) % total] == i).nonzero()[0]
        before = int((np.tile(source.cycle, 2)[:start] == i).sum())
        assert across.targets[mine].equal(in_epochs(part, 0, before, before + len(mine)).targets)


def test_the_dev_split_is_that_of_each_corpus_whatever_the_weights(texts, monkeypatch):
    monkeypatch.chdir(texts)
    mixes = "a.txt:0.9,b.csv:0.05,names:0.05", "names:0.5,b.csv:0.5,a.txt:0"
    tasks = [task_of(mix) for mix in mixes]
    assert len({task.store.sha256 for task in tasks}) == len({task.store.folder for task in tasks}) == 1
    swept = [[(one.ids, one.targets, one.units) for one in task.examples("dev").sweep(8)] for task in tasks]
    assert all(a.equal(b) for one, other in zip(*swept, strict=True) for a, b in zip(one, other, strict=True))
    task = tasks[0]
    units = np.concatenate([u.expand_as(t)[t != IGNORED].numpy() for _, t, u in swept[0]])
    n_targets = sum(part.totals("dev")["targets"] for part in task.parts)
    assert len(units) == n_targets == task.totals("dev")["targets"]
    assert np.unique(units).tolist() == list(range(task.n_units("dev")))
    parts = task.units_by_part("dev")
    for name, part in task.by_name("dev").items():
        assert parts[name][units].sum() == part.totals("dev")["targets"]


def test_a_sample_of_the_dev_split_reads_of_every_corpus(texts, monkeypatch):
    monkeypatch.chdir(texts)
    task = task_of("a.txt:0.5,names:0.5")
    swept = [(one.targets != IGNORED, one.units.expand_as(one.targets)) for one in task.examples("dev").sweep(8, 2000)]
    read = np.concatenate([units[counted].numpy() for counted, units in swept])
    own = task.units_by_part("dev")
    assert 2000 <= len(read) < 2400
    assert all(own[name][read].sum() > 0 for name in own)


def test_one_tokenizer_is_made_for_all_corpora_and_kept(texts, monkeypatch, tmp_path):
    monkeypatch.chdir(texts)
    config, cache = TextConfig(tokenizer="bpe", vocab_size=300), tmp_path / "cache"
    first = prepare(open_corpus("a.txt:0.5,c.jsonl:0.5"), config, cache)
    (kept,) = (cache / "tokens").glob("mix-*.json")
    assert {part.tokenizer.to_json() for part in first.parts} == {first.tokenizer.to_json()}
    data = json.loads(kept.read_text())
    kept.write_text(json.dumps({**data, "tokenizer": data["tokenizer"].replace("1", "2")}))
    again = prepare(open_corpus("c.jsonl:0.1,a.txt:0.9"), config, cache)
    assert again.tokenizer.to_json() == first.tokenizer.to_json()
    assert json.loads(kept.read_text()) == data


def test_a_model_that_sees_a_fixed_context_trains_on_a_mix(texts, monkeypatch):
    monkeypatch.chdir(texts)
    task = task_of("a.txt:0.7,names:0.3", MLPConfig())
    assert share_of_a(task) >= 0.7  # names have these letters too
    assert batch(task.examples("train"), 10, 0, 0).targets.shape == (10, 1)
