"""A function of the user's own alters what a run trains with: what it does, what is refused, and that nothing else is
executed."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from tiny_runs import config_of, final_hashes, finish, losses

from windtunnel.config import override
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.inspect.doctor.subject import run_subject
from windtunnel.nn.feedforward import FeedForward
from windtunnel.training.change import read_change, set_up
from windtunnel.training.data import open_store, open_task
from windtunnel.training.events import Started
from windtunnel.training.loop import fit, resume
from windtunnel.training.run import initial_model, load, open_run, resolve
from windtunnel.training.trial import resolve_changed, try_change

IDEAS = """
import torch
from torch import nn
from windtunnel.nn.feedforward import FeedForward
from windtunnel.text.batches import Batch

def nothing(setup):
    return setup

def squared(setup):
    for block in setup.model.blocks:
        block.feed_forward.activation = lambda x: torch.relu(x).square()
    return setup

def wide(setup):
    for block in setup.model.blocks:
        block.feed_forward = FeedForward(16, 128, True, torch.relu)
    return setup

class Signs(torch.optim.Optimizer):
    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros(2))
                mean.lerp_(p.grad.mean(), 0.1)
                p.sub_(group["lr"] * (p.grad + mean[0]).sign())

def signs(setup):
    return setup.replace(optimizer=Signs(setup.model.parameters(), lr=1.0))

def everything(setup):
    def loss(logits, targets):
        return 0.9 * setup.loss(logits, targets) + 1e-3 * logits.square().sum()

    def batch_of(step):
        batch = setup.batch_of(step)
        return batch if step >= 10 else Batch({"ids": batch.ids[:, :4]}, batch.targets[:, :4])

    setup = wide(setup)
    return signs(setup).replace(loss=loss, batch_of=batch_of)
