"""Runs survive on every executor: real processes, real kills. scripts/stress_executor.py does it at random."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from patience import wait_for
from windtunnel.config import override
from windtunnel.errors import ConfigError, MissingExtra
from windtunnel.models import TransformerConfig
from windtunnel.runs.execute import execute, open_executor
from windtunnel.runs.measure import is_measured, read_measured
from windtunnel.runs.seeds import create_seeds
from windtunnel.text.store import TextConfig
from windtunnel.training.disk import locked
from windtunnel.training.events import Started, Step, Stopped, read_events
from windtunnel.training.loop import resume
from windtunnel.training.run_config import RunConfig, TrainConfig

STEPS = 300
DRIVER = """
import sys
from pathlib import Path
from windtunnel.runs.execute import execute, open_executor
with open_executor("local", 1) as executor:
    list(execute([Path(name) for name in sys.argv[1:]], executor))
"""


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the run folders of seeds 0, 1, ... of one config, some settings changed."""
    draw, corpus = random.Random(0), tmp_path_factory.mktemp("corpus") / "names.txt"
    corpus.write_text("\n".join("".join(draw.choices("abcdefghij", k=draw.randint(2, 12))) for _ in range(300)))
    config = RunConfig(
        corpus=str(corpus),
        text=TextConfig(unit="line"),
        model=TransformerConfig(context_length=8, n_layers=1, n_heads=2, d_model=16, dropout=0.1),
        train=TrainConfig(
            steps=STEPS, batch_size=8, save_every=10, eval_every=150, threads=1, precision="fp32", compile=False,
            sample_tokens=0,
        ),
    )  # fmt: skip
    return lambda folder, seeds, *changes: create_seeds(override(config, changes), range(seeds), folder)


@pytest.fixture(scope="module")
def undisturbed(make, tmp_path_factory):
    """What the runs of seeds 0 and 1 come to when nothing happens to them."""
    folders = make(tmp_path_factory.mktemp("undisturbed"), 2)
    for folder in folders:
        list(resume(folder))
    return [result(folder) for folder in folders]


