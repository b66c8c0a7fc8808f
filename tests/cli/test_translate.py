"""`windtunnel translate`: words, lines and files, and what cannot be translated."""

import json
import math
from itertools import pairwise

import pytest

from windtunnel.config import override
from windtunnel.generation.translate import translate_all
from windtunnel.generation.write import write_sample
from windtunnel.text.visible import one_line
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load


@pytest.fixture(scope="module", params=["transformer", "translator"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("translate")
    pairs = [f"{a}{b}\t{b}{a}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]
    (folder / "pairs.tsv").write_text("\n".join(["source\ttarget", *pairs]))
    changes = [
        f"model.family={request.param}",
        "train.steps=150",
        "schedule.warmup=20",
        "model.context_length=16",
        "model.n_layers=1",
    ]
    list(fit(override(recipe("translate", str(folder / "pairs.tsv")), changes), folder / "run"))
    return folder / "run"


def test_the_command_line_translates_words_lines_and_files(trained, windtunnel, tmp_path):
    found = json.loads(windtunnel("translate", trained, "ab cd", "--json")[1])
    assert [one["source"] for one in found] == ["ab", "cd"]
    assert all(0 < one["probability"] <= 1 and one["target"] for one in found)
    targets = [one["target"] for one in found]
    assert windtunnel("translate", trained, "ab cd")[:2] == (0, " ".join(targets) + "\n")
    (tmp_path / "in.txt").write_text("cd\r\n\n \nab  cd\n\n")
    lines = f"{targets[1]}\n\n\n{' '.join(targets)}\n\n"
    assert windtunnel("translate", trained, "--file", tmp_path / "in.txt")[:2] == (0, lines)
    assert windtunnel("translate", trained, "cd\n\n\nab cd\n\n")[:2] == (0, lines)
    found = json.loads(windtunnel("translate", trained, "--file", tmp_path / "in.txt", "--json")[1])
    assert [(one["line"], one["source"]) for one in found] == [(1, "cd"), (4, "ab"), (4, "cd")]


def test_alternatives_are_a_table_and_the_json_has_everything(trained, windtunnel):
    code, out, _ = windtunnel("translate", trained, "ab cd", "--beam", 4, "--alternatives", 3)
    assert code == 0
    tables = [line.split() for line in out.splitlines()]
    assert [row for row in tables if len(row) == 1] == [["ab"], ["cd"]]
    assert tables.count(["rank", "target", "probability", "score", "complete"]) == 2
    words = ("translate", trained, "ab cd", "--beam", 4, "--alternatives", 3, "--length-penalty", 1, "--json")
    found = json.loads(windtunnel(*words)[1])
    for one in found:
        targets = one["alternatives"]
        assert len(targets) == len({target["target"] for target in targets}) == 3
        assert [target["target"] for target in targets if [target["target"]] in [row[1:2] for row in tables]]
        for target in targets:
            assert target["probability"] == pytest.approx(math.exp(target["log_probability"]))
            assert target["score"] == pytest.approx(target["log_probability"] / ((5 + len(target["ids"])) / 6))
        assert "".join(token["piece"] for token in one["tokens"]) == one["target"] == targets[0]["target"]
        assert math.prod(token["probability"] for token in one["tokens"]) == pytest.approx(one["probability"], rel=1e-4)
        for token in one["tokens"]:
            assert len(token["alternatives"]) == 6
            assert token["text"] in [other["text"] for other in token["alternatives"]]
    code, out, err = windtunnel("translate", trained, "ab", "--beam", 400, "--alternatives", 300)  # of 25 tokens
    assert (code, len(out.splitlines())) == (0, 302)  # a TAB of a target does not break its row
    assert err == ""  # only the best is spoken of


def test_the_sample_of_a_run_that_translates_are_held_out_sources_with_their_targets(trained):
    run = load(trained)
    lines = write_sample(run.model, run.run).splitlines()
    sources, targets = zip(*(line.split(" -> ") for line in lines), strict=True)
    assert list(targets) == [one.target for one in translate_all(run, sources)]
    store, decode = run.run.store(), run.tokenizer.decode
    part = store.splits["dev"]
    held_out = [decode(part.ids[a:b].tolist()).partition("\t")[0] for a, b in pairwise(part.offsets.tolist())]
    assert list(sources) == held_out[: len(sources)]
    n = run.run.config.train.sample_tokens
    assert sum(len(target) + 1 for target in targets[:-1]) < n <= sum(len(target) + 1 for target in targets)


def test_a_table_is_compared_by_its_columns_and_as_running_text_only_with_a_word(windtunnel, tmp_path):
    (tmp_path / "pairs.csv").write_text("en,de\n" + "".join(f"{n:b},{n}\n" for n in range(1, 99)))
    words = (tmp_path / "pairs.csv", "--steps", 1, "--set", "model.n_layers=1", "--json")
    columns = ("--column", "source=en", "--column", "target=de")
    arms = ("--vary", "model.family=translator,rnn", "--seeds", 1, "--out", tmp_path / "pairs")
    code, out, err = windtunnel("compare", *words, *columns, *arms)
    assert code == 0, err
    assert "exact_match" in json.loads(out)["arms"][1]["scores"]
    assert "running text" not in err
    code, _, err = windtunnel("train", *words, "--recipe", "tiny", "--out", tmp_path / "text")
    assert code == 0, err
    assert "is read as running text; to read its rows as documents, say which column: --column text=NAME" in err
    assert "to read two of its columns as pairs: --column source=NAME" in err


def test_the_columns_of_a_table_may_have_other_names(windtunnel, tmp_path):
    rows = "".join(f"{n:b}\t{n}\t{n:o}\n" for n in range(1, 99))
    (tmp_path / "pairs.tsv").write_text("binary\tdecimal\toctal\n" + rows)
    words = ("train", tmp_path / "pairs.tsv", "--steps", 2, "--out", tmp_path / "runs",
             "--set", "model.n_layers=1")  # fmt: skip
    columns = ("--column", "source=binary", "--column", "target=octal")
    assert windtunnel(*words, *columns, "--json")[0] == 0
    store = load(tmp_path / "runs" / "seed-0").run.store()
    part = store.splits["train"]
    first = store.tokenizer.decode(part.ids[: part.offsets[1]].tolist()).split("\t")
    assert int(first[0], 2) == int(first[1], 8)
    for wrong, said in [
        (("--column", "source=binary", "--column", "target=hex"), "no column 'hex'; it has binary, decimal, octal"),
        (("--column", "source=binary"), "--column source=binary: expected each field once, as --column source=en"),
        (("--column", "source"), "--column source: expected each field once"),
        (("--column", "source=octal", "--column", "source=binary"), "expected each field once"),
        (
            ("--recipe", "translate"),
            "such as pig-latin or a .tsv with these columns (of other names: --column source=NAME",
        ),
    ]:
        code, _, err = windtunnel(*words[:-3], tmp_path / "other", *wrong)
        assert code in (2, 3), err
        assert said in " ".join(err.split())


def test_a_target_stays_on_its_line():
    assert one_line("a b\nc\td\x1b[0mé") == r"a b\nc\td\x1b[0mé"


def test_a_target_that_the_context_cuts_is_said(windtunnel, tmp_path):
    """After three steps nothing has been learned, and no target ends."""
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(f"{n:b}\t{n:b}{n:b}\n" for n in range(1, 99)))
    changes = ["train.steps=3", "train.sample_tokens=0", "model.context_length=32", "model.n_layers=1",
               "model.family=transformer"]  # fmt: skip
    list(fit(override(recipe("translate", str(tmp_path / "pairs.tsv")), changes), tmp_path / "run"))
    code, out, err = windtunnel("translate", tmp_path / "run", "101")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "the target of '101' does not end: the context is full" in err


def test_attention_is_a_page_or_a_figure_and_says_which_head_copies(trained, windtunnel, tmp_path):
    code, out, err = windtunnel("translate", trained, "ab cd ab", "--attention", tmp_path / "new" / "out.html")
    assert (code, out) == windtunnel("translate", trained, "ab cd ab")[:2]
    assert "out.html" in err
    assert "of its weight lies on source tokens that equal the token being written" in err
    page = (tmp_path / "new" / "out.html").read_text()
    assert page.count("<section") == 2
    assert f"{trained.name}, step 150" in page
    assert json.loads(windtunnel("translate", trained, "ab", "--json", "--attention", tmp_path / "a.png")[1])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_look_says_how_a_model_that_reads_pairs_is_looked_at(trained, windtunnel):
    code, _, err = windtunnel("look", trained, "ab; ls")
    if load(trained).model.config.reads == "pair":
        assert code != 0
        assert f"windtunnel translate {trained} 'ab; ls' --attention out.html" in err
    else:
        assert "no token for the character" in err


@pytest.mark.parametrize(("words", "message"), [
    (("ab", "--attention", "out.txt"), "out.txt: attention is written as .html, .png, .svg or .pdf, given .txt"),
    (("ab", "--attention", "out"), "attention is written as .html, .png, .svg or .pdf, given no ending"),
    (("ab", "--attention", "blank.txt/out.html"), "blank.txt"),
    (("ab", "--attention", "blank.txt/out.png"), "blank.txt"),
    (("aé",), "cannot translate 'aé': no token for the character 'é'"),
    ((), "expected a text or --file PATH"),
    (("ab", "--file", "blank.txt"), "expected a text or --file PATH, one of the two"),
    ((" \n",), "expected something to translate, given an empty text"),
    (("--file", "blank.txt"), "expected something to translate, given an empty text"),
    (("ab " + "a" * 40,), "it has 40 tokens, and this model reads at most 1"),
    (("--file", "none.txt"), "cannot be read"),
    (("--file", "latin.txt"), "not UTF-8 at byte 3"),
    (("ab", "--beam", 0), "beam and alternatives must be at least 1, given 0 and 1"),
    (("ab", "--alternatives", 3), "a beam of 1 finds no more than 1, and alternatives is 3; give a beam of at least 3"),
    (("ab", "--beam", 2, "--alternatives", 0), "must be at least 1, given 2 and 0"),
    (("ab", "--beam", 2, "--length-penalty", -1), "the length penalty must be a number of at least 0, given -1"),
    (("ab", "--beam", 10**9), "GiB of keys, values and logits"),
])  # fmt: skip
def test_what_cannot_be_translated_is_said(trained, windtunnel, tmp_path, words, message):
    (tmp_path / "latin.txt").write_bytes(b"ab \xe9")
    (tmp_path / "blank.txt").write_bytes(b"\n \n\n")
    code, out, err = windtunnel("translate", trained, *words)
    assert code != 0
    assert out == ""
    assert message in err
