"""lm-evaluation-harness, unmodified, asks `windtunnel serve` and finds the score that the same numbers give in process.

It is no part of the extra `test`, for it brings some thirty packages: `pip install -c constraints.txt '.[interop]'`.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from patience import PATIENCE
from windtunnel.config import parse
from windtunnel.generation.sampling import log_softmax
from windtunnel.models import build
from windtunnel.models.transformer import TransformerConfig
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.imports import create_with_weights
from windtunnel.training.run import load
from windtunnel.training.run_config import RunConfig, TrainConfig

NEEDED = ("lm_eval", "aiohttp", "tenacity")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="needs the extra interop"),
]
QUESTIONS = [
    ("an", ["na", "xq"], 0), ("mar", ["zz", "ia"], 1), ("jo", ["hn", "qa", "ll"], 0), ("el", ["la", "ea"], 1),
    ("", ["a", "b"], 0), ("abcdefghij", ["k", "lm"], 1),
]  # fmt: skip
TASK = """
task: letters
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{begin}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def run(tmp_path):
    """A run of random weights that writes names."""
    tokenizer = characters_tokenizer("abcdefghijklmnopqrstuvwxyz", end=True)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 16, "n_layers": 2, "n_heads": 2, "d_model": 16}
    model = parse(TransformerConfig, sizes)
    weights = {name: tensor * (8 if tensor.dim() > 1 else 1) for name, tensor in build(model, 0).state_dict().items()}
    text = TextConfig(unit="line", tokenizer="characters")
    config = RunConfig(corpus="", text=text, model=model, train=TrainConfig(steps=0))
    folder = tmp_path / "runs/names"
    create_with_weights(folder, config, weights, tokenizer, None, {"made": "random"})
    return folder


def in_process(folder, begin, choice):
    """The logarithm of the probability of a choice after its beginning, and whether it is what greedy decoding says."""
    trained = load(folder)
    ids = trained.tokenizer.encode(begin).tolist() or [trained.tokenizer.end_id]
    added = trained.tokenizer.encode(choice).tolist()
    with torch.no_grad():
        log_TV = log_softmax(trained.model(torch.tensor([ids + added]))[0].double().numpy())[len(ids) - 1 : -1]
    return log_TV[np.arange(len(added)), added].sum(), bool((log_TV.argmax(axis=1) == added).all())


def test_its_score_is_that_of_the_same_numbers_in_process(run, tmp_path):
    rows = [json.dumps(dict(zip(("begin", "choices", "answer"), one, strict=True))) for one in QUESTIONS]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    (tmp_path / "letters.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-m", "windtunnel", "serve", str(run.parent), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = [server.stdout.readline().split()[1] for _ in range(3)]
            asks = f"model=names,base_url={said[1]}/completions,max_length=16,tokenizer_backend=remote"
            words = ["--tasks", "letters", "--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
            subprocess.run(
                [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", asks, *words,
                 "--log_samples"],
                check=True, env=environment, timeout=PATIENCE, cwd=tmp_path,
            )  # fmt: skip
        finally:
            server.terminate()
    [result] = (tmp_path / "out").rglob("results_*.json")
    [samples] = (tmp_path / "out").rglob("samples_*.jsonl")
    n_right = 0
    for line in samples.read_text().splitlines():
        sample = json.loads(line)
        doc = sample["doc"]
        expected = [in_process(run, doc["begin"], choice) for choice in doc["choices"]]
        found = [(float(one[0]), str(one[1]) == "True") for one in sample["filtered_resps"]]
        assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-5)
        assert [one[1] for one in found] == [one[1] for one in expected]
        n_right += int(np.argmax([one[0] for one in expected]) == doc["answer"])
    score = json.loads(result.read_text())["results"]["letters"]["acc,none"]
    assert score == n_right / len(QUESTIONS)
