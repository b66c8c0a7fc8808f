"""The same numbers as transformers from the same files: logits, gradients, padding, caches, greedy text."""

import json
import shutil

import pytest
import torch
from foreign_models import CONFIGS, VOCAB, make, random_ids, randomised, save
from transformers import GPT2Config, GPT2LMHeadModel

from windtunnel.models.pretrained.architectures import ARCHITECTURES
from windtunnel.models.pretrained.huggingface import read_huggingface, to_model
from windtunnel.models.pretrained.parts import gather
from windtunnel.models.pretrained.proof import compare_with_transformers
from windtunnel.report.pretrained import proof_lines
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.text.vocab_files import begin_with

TOLERANCE = 1e-5
variants = pytest.mark.parametrize("pair", CONFIGS, indirect=True)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Each model once: ours as it was read, and theirs."""
    made = {}
    for name in CONFIGS:
        theirs = make(name)
        pretrained = read_huggingface(save(theirs, tmp_path_factory.mktemp("saved")))
        made[name] = (to_model(pretrained.config, pretrained.weights), theirs, pretrained.origin)
    return made


@pytest.fixture
def pair(pairs, request):
    return pairs[request.param]


def loss(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def assert_near(found, expected):
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < TOLERANCE


@variants
def test_the_logits_are_the_same(pair):
    ours, theirs, _ = pair
    for length in (1, 2, ours.config.context_length - 1, ours.config.context_length):
        ids = random_ids(3, length)
        with torch.no_grad():
            assert_near(ours(ids), theirs(ids).logits)


@variants
def test_the_gradients_are_the_same(pair):
    ours, theirs, origin = pair
    assert_same_gradients(ours, theirs, origin, random_ids(2, 32))


def assert_same_gradients(ours, theirs, origin, ids):
    for model, logits in ((ours, ours(ids)), (theirs, theirs(ids).logits)):
        model.zero_grad()
        loss(logits, ids).backward()
    given = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    architecture = ARCHITECTURES[origin]
    expected = gather(architecture.parts(ours.config), lambda name: architecture.inward(name, given[name], ours.config))
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 1e-5, name
        assert (found[name] - gradient).abs().max() < TOLERANCE, name


@variants
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_of_theirs_is_ours_one_by_one(pair, side):
    ours, theirs, _ = pair
    lengths, longest = (3, 20, 11), 20
    ids, mask = random_ids(3, longest), torch.zeros(3, longest, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(longest - length, None) if side == "left" else slice(length)] = 1
    with torch.no_grad():
        batch = theirs(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        for row in range(3):
            real = mask[row].bool()
            assert_near(ours(ids[row : row + 1, real])[0], batch[row, real])


@variants
def test_decoding_with_a_cache_gives_the_same_logits(pair):
    ours, theirs, _ = pair
    ids, cache, past = random_ids(2, 24), ours.new_cache(2, 24), None
    with torch.no_grad():
        for start, end in [(0, 9), *((n, n + 1) for n in range(9, 24))]:
            given = theirs(ids[:, start:end], past_key_values=past, use_cache=True)
            past = given.past_key_values
            assert_near(ours(ids[:, start:end], cache), given.logits)


@pytest.mark.slow
def test_gpt2_with_124_million_parameters_has_the_same_logits_and_gradients(tmp_path):
    theirs = randomised(GPT2LMHeadModel(GPT2Config()), spread=0.02)
    theirs.save_pretrained(tmp_path)
    pretrained = read_huggingface(tmp_path)
    shutil.rmtree(tmp_path)
    ours = to_model(pretrained.config, pretrained.weights)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 124_439_808
    ids = random_ids(1, 1024, vocab_size=50257)
    for length in (1, 2, 1023, 1024):
        with torch.no_grad():
            assert_near(ours(ids[:, :length]), theirs(ids[:, :length]).logits)
    assert_same_gradients(ours, theirs, "gpt2", ids[:, :32])


# ---------------------------------------------------------------------------------------------- the proof that is kept


@pytest.fixture
def saved(tmp_path):
    folder = save(make("llama"), tmp_path)
    return folder, read_huggingface(folder)


def test_the_proof_holds_and_says_what_was_compared(saved):
    folder, pretrained = saved
    proof = compare_with_transformers(to_model(pretrained.config, pretrained.weights), folder, pretrained.tokenizer)
    assert proof.holds
    assert proof.to_dict()["holds"]
    assert list(proof.max_difference) == [1, 2, 17, 63, 64]
    assert proof.loss == pytest.approx(proof.loss_transformers, abs=1e-5)
    assert 4 < proof.loss < 9
    assert len(proof.continuation) == 16


def test_the_proof_fails_when_one_weight_is_another(saved):
    folder, pretrained = saved
    pretrained.weights["blocks.1.norm_1.weight"][5] += 1
    proof = compare_with_transformers(to_model(pretrained.config, pretrained.weights), folder, lengths=[2, VOCAB])
    assert not proof.holds
    assert list(proof.max_difference) == [2, 64]
    assert proof.max_difference[64] > 1e-3
    assert proof.loss is None


def test_the_proof_fails_when_the_tokenizer_gives_other_ids(saved):
    folder, pretrained = saved
    model = to_model(pretrained.config, pretrained.weights)
    same = compare_with_transformers(model, folder, pretrained.tokenizer, lengths=[2]).tokenizer
    assert (same.n_texts, same.difference) == (4, "")
    spaced = json.loads(pretrained.tokenizer.to_json())
    spaced["pre_tokenizer"]["add_prefix_space"] = True
    proof = compare_with_transformers(model, folder, Tokenizer.from_json(json.dumps(spaced)), lengths=[2])
    assert not proof.holds
    assert "'The wind tunnel was" in proof.tokenizer.difference


def test_the_proof_compares_what_is_put_in_front_of_a_text(saved):
    folder, pretrained = saved
    model = to_model(pretrained.config, pretrained.weights)
    begun = json.loads(pretrained.tokenizer.to_json()) | {"post_processor": begin_with("<|endoftext|>", 0)}
    (folder / "tokenizer.json").write_text(json.dumps(begun))
    proof = compare_with_transformers(model, folder, pretrained.tokenizer, lengths=[2])
    assert (proof.holds, proof.tokenizer.difference[:38]) == (False, "a text begins with [] here and as [0, ")
    assert compare_with_transformers(model, folder, read_huggingface(folder).tokenizer, lengths=[2]).holds


def test_a_tokenizer_that_transformers_cannot_read_is_not_compared(saved):
    folder, pretrained = saved
    (folder / "tokenizer.json").write_text("{}")
    proof = compare_with_transformers(
        to_model(pretrained.config, pretrained.weights), folder, pretrained.tokenizer, lengths=[2]
    )
    assert proof.holds
    assert "transformers cannot read it" in proof_lines(proof)[-1]
