"""What each token adds to a text, and where the text ends."""

from __future__ import annotations

import json

import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.errors import ConfigError
from windtunnel.generation.prompt import Continuation, Spelling, first_stop
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import generate, trace
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer, train_bpe

WARM = SamplingConfig(temperature=1.5)
BYTES = bytes_tokenizer(end=True)
ABC = characters_tokenizer("abc ", end=True)


def spelled(tokenizer, ids):
    spelling = Spelling(tokenizer)
    return [*(spelling.add(id) for id in ids), spelling.rest()]


def added(tokenizer, ids, n_tokens=None, stop=()):
    """The pieces that come with each id, and why the text ends."""
    text = Continuation(tokenizer, [0], [0], len(ids) if n_tokens is None else n_tokens, stop)
    pieces = [text.add(id) for id in ids]
    assert text.added == "".join(piece for some in pieces for piece in some)
    return pieces, text.finish


@pytest.mark.parametrize("text", ["naïve 日本\n🙂 end", "", "a\n\nb", "\n", "\ufffd", "a\ufffd\nb"])
def test_pieces_join_to_the_text_and_show_no_half_characters(text):
    pieces = spelled(BYTES, [*BYTES.encode(text), BYTES.end_id])
    assert "".join(pieces) == text
    assert "".join(pieces).count("\ufffd") == text.count("\ufffd")


@given(st.lists(st.integers(1, 256), max_size=30))
def test_pieces_of_any_bytes_join_to_what_is_decoded_at_once(ids):
    assert "".join(spelled(BYTES, ids)) == BYTES.decode(ids)


@given(st.text("ab cé\n", max_size=40))
def test_pieces_of_words_join_to_the_text(text):
    tokenizer = train_bpe(["a ab abc abé é\n c é\n"] * 3, 270)
    assert "".join(spelled(tokenizer, tokenizer.encode(text))) == text


def test_a_tokenizer_that_spaces_a_token_by_the_one_before_it_keeps_the_space_after_a_new_line():
    library = hf.Tokenizer(hf.models.WordLevel({"▁a\n": 0, "▁b": 1}, unk_token="▁b"))
    library.pre_tokenizer, library.decoder = hf.pre_tokenizers.Metaspace(), hf.decoders.Metaspace()
    tokenizer = Tokenizer.from_json(library.to_str())
    assert spelled(tokenizer, [0, 1, 0, 0]) == ["a\n", " b", " a\n", " a\n", ""]
    assert tokenizer.decode([0, 1, 0, 0]) == "a\n b a\n a\n"


