"""SentencePiece's tokenizer in a GGUF file: the ids of its algorithm, written down as it is said, and texts back."""

import random
from itertools import pairwise

import gguf
import numpy as np
import pytest
from test_gguf_in import quantised

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained.gguf_model import read_gguf_model
from windtunnel.models.pretrained.gguf_tokenizer import gguf_tokenizer
from windtunnel.text.tokenizers import Tokenizer

TEXT = "the wind tunnel hums and the wing, a hand wide, stands in the stream of air <s> end"


def vocabulary():
    """Marks, all bytes, characters, and pieces of words with scores: (tokens, kinds, scores)."""
    draw = random.Random(0)
    text = "▁" + TEXT.replace(" ", "▁")
    pieces = {text[i : i + n] for n in (2, 3, 4, 5, 6) for i in range(len(text) - n) if draw.random() < 0.6}
    pieces = sorted(p for p in pieces if "▁" not in p[1:] and p != "<s>")
    draw.shuffle(pieces)
    characters = sorted(set(text))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces, *characters]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) + len(characters))]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces) + len(characters))]
    return tokens, kinds, scores


def by_the_algorithm(text, tokens, kinds, scores):
    """Of all neighbours that make a token together, the first pair of the highest score becomes one, till none does."""
    plain = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 1}
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        pairs = [(-scores[plain[a + b]], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in plain]
        if not pairs:
            break
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    ids = []
    for symbol in symbols:
        ids += [plain[symbol]] if symbol in plain else [tokens.index(f"<0x{b:02X}>") for b in symbol.encode()]
    return ids


def settings(**more):
    tokens, kinds, scores = vocabulary()
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": np.array(scores, np.float32), **more,
    }  # fmt: skip


def texts():
    draw = random.Random(1)
    made = ["".join(draw.choices("thewindaslmr ,x", k=draw.randint(1, 40))) for _ in range(300)]
    return [*made, TEXT, "wind  tunnel ", " the", "\n\tthe", "naïve 🙂 wind", "<s> wind</s>", "▁", ""]


def test_ids_are_those_of_the_algorithm_and_texts_come_back():
    found = gguf_tokenizer(settings(), "here")
    for text in texts():
        ids = found.encode(text).tolist()
        assert ids == by_the_algorithm(text, *vocabulary()), text
        assert found.decode(ids) == text.replace("▁", " ")
    again = Tokenizer.from_json(found.to_json())
    assert again.encode(TEXT).tolist() == found.encode(TEXT).tolist()
    assert found.vocab_size == len(vocabulary()[0])


def test_a_mark_is_made_of_no_text():
    found = gguf_tokenizer(settings(), "here")
    assert found.specials == {"<s>": 1, "</s>": 2}
    assert not {0, 1, 2} & set(found.encode("<s> </s> <unk>").tolist())


def test_without_a_space_in_front_the_text_begins_as_it_is():
    found = gguf_tokenizer(settings(**{"tokenizer.ggml.add_space_prefix": False}), "here")
    assert found.decode(found.encode("the wind")) == "the wind"
    assert found.token(int(found.encode("wind")[0])).startswith("w")
    assert found.decode(found.encode(" wind")) == " wind"


def test_a_file_with_it_becomes_a_model(tmp_path):
    tokens, kinds, scores = ([*part][:259] for part in vocabulary())

    def change(writer):
        own = {"tokens": tokens, "token_type": kinds, "scores": scores}
        for name in ("model", "pre", *own, "merges"):
            for data in writer.kv_data:
                data.pop(f"tokenizer.ggml.{name}", None)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_scores(scores)

    path, _ = quantised(tmp_path, "F32", change)
    assert gguf.GGUFReader(path).get_field("tokenizer.ggml.scores") is not None
    found = read_gguf_model(path)
    assert found.tokenizer.encode("a").tolist() == [*(3 + b for b in "▁a".encode())]
    assert found.marks.chat["bos_token"] == "<unk>"
    assert found.tokenizer.front == (0,)


@pytest.mark.parametrize(
    ("told", "front"),
    [
        ({}, (1,)),
        ({"bos_token_id": 2}, (2,)),
        ({"add_bos_token": False}, ()),
        ({"bos_token_id": 10**9}, ()),
    ],
)
def test_the_begin_token_is_put_in_front_as_the_file_says(told, front):
    assert (
        gguf_tokenizer(settings(**{f"tokenizer.ggml.{name}": value for name, value in told.items()}), "").front == front
    )


@pytest.mark.parametrize("n", [0, 10])
def test_scores_that_do_not_fit_are_told(n):
    with pytest.raises(ArtifactError, match=rf"here: .* tokens and {n} scores"):
        gguf_tokenizer(settings(**{"tokenizer.ggml.scores": np.zeros(n, np.float32)}), "here")


@pytest.mark.parametrize("name", ["scores", "token_type"])
@pytest.mark.parametrize("given", [5, ["a"]])
def test_what_is_no_list_of_numbers_is_refused(name, given):
    with pytest.raises(ArtifactError, match=rf"here: tokenizer\.ggml\.{name} is no list of numbers"):
        gguf_tokenizer(settings(**{f"tokenizer.ggml.{name}": given}), "here")


def test_a_pre_tokenizer_that_is_no_name_is_refused():
    with pytest.raises(ArtifactError, match=r"its pre-tokenizer is '\[1\]', and the file says no more"):
        gguf_tokenizer(settings(**{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": [1]}), "here")
