"""The rows of 004 on translation: a decoder alone, the grid of widths and data, and a sentence."""

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
from windtunnel.experiments.translators import COURSE, MODERN
from windtunnel.models import TransformerConfig, TranslatorConfig
from windtunnel.nn.positions import sinusoidal
from windtunnel.text.batches import IGNORED


@pytest.fixture
def claims_of(quick):
    """Claims of an experiment, by row and statement."""

    def found(name):
        return {(claim.id, claim.statement): claim for claim in quick(name)[0].claims}

    return found


def one(claims, id, part):
    """The only claim of this row whose statement has this part."""
    [claim] = [claim for (row, statement), claim in claims.items() if row == id and part in statement]
    return claim


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
    rows = course_decoder(h).parameter_rows()
    assert sum(row.n_parameters for row in rows if not row.is_embedding) == n


def test_decoder_only(claims_of):
    found = claims_of("decoder-only")
    wrong = {claim.statement for (row, _), claim in found.items()
             if claim.verdict == "does not hold" and row != "004-2.2.3"}  # fmt: skip
    assert wrong == {
        "`positional_encodings[:, :]` of 1,000 positions fits a sequence of 19 tokens",
        "the model is encoder-only",
    }
    assert {claim.verdict for (row, _), claim in found.items() if row != "004-2.2.3"} == {"holds", "does not hold"}
    error = one(found, "004-2.2.2", "positional_encodings").values["error"]
    assert "(19)" in error
    assert "(1000)" in error
    assert one(found, "004-2.2.2", "does not depend on").values["most_apart"] == 0
    assert one(found, "004-2.2.2", "other logits there").values["most_apart"] == 0
    assert one(found, "E30", "is encoder-only").values["change"] == 0
    assert one(found, "E30", "would see").values["change"] > 1e-5
    for name in ("the course's", "modern"):
        alone = one(found, "004-2.2.3", f"{name} blocks: a step of the decoder alone costs more")
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
