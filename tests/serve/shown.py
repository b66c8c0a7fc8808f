"""A folder as the page shows it: runs with histories, a damaged one, a comparison, an experiment's outcome."""

import json
import math
import shutil

from served import make_run

from windtunnel.text.tokenizers import bytes_tokenizer, characters_tokenizer
from windtunnel.training.events import Evaluation, Started, Step, Stopped, to_line

ROW = {"id": "000-Q1", "statement": "it holds", "published": "7", "measured": "7.01", "verdict": "holds"}


def loss(step, seed=0):
    """A loss that falls."""
    return 1 + 2 / (1 + step / 20) + 0.01 * math.sin(7 * step + seed)


def write_log(run, n_steps, seed=0, steps=None, end=True):
    """The events of a training, as the loop writes them."""
    events = [Started(0, steps or n_steps, 1234, 1e3, 1e9)]
    for step in range(1, n_steps + 1):
        events.append(Step(step, loss(step, seed), 1e-3, 0.5, 100, 0.01))
        if step % 25 == 0:
            events.append(Evaluation(step, "dev", {"loss": loss(step, seed) + 0.1}, 1000, True))
    events += [Stopped(n_steps, "finished")] if end else []
    (run.folder / "metrics.jsonl").write_text("".join(map(to_line, events)))


def comparison(name="arm"):
    """What `comparison.json` must have to be listed."""
    judgement = {"verdict": {"word": "better"}, "sentence": f"{name} against base: better: -0.1 [-0.2, -0.05]"}
    arms = [{"name": "base"}, {"name": name}]
    return {"corpus": f"corpus of {name}", "arms": arms, "judgements": [judgement], "signature": f"signed {name}"}


def outcome(name="experiment", **claim):
    """What `outcome.json` must have to be listed."""
    about = {"title": f"title of {name}", "what": "what was done", "quick": False, "signature": "signed"}
    return {**about, "claims": [{**ROW, **claim}]}


def save(folder, name, data, page="<h1>report</h1>"):
    """A result with its page."""
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(data))
    (folder / "report.html").write_text(page)


DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'


def make_folder(root):
    """three/seed-0 to 2 and prose have histories; hurt is damaged; compare-one and experiments/coin are judged."""
    letters = characters_tokenizer("abcdefghijklmnopqrstuvwxyz", end=True)
    for seed in range(3):
        write_log(make_run(root / f"three/seed-{seed}", letters, seed=seed, made=None), 100, seed)
    write_log(make_run(root / "prose", bytes_tokenizer(end=False), unit="text", seed=5, made=None), 50, 5)
    hurt = make_run(root / "hurt", letters)
    (hurt.folder / "config.json").write_text("{}")
    save(root / "compare-one", "comparison.json", comparison())
    (root / "compare-one/comparison.svg").write_text(DRAWING)
    save(root / "experiments/coin", "outcome.json", outcome())
    return root


def copy_run(folder, name):
    """The same run under another name."""
    shutil.copytree(folder, folder.parent / name)