def sentencepiece():
    """As Llama's: a space is written ▁, unknown characters are bytes, and the decoder drops the first space."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "▁▁": 257, "a": 258, "▁a": 259}
    library = hf.Tokenizer(hf.models.BPE(vocab, [("▁", "▁"), ("▁", "a")], byte_fallback=True))
    library.normalizer = hf.normalizers.Sequence([hf.normalizers.Prepend("▁"), hf.normalizers.Replace(" ", "▁")])
    parts = [
        hf.decoders.Replace("▁", " "),
        hf.decoders.ByteFallback(),
        hf.decoders.Fuse(),
        hf.decoders.Strip(" ", 1, 0),
    ]
    library.decoder = hf.decoders.Sequence(parts)
    return Tokenizer.from_json(library.to_str())


SENTENCEPIECE = sentencepiece()


@given(st.lists(st.sampled_from([10, 0xE6, 0x97, 0xA5, 256, 257, 258, 259]), max_size=12))
def test_pieces_of_sentencepiece_join_to_what_is_decoded_at_once(ids):
    assert "".join(spelled(SENTENCEPIECE, ids)) == SENTENCEPIECE.decode(ids)


def test_an_indentation_keeps_all_of_its_spaces():
    text = "a\n    a\n        a"
    assert "".join(spelled(SENTENCEPIECE, SENTENCEPIECE.encode(text))) == text


def test_marks_add_nothing_to_the_text():
    tokenizer = characters_tokenizer("ab", end=True, marks=("turn",))
    assert spelled(tokenizer, [3, tokenizer.marks["turn"], 2, 0]) == ["b", "", "a", "", ""]


def test_a_character_comes_with_its_last_token_and_bytes_without_their_rest_with_the_last_of_all():
    a, first, second = BYTES.encode("aé").tolist()
    assert added(BYTES, [a, first, second]) == ([["a"], [], ["", "é"]], "length")
    assert added(BYTES, [a, first]) == ([["a"], ["\ufffd"]], "length")
    assert added(BYTES, [a, first, 0], n_tokens=9) == ([["a"], [], ["\ufffd", ""]], "stop")


def test_a_text_ends_before_a_stop_string_that_spans_tokens_and_nothing_of_it_is_shown_before():
    ids = ABC.encode("ab bc").tolist()
    assert added(ABC, ids, n_tokens=9, stop=("bc",)) == ([["a"], [], ["b", " "], [], ["", ""]], "stop")
    assert added(ABC, ids, n_tokens=5, stop=("bca",)) == ([["a"], [], ["b", " "], [], ["b", "c"]], "length")
    assert added(ABC, [*ids, 0], n_tokens=9, stop=("bca",))[0][-1] == ["b", "c", ""]


def test_a_token_in_which_a_stop_string_begins_adds_what_stands_before_it():
    tokenizer = train_bpe(["abcabc"] * 9, 262)
    (whole,) = tokenizer.encode("abcabc").tolist()
    assert added(tokenizer, [whole], n_tokens=9, stop=("ca",)) == ([["ab"]], "stop")


@pytest.mark.parametrize(
    ("text", "stop", "begin"),
    [
        ("abcd", ("abcd", "bc"), 1),
        ("abcd", ("abcd", "bcd"), 0),
        ("abcd", ("cd", "x"), 2),
        ("aab", ("ab",), 1),
        ("abc", ("x", "abcd"), None),
        ("abc", (), None),
    ],
)
def test_the_stop_string_that_is_complete_first_ends_the_text(text, stop, begin):
    assert first_stop(text, stop) == begin


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_text_is_cut_where_reading_one_character_after_another_finds_the_first_stop_string(text, stop):
    expected = text
    for end in range(1, len(text) + 1):
        if found := [one for one in stop if text[:end].endswith(one)]:
            expected = text[: end - max(map(len, found))]
            break
    ended = Continuation(ABC, [0], [0], len(text) + 1, stop)
    for id in ABC.encode(text):
        if not ended.finish:
            ended.add(int(id))
    ended.finish or ended.add(0)
    assert (ended.added, ended.finish) == (expected, "stop")


@pytest.mark.parametrize("unit", ["line", "text"])
@pytest.mark.parametrize("stop", [(), ("\n",), ("b b", "ca", "\n\n\n")])
def test_the_pieces_of_a_trace_join_to_its_text_which_ends_as_it_says(make, unit, stop):
    trained = make(unit)
    for seed in range(12):
        free = trace(trained, Request("ab", 15, WARM, seed))
        record = trace(trained, Request("ab", 15, WARM, seed, stop=stop))
        new = record.tokens[2:]
        assert "".join(t.piece for t in record.tokens) == record.text
        assert [t.id for t in record.tokens] == [t.id for t in free.tokens][: len(record.tokens)]
        cut = first_stop(free.text[2:], stop)
        assert record.text == (free.text if cut is None else free.text[: 2 + cut])
        assert record.finish == ("length" if cut is None else "stop") or new[-1].text == "<end>"
        assert [t.finish for t in new] == [None] * (len(new) - 1) + [record.finish]
        assert len(new) <= 15


def test_a_trace_of_bytes_that_are_no_text_has_the_text_that_is_decoded_at_once(bytes_model):
    for seed in range(5):
        record = trace(bytes_model, Request("né", 20, WARM, seed))
        end = bytes_model.tokenizer.end_id
        assert record.text == bytes_model.tokenizer.decode([t.id for t in record.tokens if t.id != end])
        assert "".join(t.piece for t in record.tokens) == record.text
        assert [t.piece for t in record.tokens[:3]] == ["n", "", "é"]


def test_a_stop_string_in_the_prompt_ends_nothing(make):
    free, record = (trace(make("text"), Request("abc", 9, WARM, 1, stop=stop)) for stop in ((), ("abc", "bc")))
    assert free.text.startswith("abc")
    assert record.text.startswith("abc")
    assert len(record.tokens) > 3


def test_decoding_ends_with_the_stop_string_and_json_says_so(make, monkeypatch):
    trained, lengths = make("text"), []
    real = type(trained.model).forward.__get__(trained.model)
    text = trace(trained, Request("ab", 30, WARM, 3)).text
    monkeypatch.setattr(
        trained.model, "forward", lambda ids, **given: (lengths.append(ids.shape[1]), real(ids, **given))[1]
    )
    request = Request("ab", 30, WARM, 3, stop=(text[6:8],))
    cut = text.index(text[6:8], 2)
    tokens = list(generate(trained, request))
    assert len(tokens) == cut + 2
    assert len(lengths) == 1 + cut + 2 - 2
    data = json.loads(json.dumps(trace(trained, request).to_dict()))
    assert (data["finish"], data["text"]) == ("stop", text[:cut])
    assert [token["piece"] for token in data["tokens"]] == [*text[:cut], "", ""]
    assert "finish" not in data["tokens"][0]


@pytest.mark.parametrize("stop", [("",), ("a", ""), "end"])
def test_stop_strings_that_make_no_sense_are_refused(stop):
    with pytest.raises(ConfigError, match="stop must be a tuple of texts of at least one character"):
        Request("a", 1, stop=stop)