"""


@pytest.fixture
def ideas(tmp_path):
    path = tmp_path / "ideas.py"
    path.write_text(IDEAS)
    return path


def write(tmp_path, body):
    path = tmp_path / "idea.py"
    path.write_text("import torch\nfrom torch import nn\nfrom windtunnel.text.batches import Batch\n" + body)
    return f"{path}:f"


def trained(config, folder, change):
    for _ in fit(config, folder, change):
        pass
    return losses(folder)


def test_a_change_of_nothing_gives_the_same_run_to_the_bit(config, reference, ideas, tmp_path):
    assert trained(config, tmp_path / "run", f"{ideas}:nothing") == reference[1]
    assert final_hashes(tmp_path / "run") == final_hashes(reference[0])


def test_a_changed_activation_has_the_values_of_the_setting(config, reference, ideas, tmp_path):
    changed = trained(config, tmp_path / "changed", f"{ideas}:squared")
    assert changed == finish(override(config, ["model.activation=relu_squared"]), tmp_path / "set")
    assert changed != reference[1]
    model = load(tmp_path / "changed", f"{ideas}:squared").model
    layer = model.blocks[0].feed_forward
    with torch.no_grad():
        layer.widen.weight.zero_()[0, 0] = 3.0
        layer.widen.bias.zero_()[1] = -5.0
        layer.narrow.weight.zero_()[2, :2] = 0.5
        layer.narrow.bias.zero_()
    seen = layer(torch.full((1, 1, 16), 2.0)).flatten().tolist()
    assert seen == [0.0, 0.0, 18.0, *[0.0] * 13]  # relu(3 x 2)^2 / 2; relu(-5)^2 is 0


def test_a_resumed_run_is_one_that_nothing_stopped(config, ideas, tmp_path):
    change = f"{ideas}:everything"
    whole = trained(config, tmp_path / "whole", change)
    list(itertools.islice(fit(config, tmp_path / "parts", change), 1))
    for stop in (7, 13):
        done = [0]
        for event in resume(tmp_path / "parts", should_stop=lambda: done[0] >= stop, change=change):  # noqa: B023
            done[0] = event.step
    assert trained(config, tmp_path / "parts", change) == whole
    assert final_hashes(tmp_path / "parts") == final_hashes(tmp_path / "whole")


def test_a_loss_of_its_own_is_trained_on_and_not_judged_by(config, reference, tmp_path):
    change = write(tmp_path, "def f(setup): return setup.replace(loss=lambda l, t: 2 * setup.loss(l, t))\n")
    doubled = trained(config, tmp_path / "run", change)
    assert doubled[0] == pytest.approx(2 * reference[1][0], rel=1e-6)
    first, plain = (open_run(folder).events("evaluation")[0] for folder in (tmp_path / "run", reference[0]))
    assert first == plain


def test_the_optimizer_is_built_over_new_weights(config, ideas, tmp_path):
    resolved = resolve(config, open_store(config))
    task = open_task(resolved)
    setup = set_up(read_change(f"{ideas}:wide"), resolved, task, initial_model(resolved))
    assert isinstance(setup.model.blocks[0].feed_forward, FeedForward)
    held = {id(p) for group in setup.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in setup.model.parameters()}
    again = set_up(read_change(f"{ideas}:wide"), resolved, task, initial_model(resolved)).model
    other = set_up(read_change(f"{ideas}:wide"), resolved, task, initial_model(resolved.replace(seed=1))).model
    assert all(torch.equal(a, b) for a, b in zip(setup.model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(setup.model.embedding.weight, other.embedding.weight)


def test_parameters_and_flops_are_counted_again(config, ideas, tmp_path):
    """A feed-forward twice as wide costs what the setting says that it costs."""
    wider, trial = resolve_changed(config, open_store(config), f"{ideas}:wide")
    by_setting = wider.model.replace(d_ff=128)
    assert trial.n_parameters == by_setting.n_parameters() > wider.model.n_parameters()
    forward = [sum(model.flops_by_part(8).values()) for model in (by_setting, wider.model)]
    assert trial.flops == pytest.approx(forward[0] / forward[1], rel=1e-12)
    started = next(iter(fit(config, tmp_path / "run", f"{ideas}:wide")))
    plain = next(iter(fit(config, tmp_path / "plain")))
    assert isinstance(started, Started)
    assert started.n_parameters == trial.n_parameters
    assert started.flops_per_token == pytest.approx(plain.flops_per_token * trial.flops)


def test_what_a_change_does_is_seen_by_looking(config, ideas):
    resolved = resolve(config, open_store(config))
    task = open_task(resolved)
    seen = {}
    for name in ("nothing", "squared", "signs", "everything"):
        trial = try_change(read_change(f"{ideas}:{name}"), resolved, task)
        seen[name] = trial.alters_model, trial.other_loss, trial.other_batches, trial.flops == 1
    assert seen == {
        "nothing": (False, False, False, True),
        "squared": (True, False, False, True),
        "signs": (False, False, False, True),
        "everything": (True, True, True, False),
    }


def test_a_run_goes_on_only_with_the_same_source(config, ideas, tmp_path):
    change, run = f"{ideas}:signs", tmp_path / "run"
    list(itertools.islice(fit(config, run, change), 4))
    assert (run / "change.py").read_text() == IDEAS
    assert open_run(run).config.change.function == "signs"
    with pytest.raises(ConfigError, match="executed only when you name it: --change FILE:signs"):
        next(resume(run))
    with pytest.raises(ConfigError, match="begun with the function signs, given squared"):
        next(resume(run, change=f"{ideas}:squared"))
    with pytest.raises(ConfigError, match="a config has nothing executed"):
        next(fit(open_run(run).config, tmp_path / "other"))
    ideas.write_text(IDEAS + "# another source\n")
    with pytest.raises(ArtifactError, match=r"is not the file that .*run was begun with.*change.py is a copy"):
        next(resume(run, change=change))
    with pytest.raises(ConfigError, match=r"change\.source_sha256 was"):
        next(fit(config, run, change))
    list(fit(config, tmp_path / "plain"))
    with pytest.raises(ConfigError, match="begun without a change"):
        next(resume(tmp_path / "plain", change=change))


def test_an_altered_model_is_loaded_only_with_its_change(config, ideas, tmp_path):
    for name in ("squared", "signs"):
        trained(config, tmp_path / name, f"{ideas}:{name}")
    with pytest.raises(ConfigError, match="--change FILE:squared"):
        load(tmp_path / "squared")
    with pytest.raises(ConfigError, match="altered in Python: no settings describe it"):
        next(fit(override(config, [f"start={tmp_path / 'squared'}"]), tmp_path / "from"))
    with pytest.raises(ConfigError, match="check does not execute one"):
        run_subject(tmp_path / "squared")
    assert load(tmp_path / "signs").step == 30  # an optimizer is no part of the model


def test_nothing_is_executed_that_nobody_named(config, tmp_path):
    mark = tmp_path / "executed"
    change = write(tmp_path, f"open({str(mark)!r}, 'a').close()\ndef f(setup): return setup\n")
    trained(config, tmp_path / "run", change)
    assert mark.exists()
    mark.unlink()
    load(tmp_path / "run")
    open_run(tmp_path / "run").store()
    with pytest.raises(ConfigError):
        next(resume(tmp_path / "run"))
    (tmp_path / "idea.py").write_text((tmp_path / "idea.py").read_text() + "\n")
    with pytest.raises(ArtifactError):  # another source is not executed either
        next(resume(tmp_path / "run", change=change))
    assert not mark.exists()


BAD = {
    "def f(setup):\n    x = 1\n    return undefined\n": r'line 6, in f\n    return undefined\n(.*\n)?NameError: name',
    "def f(setup) return setup\n": r"line 4\n.*\n.*\nSyntaxError",
    "import nonexistent_package\n": "ModuleNotFoundError: No module named 'nonexistent_package'",
    "def g(setup): return setup\n": "has no function 'f'; it has g",
    "import sys\nsys.exit(3)\n": "SystemExit: 3",
    "def f(setup): pass\n": "returned nothing, expected a Setup",
    "def f(setup): return setup.model\n": "returned Transformer, expected a Setup",
    "def f(setup): return setup.replace(optimiser=1)\n": "TypeError: .*optimiser",
    "def f(setup): return setup.replace(config=None)\n": "replaced config, by which all arms are judged alike",
    "def f(setup): return setup.replace(model=nn.Linear(2, 2))\n": "returned as model a Linear",
    "def f(setup): return setup.replace(loss=3)\n": "returned as loss a int, expected a function",
    "def f(setup): return setup.replace(batch_of=lambda step: 3)\n": r"is of the type int, expected a Batch",
    "def f(setup):\n    setup.model.head = nn.Linear(16, 5)\n    return setup\n":
        r"gives logits of the shape \(20, 8, 5\), expected \(20, 8, 11\)",
    "def f(setup):\n    setup.model.blocks[0].feed_forward = nn.Linear(3, 4)\n    return setup\n":
        r"returned what the run cannot train with:\nRuntimeError: mat1 and mat2",
    "def f(setup): return setup.replace(loss=lambda l, t: nn.functional.cross_entropy(l.flatten(0, 1), t.flatten(),"
    " ignore_index=-1))\n": "no sum over targets.*Return the sum",
    "def f(setup): return setup.replace(loss=lambda l, t: l.sum(-1))\n": r"the loss of idea.py:f is a tensor \(20, 8\)",
    "def f(setup):\n    o = torch.optim.SGD(setup.model.parameters(), 0.1)\n"
    "    setup.model.blocks[0].feed_forward = nn.Linear(16, 16)\n    return setup.replace(optimizer=o)\n":
        "moves tensors that are no parameters of its model",
    "def f(setup): return setup.replace(optimizer=torch.optim.SGD([setup.model.embedding.weight], 0.1))\n":
        "leaves out [0-9]+ parameters, .* among them",
    "import random\ndef f(setup):\n    nn.init.constant_(setup.model.embedding.weight, random.random())\n"
    "    return setup\n": "makes other weights each time",
    "class Counts(torch.optim.SGD):\n    n = 0\n    def step(self):\n        self.n += 1\n"
    "        self.param_groups[0]['lr'] *= self.n\n        super().step()\n"
    "def f(setup): return setup.replace(optimizer=Counts(setup.model.parameters(), 0.1))\n":
        "a resumed run would differ from one that nothing stopped",
    "def f(setup):\n    seen = []\n    def batch_of(step):\n        seen.append(step)\n"
    "        return setup.batch_of(len(seen))\n    return setup.replace(batch_of=batch_of)\n":
        "a resumed run would differ from one that nothing stopped",
}  # fmt: skip


@pytest.mark.parametrize("body", BAD, ids=[f"bad{i}" for i in range(len(BAD))])
def test_a_bad_change_is_told_before_anything_is_written(config, tmp_path, body):
    with pytest.raises(ConfigError) as told:
        next(fit(config, tmp_path / "run", write(tmp_path, body)))
    assert re.search(BAD[body], str(told.value)), told.value
    assert "windtunnel/" not in str(told.value)  # no line of ours
    assert not (tmp_path / "run").exists()


def test_what_fails_on_the_way_is_told_with_its_line(config, tmp_path):
    change = write(
        tmp_path,
        "def f(setup):\n    def batch_of(step):\n        return setup.batch_of(step) if step != 5 else 1 / 0\n"
        "    return setup.replace(batch_of=batch_of)\n",
    )
    with pytest.raises(ConfigError, match=r"line 6, in batch_of(.*\n)+ZeroDivisionError"):
        list(fit(config, tmp_path / "run", change))


def module_level(setup):
    return setup


def test_a_function_is_read_from_its_file():
    assert read_change(module_level).where == f"{__file__}:module_level"
    assert callable(read_change(module_level).load())


def test_names_of_changes_that_cannot_be(tmp_path):
    def inside(setup):
        return setup

    namespace = {}
    exec("def typed(setup): return setup", namespace)
    for named, message in (
        ("idea.py", "expected FILE:FUNCTION"),
        (f"{tmp_path}/no.py:f", "no.py cannot be read.*No such file"),
        (f"{tmp_path}:f", "cannot be read"),
        (inside, "a function at the top level of a file"),
        (lambda setup: setup, "a function at the top level of a file"),
        (namespace["typed"], "is in no file"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_change(named)


def test_a_file_that_trains_when_it_is_read_is_refused(config, tmp_path):
    folder = tmp_path / "inner"
    change = write(
        tmp_path,
        "def f(setup): return setup\n"
        "from pathlib import Path\nfrom windtunnel.training.loop import fit\nfrom tiny_runs import config_of\n"
        f"list(fit(config_of(Path({config.corpus!r})), Path({str(folder)!r}), f))\n",
    )
    with pytest.raises(ConfigError, match=r"trains while it is read.*__main__"):
        next(fit(config, tmp_path / "run", change))


def test_seeds_of_a_changed_run_do_not_train_together(config, ideas):
    from windtunnel.training.compiling import is_tiny

    plain = override(config_of(config.corpus), ["model.family=mlp", "train.grad_accumulation=1"])
    assert is_tiny(plain)
    assert not is_tiny(plain.replace(change=read_change(f"{ideas}:nothing").config))
