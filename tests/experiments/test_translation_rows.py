"""The rows of 004 on translation: a decoder alone, the grid of widths and data, and a sentence."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from windtunnel.experiments.decoder_only import (
    PREDICTED,
    READ,
    as_written,
    course_decoder,
    pair_of,
    positions_as_written,
)
from windtunnel.experiments.frame import Setting
from windtunnel.experiments.translate_sentence import SENTENCE, copied, looks, place
from windtunnel.experiments.translation_grid import CORPORA, PRINTED, SIZES, main_effects, more_words, pairs
from windtunnel.experiments.translators import COURSE, MODERN, translating
from windtunnel.models import TransformerConfig, TranslatorConfig
from windtunnel.nn.positions import sinusoidal
from windtunnel.text.batches import IGNORED
from windtunnel.text.corpora.pig_latin import pig_latin
from windtunnel.text.store import TextConfig
from windtunnel.training.data import open_store

# ------------------------------------------------------------------------------------------------------- decoder-only


def test_the_tensors_of_a_pair():
    assert as_written([5, 6], [6, 5, 0, 24]) == (READ, PREDICTED)
    batch = pair_of([5, 6], [6, 5, 0, 24])
    assert batch.ids.tolist() == [[27, 5, 6, 29, 6, 5, 0, 24]]
    assert batch.targets.tolist() == [[IGNORED] * 3 + [6, 5, 0, 24, 27]]


def test_positions_as_written_fit_one_length_only():
    places = sinusoidal(torch.arange(1000), 8)
    assert torch.equal(positions_as_written(torch.zeros(2, 1000, 8), places)[1], places)
    with pytest.raises(RuntimeError, match="19"):
        positions_as_written(torch.zeros(2, 19, 8), places)


@pytest.mark.parametrize(("h", "n"), [(16, 4862), (128, 268_062)])
def test_the_decoder_of_the_course_has_its_parameters(h, n):
    assert course_decoder(h).n_parameters(embeddings=False) == n


def test_decoder_only(claims_of):
    found = claims_of("decoder-only")
    wrong = {claim.statement for (row, _), claim in found.items()
             if claim.verdict == "does not hold" and row != "004-2.2.3"}  # fmt: skip
    assert wrong == {
        "`positional_encodings[:, :]` of 1,000 positions fits a sequence of 19 tokens",
        "the model is encoder-only",
    }
    assert {claim.verdict for (row, _), claim in found.items() if row != "004-2.2.3"} == {"holds", "does not hold"}
    error = found.one("004-2.2.2", "positional_encodings").values["error"]
    assert "(19)" in error
    assert "(1000)" in error
    assert found.one("004-2.2.2", "does not depend on").values["most_apart"] == 0
    assert found.one("004-2.2.2", "other logits there").values["most_apart"] == 0
    assert found.one("E30", "is encoder-only").values["change"] == 0
    assert found.one("E30", "would see").values["change"] > 1e-5
    for name in ("the course's", "modern"):
        alone = found.one("004-2.2.3", f"{name} blocks: a step of the decoder alone costs more")
        assert alone.verdict == "holds"
        assert 1.5 < alone.values["flops"][1] / alone.values["flops"][0] < 2.5
        losses = [c for (_, said), c in found.items() if "a lower loss" in said and f"; {name} blocks" in said]
        assert [c.verdict for c in losses] == ["undecided"] * 2  # two seeds decide nothing
        assert losses[0].values["difference"] != losses[1].values["difference"]  # other steps were trained


@pytest.mark.parametrize(("blocks", "apart", "alone"), [(COURSE, 44, 52), (MODERN, 44, 48)])
def test_a_decoder_alone_has_as_many_parameters_as_the_encoder_decoder(blocks, apart, alone):
    models = (TranslatorConfig(vocab_size=29, n_layers=2, d_model=apart, **blocks),
              TransformerConfig(vocab_size=29, n_layers=4, d_model=alone, **blocks))  # fmt: skip
    first, second = (sum(p.numel() for p in model.build(0).parameters()) for model in models)
    assert second == pytest.approx(first, rel=0.01)


# --------------------------------------------------------------------------------------------------- translation-grid


def test_effects_of_a_grid_whose_effects_are_known():
    """Loss = 5 - 2 [64] - 1 [large] + .5 [both], and a seed's own level, which the pairs take out."""
    scores = {
        (h, data): [level + 5 - 2 * (h == 64) - (data == "large") + 0.5 * (h == 64 and data == "large")
                    for level in (0.0, 3.0, 7.0)]
        for h, data in PRINTED
    }  # fmt: skip
    found = [estimate.estimate for estimate in main_effects(scores).values()]
    assert found == pytest.approx([-1.75, -0.75, 0.25])
    assert all(e.low == pytest.approx(e.high) for e in main_effects(scores).values())
    assert [more_words(scores, h).estimate for h in SIZES] == pytest.approx([-1, -0.5])