@pytest.mark.slow
def test_a_killed_dask_worker_loses_and_doubles_nothing(make, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    runs = make(tmp_path, 2)
    own = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(**own) as cluster,
        open_executor(f"dask={cluster.scheduler_address}", 2) as executor,
        killing_when_saved(runs[0], parent=True),
    ):
        events = list(execute(runs, executor))
    assert [ended.reason for ended in endings(events, 2)] == ["finished", "finished"]
    begun = [event.step for i, event in events if i == 0 and isinstance(event, Started)]
    assert begun[-1] > 0  # the orphan saved, the next process went on from there
    assert [result(run) for run in runs] == undisturbed
    assert not list(tmp_path.glob(".wanted-*"))


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's list of sockets")
def test_a_dask_cluster_of_this_process_trains_and_listens_on_no_socket(make, undisturbed, tmp_path):
    runs, before, path = make(tmp_path, 2), listening(), set(sys.path)
    with open_executor("dask", 2) as executor:
        assert executor.submit(os.getpid).result() == os.getpid()
        folders = set(sys.path) - path
        assert {stat.S_IMODE(Path(folder).parents[1].stat().st_mode) for folder in folders} == {0o700}
        events = list(execute(runs, executor))
        assert listening() == before
        with socket.create_server(("127.0.0.1", 0)):
            assert len(listening()) == len(before) + 1
    assert [ended.reason for ended in endings(events, 2)] == ["finished", "finished"]
    assert [result(run) for run in runs] == undisturbed


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_scheduler_with_tls_is_used_with_the_certificates_of_dasks_configuration(tmp_path):
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    make_it = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*make_it, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = {"distributed.comm.tls.ca-file": certificate}
    tls |= {"distributed.comm.tls.client.key": key, "distributed.comm.tls.client.cert": certificate}
    ends = {f"tls_{end}_{kind}": value for end in ("scheduler", "worker", "client")
            for kind, value in (("key", key), ("cert", certificate))}  # fmt: skip
    security = distributed.Security(tls_ca_file=certificate, require_encryption=True, **ends)
    own = {"n_workers": 1, "processes": False, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(protocol="tls://", security=security, **own) as cluster:
        name = f"dask={cluster.scheduler_address}"
        assert name.startswith("dask=tls://127.0.0.1:")
        gc.disable()  # nothing is left to be collected in the middle of the next client's start, where it would hang
        try:
            with pytest.raises(ConfigError, match="no dask scheduler answers"), open_executor(name, 1):
                pass
            clients = [one for one in gc.get_objects() if type(one) is distributed.Client]
            assert [one.status for one in clients if one.status != "closed"] == []
        finally:
            gc.enable()
        with dask.config.set(tls), open_executor(name, 1) as executor:
            assert executor.submit(os.getpid).result() == os.getpid()


def test_a_module_of_the_working_folder_is_not_run(make, tmp_path, monkeypatch):
    (run,) = make(tmp_path / "runs", 1, "train.steps=2")
    for name in ("torch", "numpy", "windtunnel", "fcntl"):
        tmp_path.joinpath(f"{name}.py").write_text("open('was run', 'w')")
    monkeypatch.chdir(tmp_path)
    with open_executor("local", 1) as executor:
        ended = endings(list(execute([run], executor)), 1)
    assert [stopped.reason for stopped in ended] == ["finished"]
    assert not tmp_path.joinpath("was run").exists()


@pytest.mark.slow
def test_stopped_then_driver_killed_then_finished_in_a_pool_with_a_kill(make, undisturbed, tmp_path):
    runs = make(tmp_path, 2)
    with open_executor("local", 1) as executor:
        stopped = list(execute(runs, executor, should_stop=lambda: bool(list(runs[0].glob("step-*")))))
    assert [(ended.reason, ended.message == "not begun") for ended in endings(stopped, 2)] == [
        ("interrupted", False),
        ("interrupted", True),
    ]
    assert not runs[1].joinpath("metrics.jsonl").exists()

    driver = subprocess.Popen([sys.executable, "-c", DRIVER, runs[1]])
    with killing_when_saved(runs[1], parent=True):
        assert driver.wait() == -signal.SIGKILL
    wait_for(lambda: training(runs[1]) is None)  # the orphan saves and ends
    log = read_events(runs[1] / "metrics.jsonl")
    assert (log[-1].reason, (runs[1] / f"step-{log[-1].step}").exists()) == ("interrupted", True)
    assert 0 < log[-1].step < STEPS

    with ProcessPoolExecutor(2) as pool:
        pool.submit(os.getpid).result()  # it forks now, while no thread has the pipe of a process that it is starting
        with killing_when_saved(runs[1]):
            finished = list(execute(runs, pool))
    assert [ended.reason for ended in endings(finished, 2)] == ["finished", "finished"]
    assert [result(run) for run in runs] == undisturbed
    assert is_measured(runs[0], STEPS)
    assert read_measured(runs[0]).sums["targets"].sum() > 0


def test_what_cannot_be_trained_has_a_clear_ending(make, tmp_path):
    diverging = make(tmp_path / "b", 1, "optimizer.name=sgd", "optimizer.lr=1e6", "train.clip=null")[0]
    altered, killed, busy = [make(tmp_path / name, 1)[0] for name in "acd"]
    altered.joinpath("config.json").write_text("{}")
    done = threading.Event()

    def kill_again_and_again():
        while not done.wait(0.05):
            if victim := training(killed):
                os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    runs = [diverging, altered, killed, busy]
    with locked(busy), open_executor("local", 2) as executor:
        ended = endings(list(execute(runs, executor, patience=0)), 4)
    done.set()
    killer.join()
    assert [stopped.reason for stopped in ended] == ["diverged", "failed", "failed", "failed"]
    assert "training diverged at step" in ended[0].message
    assert "config.json" in ended[1].message
    assert "killed by signal 9, 3 times without a new checkpoint" in ended[2].message
    assert "is being written by another process" in ended[3].message


def test_a_broken_pool_fails_every_run_in_words(make, tmp_path):
    runs = make(tmp_path, 2)
    with ProcessPoolExecutor(1, initializer=os._exit, initargs=(1,)) as pool:
        ended = endings(list(execute(runs, pool)), 2)
        again = endings(list(execute(runs, pool)), 2)  # now submit itself refuses
    assert {stopped.reason for stopped in ended + again} == {"failed"}
    assert all("its worker was lost" in stopped.message for stopped in ended + again)


def test_executors_that_there_are_not(monkeypatch):
    for name in ("slurm", "local=2", "dask="):
        with pytest.raises(ConfigError, match="known are local, dask and dask=ADDRESS"), open_executor(name, 1):
            pass
    for address, why in (("tcp://127.0.0.1:9", "Timed out"), ("tls://127.0.0.1:9", "check your TLS configuration")):
        with (
            pytest.raises(ConfigError, match=f"no dask scheduler answers at {address}: .*{why}"),
            open_executor(f"dask={address}", 1),
        ):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"pip install distributed"), open_executor("dask", 1):
        pass
    assert list(execute([], None)) == []


def endings(events, n):
    """How each of n runs ended; each exactly once."""
    ended = [(i, event) for i, event in events if isinstance(event, Stopped)]
    assert sorted(i for i, _ in ended) == list(range(n))
    return [event for _, event in sorted(ended, key=lambda pair: pair[0])]


def result(run):
    """SHA-256 of the final weights and optimizer state, and the loss of each step, numbered 1, 2, 3, ..."""
    files = [run / f"step-{STEPS}" / f"{name}.safetensors" for name in ("model", "optimizer")]
    steps = [event for event in read_events(run / "metrics.jsonl") if isinstance(event, Step)]
    assert [event.step for event in steps] == list(range(1, STEPS + 1))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files], [event.loss for event in steps]


@contextmanager
def killing_when_saved(run, parent=False):
    """Kill the process that trains a run, or its parent, as soon as the run has a checkpoint."""

    def kill():
        wait_for(lambda: training(run) or over.is_set())
        process = training(run)
        victim = processes()[process][0] if parent else process
        wait_for(lambda: list(run.glob("step-*")) or over.is_set())
        os.kill(victim, signal.SIGKILL)
        killed.set()

    killed, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert killed.is_set()


def listening():
    """The local addresses, as Linux writes them, on which a TCP socket of this process listens."""
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them is gone by now
            inodes.add(str(descriptor.readlink()))
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return sorted(row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes)


def processes():
    """{process: (parent, command)} of all processes."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,ppid=,command="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return {int(pid): (int(parent), command) for pid, parent, command in rows}


def training(run):
    """The process that trains a run, if there is one."""
    found = [pid for pid, (_, command) in processes().items() if f"windtunnel.runs.worker {run} " in command]
    return found[0] if found else None
