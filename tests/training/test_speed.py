"""Precision, threads and compiling are what this machine was measured to be fastest with, once."""

import subprocess
import sys

import pytest
import torch
from tiny_runs import config_of, names_file, store_of

from windtunnel.config import override
from windtunnel.errors import SaveError
from windtunnel.models import TransformerConfig
from windtunnel.models.cost import training_flops
from windtunnel.text.corpora.cache import clear, kept
from windtunnel.training import machine, speed
from windtunnel.training.compiling import COMPILE_SECONDS, USUAL_RATE, compiling_pays
from windtunnel.training.loop import fit, resume
from windtunnel.training.run import open_run, resolve
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.speed import Way, decide, fastest, keep, layer_flops, measured

CORES = machine.cores()
pytestmark = pytest.mark.skipif(machine.device().type != "cpu", reason="an accelerator is not measured")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No measurement is kept when a test begins."""
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep_times(width, times, share=1.0):
    """Keep that a step of this width takes {way: seconds}, the ways having had this share of their cores."""
    keep({str(width): {str(way): {"seconds": seconds, "share": share} for way, seconds in times.items()}})


def config(width=64, **train):
    return RunConfig(corpus="", model=TransformerConfig(d_model=width, n_heads=1), train=TrainConfig(**train))


@pytest.mark.parametrize(("other", "share", "is_taken"), [(0.95, 1, False), (0.85, 1, True), (0.85, 0.5, False)])
def test_only_a_way_that_is_clearly_faster_than_that_of_an_undisturbed_rule_takes_its_place(other, share, is_taken):
    rule, way = Way("fp32", 8), Way("fp32", 4)
    keep_times(128, {rule: 1.0, way: other}, share)
    assert fastest(200, rule, [rule, way]) == (way if is_taken else rule)  # 128 is the widest below


def test_an_explicit_setting_wins_and_runs_side_by_side_have_one_thread():
    keep_times(64, {Way("fp32", CORES): 9.0, Way("bf16", CORES): 8.0, Way("fp32", 1): 2.0, Way("bf16", 1): 1.0})
    assert decide(config()) == Way("bf16", 1)
    assert decide(config(threads=CORES)) == Way("bf16", CORES)
    assert decide(config(precision="fp32")) == Way("fp32", 1)
    assert decide(config(precision="fp32", threads=3)) == Way("fp32", 3)
    assert decide(config(), side_by_side=2) == Way("bf16", 1)


def test_a_narrow_model_is_decided_by_the_rule_and_nothing_is_measured(own_cache):
    assert decide(config(width=48)) == Way("fp32", CORES)
    assert not own_cache.exists()
    keep_times(64, {Way("fp32", CORES): 9.0, Way("bf16", CORES): 1.0})
    assert decide(config(width=48)) == Way("fp32", CORES)


def test_a_measurement_is_made_once_and_leaves_the_process_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    found = measured(64)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 1
    ways = {str(Way(p, n)) for p in speed.PRECISIONS for n in speed.thread_counts()}
    assert found.keys() <= ways
    assert all(0 < one.seconds < 60 and one.share > 0 for one in found.values())
    assert measured(64) == found
    assert kept("speed").n_files == 1
    assert clear("speed") > 0
    assert kept("speed").n_files == 0


def test_a_damaged_measurement_is_made_again(own_cache):
    keep_times(64, {Way("fp32", 1): 12345.0})
    [path] = own_cache.rglob("manifest.json")
    path.write_bytes(path.read_bytes().replace(b"12345", b"12346"))
    assert all(one.seconds < 60 for one in measured(64).values())
    assert b"12346" not in path.read_bytes()


def test_where_nothing_can_be_kept_the_rule_decides(own_cache):
    own_cache.write_text("a file")
    assert measured(64) == {}
    assert decide(config()) == Way("fp32", CORES)


def test_two_processes_at_once_decide_by_the_same_measurement():
    program = "from windtunnel.training.speed import measured; print(measured(64), measured(512))"
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]


def test_of_measurements_at_once_the_first_is_kept():
    keep_times(64, {Way("fp32", 1): 1.0})
    with pytest.raises(SaveError):
        keep_times(64, {Way("fp32", 1): 2.0})
    assert measured(64)[str(Way("fp32", 1))].seconds == 1.0


def test_a_run_records_what_was_measured_and_keeps_its_decision(tmp_path):
    wide = override(config_of(names_file(tmp_path)), ["model.d_model=64", "train.threads=1", "train.steps=2"])
    wide = wide.replace(train=wide.train.replace(precision="auto"))
    keep_times(64, {Way("fp32", 1): 0.5, Way("bf16", 1): 0.25})
    for _ in fit(wide, tmp_path / "run"):
        pass
    run = open_run(tmp_path / "run")
    assert run.config.train.precision == "bf16"
    assert run.record["speed"] == (
        "bf16 on 1 thread; a training step of one layer of width 64, measured here once: "
        "bf16 on 1 thread 250 ms, fp32 on 1 thread 500 ms"
    )
    clear("speed")
    keep_times(64, {Way("fp32", 1): 0.25, Way("bf16", 1): 0.5})
    assert resolve(wide, store_of(wide)).train.precision == "fp32"
    for _ in resume(run.folder):
        pass
    assert open_run(run.folder).config == run.config


@pytest.mark.parametrize(
    ("by_the_rule", "times_as_fast", "is_compiled"),
    [(0.98, 0.5, True), (0.98, 0.95, False), (1.02, 1.05, True), (1.02, 2, False), (1.02, None, True)],
)
def test_a_run_is_compiled_if_it_is_long_on_this_machine(by_the_rule, times_as_fast, is_compiled):
    """`by_the_rule` times what is worth compiling, at the usual rate; the machine computes `times_as_fast`."""
    rate = USUAL_RATE * (times_as_fast or 1)
    keep_times(64, {Way("fp32", 1): layer_flops(64) / rate} if times_as_fast else {})
    one = config(precision="fp32", threads=1)
    flops = training_flops(one.model, one.model.context_length) * one.train.batch_size
    steps = round(by_the_rule * COMPILE_SECONDS * USUAL_RATE / flops)
    assert compiling_pays(one.replace(train=one.train.replace(steps=steps))) == is_compiled
