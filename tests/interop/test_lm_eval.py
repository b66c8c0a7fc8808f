"""lm-eval's own command, over an export and two tasks in local YAML files, says what windtunnel says of the run.

As docs/pretrained.md says. lm-eval brings thirty packages: `pip install -c constraints.txt '.[interop]'`; .ci/run does.
"""

import json
import math
import os
import subprocess
import sys

import pytest

import windtunnel as wt
from patience import PATIENCE
from windtunnel.text.tokenizer_json import END

pytest.importorskip("lm_eval", reason="needs the extra interop")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
"""
CHOOSE = """
output_type: multiple_choice
doc_to_text: "<|endoftext|>{{start}}"
doc_to_choice: "{{ends}}"
doc_to_target: right
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
READ = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
"""
STARTS = [("an", ["na", "zq"], 0), ("mar", ["ia", "y", "xx"], 2), ("e", ["va", "lla"], 1)]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The run's model, its dev documents, and what lm-eval measured, a sample a document of each task."""
    folder = tmp_path_factory.mktemp("lm-eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = wt.train("names", recipe="tiny", steps=60, model__n_layers=1, train__threads=1, progress=False)[0]
        model.export("exported")
    documents = [text.removesuffix(END) for text in model.trained.run.store().documents("dev")]
    rows = {
        "choose": [{"start": start, "ends": ends, "right": right} for start, ends, right in STARTS],
        "read": [{"text": text + END} for text in documents],
    }
    for (name, own), kind in zip(rows.items(), (CHOOSE, READ), strict=True):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name) + kind)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", "pretrained=exported,dtype=float32"),
        *("--tasks", ",".join(rows), "--include_path", ".", "--device", "cpu", "--batch_size", "64"),
        *("--output_path", "out", "--log_samples"),
    ]
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    env = {**os.environ, **offline, "HF_HOME": str(folder / "hub")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    measured = {}
    for name in rows:
        (samples,) = folder.glob(f"out/*/samples_{name}_*.jsonl")
        measured[name] = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda one: one["doc_id"])
    return model, documents, measured


def nats(model, text, skip=0):
    """The log-likelihood of a text that begins a document, without its first `skip` tokens."""
    return -math.log(2) * math.fsum(token.surprise_bits for token in model.trace(text).tokens[skip:])


def test_every_choice_has_our_log_likelihood(said):
    model, _, measured = said
    for (start, ends, right), sample in zip(STARTS, measured["choose"], strict=True):
        theirs = [float(one[0][0]) for one in sample["resps"]]
        ours = [nats(model, start + end, len(start)) for end in ends]
        assert theirs == pytest.approx(ours, abs=1e-4)
        assert sample["acc"] == (ours.index(max(ours)) == right)
    assert {sample["acc"] for sample in measured["choose"]} == {0.0, 1.0}


def test_the_dev_split_read_by_lm_eval_has_our_dev_loss(said):
    model, documents, measured = said
    theirs = [float(sample["resps"][0][0]) for sample in measured["read"]]
    evaluation = model.evaluate("dev")
    assert len(theirs) == len(documents) > 1000
    assert sum(len(text) + 1 for text in documents) == evaluation.n_tokens
    assert -math.fsum(theirs) / evaluation.n_tokens == pytest.approx(evaluation.loss, abs=1e-5)
    assert theirs[0] < nats(model, documents[0])  # the end mark is in it
