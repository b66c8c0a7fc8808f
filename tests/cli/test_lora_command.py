"""`windtunnel train --lora`, and every command that takes a run, on the run that it makes."""

import json

import pytest
import torch

from windtunnel.config import override
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe

MODEL = [
    "model.n_layers=2", "model.d_model=16", "model.n_heads=4", "model.context_length=32", "model.bias=true",
    "model.activation=gelu_tanh", "text.tokenizer=bytes", "text.unit=line",
]  # fmt: skip
QUICK = ["train.steps=20", "train.sample_tokens=0", "train.threads=1", "train.compile=false", "train.batch_size=8"]


@pytest.fixture(scope="module")
def base(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "base" / "seed-0"
    folder.parent.mkdir()
    assert list(fit(override(recipe("tiny", str(names)), [*MODEL, *QUICK]), folder))
    return folder


def words(*assignments):
    return [word for one in assignments for word in ("--set", one)]


@pytest.fixture
def adapted(windtunnel, base, names, tmp_path):
    """The folder of a run with LoRA, and what the command said."""
    command = ("train", names, "--from", base, "--lora", 2, "--out", tmp_path / "lora", *words(*QUICK))
    code, out, err = windtunnel(*command, *words("optimizer.lr=0.01"))
    assert code == 0, err
    return tmp_path / "lora" / "seed-0", out + err


def test_every_command_takes_the_run(windtunnel, adapted, base, names):
    run, said = adapted
    assert "LoRA of rank 2, alpha 4: 1,152 of" in " ".join(said.split())
    for command in (
        ("generate", run, "ab", "--tokens", 4), ("look", run, "abel"), ("evaluate", run), ("cost", run), ("runs", run),
        ("resume", run), ("explain", "parameters", run),
    ):  # fmt: skip
        code, out, err = windtunnel(*command)
        assert code == 0, (command, err)
        shown = {"cost": "1,152 of", "runs": "lora.rank 2"}.get(command[0], "")
        assert shown in " ".join(out.split())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_exported_merged_and_as_an_adapter_it_is_the_same(windtunnel, adapted, base, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from windtunnel.training.run import load

    run, _ = adapted
    for of, format in ((base, "hf"), (run, "peft"), (run, "hf")):
        name = f"{of.parent.name}-{format}"
        code, out, err = windtunnel("export", of, tmp_path / name, "--format", format)
        assert code == 0, err
        if format == "peft":
            assert f"its base is the run {base}: windtunnel export {base} DIR" in out
    manifest = json.loads((tmp_path / "lora-peft" / "manifest.json").read_text())
    assert manifest["base_weights_sha256"] == load(run).run.config.start.weights_sha256
    ids = torch.tensor([[1, 70, 80, 90]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "lora-hf").eval()(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base-hf").eval()
        assert (plain(ids).logits - merged).abs().max() > 1e-3
        theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "lora-peft").eval()(ids).logits
        torch.testing.assert_close(theirs, load(run).model(ids), atol=1e-5, rtol=0)
        torch.testing.assert_close(merged, load(run).model(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("more", "message"), [
    (["--lora", 2], "begins with random weights; give --from RUN"),
    (["--lora", 40, "--from", "BASE"], "larger than the matrix q of blocks.0.attention.qkv, 16 x 16; give at most 16"),
    (["--lora", 2, "--from", "BASE", "--freeze", 1], "train.freeze=1 says nothing; give one of the two"),
    (["--lora", 2, "--from", "BASE", "--set", "lora.targets=gate"], "names no matrix of this model; it has q, k, v"),
    (["--lora", 2, "--set", "model.family=mlp"], "begins with random weights"),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence(windtunnel, base, names, tmp_path, more, message):
    more = [base if word == "BASE" else word for word in more]
    code, _, err = windtunnel("train", names, *more, "--out", tmp_path / "out")
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_a_run_without_lora_has_no_adapter(windtunnel, base, tmp_path):
    code, _, err = windtunnel("export", base, tmp_path / "out", "--format", "peft")
    assert code == 2
    assert "was not trained with LoRA, so it has no adapter; give --format hf, or train one" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_an_adapter_says_that_its_base_was_trained_further(windtunnel, adapted, base, tmp_path):
    run, _ = adapted
    kept = base.rename(base.with_name("seed-9"))
    code, out, err = windtunnel("export", run, tmp_path / "adapter", "--format", "peft")
    kept.rename(base)
    assert code == 0, err
    said = " ".join((out + err).split())
    assert "its base is no more what it was trained beside, and on another the adapter is wrong" in said
    assert "windtunnel export" not in said


def test_a_rank_that_was_forgotten_is_told(windtunnel, base, names, tmp_path):
    command = ("train", names, "--from", base, "--set", "lora.targets=q", "--out", tmp_path / "out")
    code, _, err = windtunnel(*command)
    assert (code, "all weights would be trained; give --lora RANK" in " ".join(err.split())) == (2, True)
    code, _, err = windtunnel(*command, "--lora", 2, "--set", "lora.alpha=1e400")
    assert (code, "lora.alpha: input should be a finite number" in err) == (2, True)
