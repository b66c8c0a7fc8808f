"""docs/ideas.md is true, and a change goes through the commands: compared, trained, stopped, resumed, looked at."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from windtunnel.comparison.pairing import pairing
from windtunnel.comparison.plan import make_plan
from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.runs.arms import Arm, arm_from_file, resolve_arms
from windtunnel.runs.budget import spent
from windtunnel.training.events import Step
from windtunnel.training.loop import fit, resume
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load, open_run

PAGE = (Path(__file__).parents[2] / "docs" / "ideas.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
ARMS = re.findall(r"--arm (\S+)", PAGE)
SMALL = ["model.n_layers=1", "model.d_model=16", "model.n_heads=2", "train.batch_size=8", "train.sample_tokens=0"]
NAMED = json.dumps({"function": "squared", "source_sha256": "0" * 64})
OPTIONS = ["--steps", 8, *(word for setting in SMALL for word in ("--set", setting))]


@pytest.fixture
def base():
    return override(recipe("tiny", "names"), [*SMALL, "train.steps=8", "train.threads=1"])


@pytest.fixture(autouse=True)
def files(tmp_path):
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)


def steps(folder):
    return [event for event in open_run(folder).events() if isinstance(event, Step)]


def test_the_page_shows_three_ideas():
    assert [arm.partition("=")[2] for arm in ARMS] == [
        "activation.py:squared", "optimizer.py:lion", "curriculum.py:beginnings"
    ]  # fmt: skip


def test_what_the_pages_ideas_do(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(fit(base, Path("plain")))
    first = load(Path("plain")).run
    for arm in (arm_from_file(base, named) for named in ARMS):
        list(fit(base, Path(arm.name), arm.change))
    list(fit(override(base, ["model.activation=relu_squared"]), Path("set")))
    assert [s.loss for s in steps(Path("squared"))] == [s.loss for s in steps(Path("set"))]
    short, plain = steps(Path("short")), steps(Path("plain"))
    assert [s.n_tokens for s in short[4:]] == [s.n_tokens for s in plain[4:]]
    assert all(s.n_tokens <= 4 * 8 < p.n_tokens for s, p in zip(short[:4], plain[:4], strict=True))
    assert first.config.change is None
    assert "optimizer.safetensors" in {path.name for path in Path("lion").glob("step-8/*")}


def test_lion_moves_every_weight_by_the_rate(tmp_path):
    namespace = {}
    exec(FILES["optimizer.py"], namespace)
    weight = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = namespace["Lion"]([weight], lr=0.25)
    for gradient in ([2.0, -4.0], [-0.1, -4.0]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    # signs of .1 g at first; then of .9 x .02 + .1 x -.1 = .008, and of .9 x -.04 + .1 x -4
    assert weight.tolist() == [0.5, -0.5]
    assert optimizer.state[weight]["mean"].tolist() == pytest.approx([0.0188, -0.0796])


def test_what_is_paired_and_what_it_costs(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wide.py").write_text(
        "from windtunnel.nn.feedforward import FeedForward\nimport torch\n"
        "def f(setup):\n    setup.model.blocks[0].feed_forward = FeedForward(16, 128, False, torch.relu)\n"
        "    return setup\n"
    )
    arms = resolve_arms([Arm("base", base), *(arm_from_file(base, named) for named in [*ARMS, "wide=wide.py:f"])])
    said = dict(line.split(": ", 1) for line in pairing(arms, 10)[1:])
    n = base.model.replace(vocab_size=arms[0].config.model.vocab_size).n_parameters()
    for name in ("squared", "lion"):
        assert said[name] == f"the same batches; {n:,} of its {n:,} parameters begin as the baseline's"
    assert said["short"].startswith("batches not paired (those of short are its change's)")
    more = arms[4].n_parameters - n
    assert more == 64 * 2 * 16
    assert said["wide"].startswith("the same batches; ")
    assert f" of its {n + more:,} parameters" in said["wide"]
    costs = {arm.name: spent(arm) for arm in arms}
    assert costs["squared"] == costs["lion"] == costs["base"]
    assert costs["wide"].flops > costs["base"].flops
    assert costs["short"].tokens < costs["base"].tokens
    assert costs["short"].flops != costs["short"].flops  # not known
    with pytest.raises(ConfigError, match="arm short: what its change costs in flops is not known"):
        make_plan([Arm("base", base), arm_from_file(base, ARMS[2])], budget=("flops", 1e9), root=tmp_path)


@pytest.mark.slow
def test_the_pages_command(windtunnel, tmp_path):
    command = next(code for code in re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.M | re.S) if "compare" in code)
    code, out, err = windtunnel(*shlex.split(command)[1:], "--json")
    assert code == 0, err
    assert [arm["name"] for arm in json.loads(out)["arms"]] == ["base", "squared", "lion", "short"]


def test_a_comparison_of_an_idea(windtunnel, tmp_path):
    words = ["compare", "names", "--arm", "squared=activation.py:squared", "--seeds", 2, *OPTIONS, "--json"]
    code, out, err = windtunnel(*words)
    assert code == 0, err
    found = json.loads(out)
    squared = found["arms"][1]
    sha256 = open_run(Path(squared["seeds"][0]["folder"])).config.change.source_sha256
    assert squared["settings"] == {"change.function": "squared", "change.source_sha256": sha256}
    told = f"squared is changed in Python by activation.py:squared sha256:{sha256[:12]}"
    assert any(note.startswith(told) for note in found["notes"])
    assert f"squared changed by activation.py:squared sha256:{sha256[:12]}" in found["signature"]
    assert sha256 in (Path(found["folder"]) / "report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/seed-*/metrics.jsonl")}
    assert len(before) == 4
    code, again, err = windtunnel(*words)
    assert json.loads(again)["judgements"] == found["judgements"]
    assert {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/seed-*/metrics.jsonl")} == before
    run, change = squared["seeds"][0]["folder"], ("--change", "activation.py:squared")
    for command in (["generate", run, "an", "--tokens", 2], ["evaluate", run], ["look", run, "anna"]):
        code, _, err = windtunnel(*command)
        assert (code, "--change FILE:squared" in err) == (2, True), err
        code, out, err = windtunnel(*command, *change, "--json")
        assert code == 0, err
        if command[0] == "evaluate":
            scores = json.loads(out)["seeds"][0][1]["scores"]
            assert scores["loss"] == pytest.approx(squared["seeds"][0]["scores"]["loss"], abs=1e-6)


def test_a_changed_run_is_trained_stopped_and_resumed(windtunnel, tmp_path):
    words = ["train", "names", *OPTIONS, "--set", "train.save_every=2", "--change", "optimizer.py:lion"]
    code, _, err = windtunnel(*words, "--out", "whole")
    assert code == 0, err
    whole = Path("whole/seed-0")
    part = Path("part/seed-0")
    shutil.copytree(whole, part)
    for path in part.glob("step-8"):
        shutil.rmtree(path)
    code, _, err = windtunnel("resume", "part")
    assert (code, "--change FILE:lion" in err) == (2, True), err
    code, _, err = windtunnel("resume", "part", "--change", "optimizer.py:lion")
    assert code == 0, err
    assert [s.loss for s in steps(part)] == [s.loss for s in steps(whole)]
    weights = [(folder / "step-8" / "model.safetensors").read_bytes() for folder in (whole, part)]
    assert weights[0] == weights[1]
    Path("optimizer.py").write_text(FILES["optimizer.py"].replace("0.01", "0.02"))
    shutil.rmtree(part / "step-8")
    code, _, err = windtunnel("resume", "part", "--change", "optimizer.py:lion")
    assert (code, "is not the file that part/seed-0 was begun with" in err) == (3, True), err
    assert list(resume(whole, change=str(part / "change.py") + ":lion"))[-1].reason == "finished"  # a copy is the same


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["compare", "names", "--arm", "x=activation.py"],
            "which function of activation.py? expected x=",
        ),
        (["compare", "names", "--arm", "x=activation.py:square"], "has no function 'square'; did you mean squared?"),
        (["compare", "names", "--arm", "x=no.py:f"], "no.py cannot be read"),
        (["train", "names", "--change", "activation.py"], "expected FILE:FUNCTION"),
        (["train", "names", "--change", "activation.py:squared", "--parallel", "ddp"], "leave --parallel out"),
        (["train", "names", "--set", "change.function=squared"], "there is no such setting"),
        (["train", "names", "--set", f"change={NAMED}"], "a config has nothing executed; name it yourself"),
    ],
)
def test_bad_input_is_a_sentence(windtunnel, tmp_path, words, message):
    code, _, err = windtunnel(*words, *OPTIONS)
    assert code == 2, err
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_on_the_way_says_where(windtunnel, tmp_path):
    Path("late.py").write_text(
        "def f(setup):\n    def batch_of(step):\n        return setup.batch_of(step) if step != 3 else missing\n"
        "    return setup.replace(batch_of=batch_of)\n"
    )
    code, out, _ = windtunnel("train", "names", "--change", "late.py:f", *OPTIONS, "--steps", 80, "--json")
    assert code == 1
    [seed] = json.loads(out)["seeds"]
    assert seed["reason"] == "failed"
    assert re.search(r"late.py:f failed:\n.*line 3, in batch_of\n(.*\n)+NameError: .*missing", seed["message"])
