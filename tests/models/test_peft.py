"""What LoRA added loads in peft, onto the base as it is exported, with the same logits; merged it is the same again."""

import json
import warnings

import pytest
import safetensors.torch
import torch
from test_export import LLAMA, QUICK, SMALL, write
from test_lora import shaken
from transformers import AutoModel, AutoModelForCausalLM

from windtunnel.errors import ConfigError
from windtunnel.models import ClassifierConfig, EncoderConfig, TransformerConfig, build
from windtunnel.models.encoder import BERT
from windtunnel.models.lora import LoraConfig, adapt, merged
from windtunnel.models.pretrained.encoder_export import encoder_files
from windtunnel.models.pretrained.export import huggingface_files
from windtunnel.models.pretrained.peft_files import HEAD, peft_files

peft = pytest.importorskip("peft", reason="pip install windtunnel[test] brings peft, which reads what is written here")
IDS = torch.randint(300, (2, 20), generator=torch.Generator().manual_seed(5))
DECODERS = {
    "gpt2, one matrix for q, k and v": {},
    "gpt2 without biases": {"bias": False, "tie_embeddings": False},
    "llama, three of them": {**LLAMA, "n_kv_heads": 2},
    "arcee": QUICK,
    "starcoder2": {"position": "rope", "bias": False},
    "gpt-neox, head by head": {"position": "rope", "rotary_fraction": 0.5, "parallel": True, "activation": "gelu"},
}
TARGETS = {"all": LoraConfig(rank=4), "q and v": LoraConfig(rank=3, alpha=4.5, targets="q,v")}


def loaded(base, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns of keys that it does not find
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is to go
        return peft.PeftModel.from_pretrained(base, adapter).eval()


def near(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lora", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("changes", DECODERS.values(), ids=DECODERS)
@torch.no_grad()
def test_a_decoder_with_its_adapter_has_the_same_logits(changes, lora, tmp_path):
    config = TransformerConfig(**{**SMALL, **changes})
    base = build(config, 0)
    folder = write(huggingface_files(config, base.state_dict(), None), tmp_path / "base")
    model = shaken(adapt(base, lora, 0))
    adapter = write(peft_files(config, model.state_dict(), lora), tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = model(IDS)
    assert (ours - plain(IDS).logits).abs().max() > 0.01
    theirs = loaded(plain, adapter)
    near(theirs(IDS).logits, ours)
    near(theirs.merge_and_unload()(IDS).logits, ours)
    whole = write(huggingface_files(config, merged(model.state_dict(), config, lora), None), tmp_path / "merged")
    near(AutoModelForCausalLM.from_pretrained(whole).eval()(IDS).logits, ours)


def trunk_of(kind):
    sizes = {"vocab_size": 300, "context_length": 32}
    shape = {"n_layers": 2, "n_heads": 4, "d_model": 32, "dropout": 0.0}
    if kind == "bert":
        return ClassifierConfig(**sizes, n_labels=3, pool="mean", trunk=BERT.replace(**shape))
    return ClassifierConfig(**sizes, n_labels=3, pool="last", trunk=TransformerConfig(**shape, **sizes, **LLAMA))


TRUNKS = [("bert", "q,k,v,out,widen,narrow"), ("bert", "narrow"), ("llama", "q,gate")]


@pytest.mark.parametrize(("kind", "targets"), TRUNKS)
@torch.no_grad()
def test_a_classifier_is_an_adapter_for_the_bare_model_and_a_head(kind, targets, tmp_path):
    config, lora = trunk_of(kind), LoraConfig(rank=2, targets=targets)
    model = build(config, 0)
    if kind == "bert":
        weights = {name: t for name, t in model.state_dict().items() if not name.startswith("head.")}
        sizes = {"vocab_size": 300, "context_length": 32}
        base = encoder_files(EncoderConfig(**sizes, trunk=config.trunk), weights, None)
    else:
        base = huggingface_files(config.body, model.trunk.state_dict(), None)
    folder = write(base, tmp_path / "base")
    model = shaken(adapt(model, lora, 0))
    exported = peft_files(config, model.state_dict(), lora)
    adapter = write(exported, tmp_path / "adapter")
    vectors = loaded(AutoModel.from_pretrained(folder).eval(), adapter)(IDS).last_hidden_state
    near(vectors, model.trunk.hidden(IDS))
    head = safetensors.torch.load((adapter / HEAD).read_bytes())
    pooled = vectors.mean(dim=1) if kind == "bert" else vectors[:, -1]
    near(pooled @ head["weight"].T + head["bias"], model(IDS)[:, 0])
    assert "is no part of the adapter" in exported.notes[0]


def test_the_config_says_rank_and_alpha_of_each_matrix():
    config, lora = TransformerConfig(**SMALL), LoraConfig(rank=2, alpha=3)
    model = adapt(build(config, 0), lora, 0)
    told = json.loads(peft_files(config, model.state_dict(), lora).files["adapter_config.json"])
    assert (told["r"], told["lora_alpha"], told["fan_in_fan_out"]) == (2, 3, True)
    assert told["target_modules"] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert told["rank_pattern"] == {"attn.c_attn": 6}
    assert told["alpha_pattern"] == {"attn.c_attn": 9}


def test_a_base_that_transformers_has_not_is_refused_with_a_cure():
    lora = LoraConfig(rank=2)
    config = TransformerConfig(**SMALL, position="alibi")
    with pytest.raises(ConfigError, match=r"has not model\.position=alibi; train with --set model\.position=learned"):
        peft_files(config, adapt(build(config, 0), lora, 0).state_dict(), lora)
    config = ClassifierConfig(vocab_size=300, trunk=TransformerConfig(**{**SMALL, "causal": False}))
    with pytest.raises(ConfigError, match=r"no BertModel: its trunk has norm_position=pre \(it has post\)"):
        peft_files(config, adapt(build(config, 0), lora, 0).state_dict(), lora)