def test_translation_grid(claims_of):
    found = claims_of("translation-grid")
    layers = found["E28", "32, 64 and 128 are numbers of hidden layers"]
    assert layers.verdict == "does not hold"
    assert layers.values["wide"] == {32: 17_886, 64: 68_510, 128: 268_062}
    assert layers.values["deep"][32] == 32 * 4 * (32 * 32 + 32) + 32 * 30 + 30
    assert len([row for row, _ in found if row == "E29"]) == 8
    printed = {said: claim.published for (row, said), claim in found.items() if "a higher loss" in said}
    assert len(printed) == 6
    assert set(printed.values()) == {"0.963 to 1.277", "0.417 to 0.583"}


def test_the_words_that_judge_the_grid_are_in_no_run_s_training(tmp_path):
    at = Setting(quick=False, seed=0, out=tmp_path)
    words = {}
    for data in CORPORA:
        task = pairs(at, data)
        for split in ("train", "dev"):
            part = task.store.splits[split]
            texts = (task.store.tokenizer.decode(part.ids[a:b]) for a, b in pairwise(part.offsets.tolist()))
            words[data, split] = {text.partition("\t")[0] for text in texts}
    assert (len(words["small", "train"]), len(words["large", "train"])) == (2572, 17_926)
    assert words["small", "train"] < words["large", "train"]
    assert len(words["large", "dev"]) == 4476
    assert not words["large", "dev"] & words["large", "train"]


# ------------------------------------------------------------------------------------------------- translate-sentence


@pytest.mark.parametrize(
    ("word", "places"),
    [("the", [2, 0, 1]), ("air", [0, 1, 2]), ("square", [3, 4, 5, 0, 1, 2]), ("yet", [0, 1, 2]), ("hmm", [0, 1, 2])],
)
def test_a_letter_of_a_translation_is_copied_from_its_place(word, places):
    assert copied(word) == places
    assert "".join(word[place] for place in places) == pig_latin(word)[: len(word)]


def test_the_attention_shown_is_what_the_model_reads():
    """One layer and head, written out: each row is the softmax of a query's products with the memory's keys."""
    config = TranslatorConfig(vocab_size=29, **{**MODERN, "context_length": 16}, n_layers=1, d_model=8)
    model = config.replace(n_heads=1).build(0).eval()
    tokenizer = open_store(translating(Setting(True, 0, None), "pig-latin-small", config, 1, 1e-3)).tokenizer
    found = looks(SimpleNamespace(model=model, tokenizer=tokenizer), "air", "airway")
    assert found.weights.shape == (1, 1, 7, 4)
    assert found.gap < 1e-5
    block, end = model.decoder.blocks[0], tokenizer.end_id
    source = torch.tensor([[*tokenizer.encode("air").tolist(), end]])
    ids = torch.tensor([[end, *tokenizer.encode("airway").tolist()]])
    inputs = []
    block.cross_norm.register_forward_hook(lambda module, given, made: inputs.append(made))
    with torch.no_grad():
        memory = model.encode(source).hidden_BSE
        model(ids, source=source)
        scores = block.cross_attention.q(inputs[0]) @ block.cross_attention.kv(memory)[..., :8].transpose(1, 2)
    torch.testing.assert_close(torch.from_numpy(found.weights[0]), (scores / 8**0.5).softmax(-1))


def test_translate_sentence(quick, claims_of):
    found = claims_of("translate-sentence")
    assert found.one("004-2.1.v", "what the rule gives").verdict == "holds"
    places = found.one("004-2.1.v", "in training").values["where"]
    assert places["conditioning"] == "not in it"
    assert found.one("004-2.1.v", "logits").verdict == "holds"
    assert found.one("004-2.1.v", "sums to 1").verdict == "holds"
    shares = found.one("004-2.1.v", "copied next").values["shares"]
    assert np.shape(shares) == (2, 2)
    outcome, _ = quick("translate-sentence")
    assert list(outcome.figures) == [f"attention-{word}" for word in SENTENCE.split()]
    maps = outcome.figures["attention-working"].axes
    titles = [axes.get_title(loc="left") for axes in maps]
    assert [title for title in titles if title] == [f"layer {i}, head {j}" for i in (1, 2) for j in (1, 2)]
    assert [label.get_text() for label in maps[0].get_xticklabels()] == [*"working¶"]


def test_the_words_of_the_sentence_in_a_full_run():
    text = TextConfig(dev_fraction=0.2, test_fraction=0.0)
    expected = {"the": "in training", "air": "in training", "conditioning": "not in it", "is": "held out",
                "working": "in training"}  # fmt: skip
    assert {word: place(word, text) for word in SENTENCE.split()} == expected
