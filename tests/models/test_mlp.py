"""The multilayer perceptron: what it counts and sees, how it begins, and the published script, replayed."""

import math
import random

import pytest
import torch
import torch.nn.functional as F

from windtunnel.config import override, parse
from windtunnel.errors import ConfigError
from windtunnel.generation.decode import Reader, decode
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.inspect.cost import count_forward_flops, parameter_shapes
from windtunnel.models import MLPConfig, TransformerConfig, build
from windtunnel.nn.norms import BatchNorm
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import prepare
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate, unit_sums
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.loop import fit, resume
from windtunnel.training.recipes import makemore, mlp
from windtunnel.training.run import load, resolve
from windtunnel.training.run_config import RunConfig

VARIANTS = {
    "makemore": {},
    "no batch norm": {"batch_norm": False},
    "direct": {"direct": True},
    "no hidden bias": {"hidden_bias": False},
    "three layers, longer": {"n_layers": 3, "context_length": 8, "d_hidden": 20, "d_embedding": 4},
}
variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A file of 400 made-up names."""
    draw = random.Random(1)
    lines = ["".join(draw.choices("aabbcdefghij", k=draw.randint(2, 9))) for _ in range(400)]
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def short(config, *changes):
    length = ["train.steps=60", "train.eval_every=30", "train.save_every=20", "train.sample_tokens=0"]
    return override(config, [*length, "train.threads=1", "train.compile=false", "train.precision=fp32", *changes])


def value(formula, config):
    return eval(formula, config.formula_names())  # noqa: S307 (our own)


def test_published_numbers_of_parameters():
    assert sum(p.numel() for p in build(MLPConfig(), 0).parameters()) == 12_297
    assert sum(p.numel() for p in build(MLPConfig(direct=True), 0).parameters()) == 13_107


@variants
def test_formulas_count_what_torch_counts(changes):
    config = MLPConfig(**changes)
    rows = config.parameter_rows()
    assert sum(row.n_parameters for row in rows) == sum(shape.numel() for shape in parameter_shapes(config))
    assert [value(row.formula, config) for row in rows] == [row.n_parameters for row in rows]
    assert sum(config.flops_by_part(1).values()) == count_forward_flops(config, config.context_length)


@variants
def test_only_the_context_counts(changes):
    config = MLPConfig(**changes)
    model, n = build(config, 0).eval(), config.context_length
    ids = torch.randint(27, (2, n + 5), generator=torch.Generator().manual_seed(0))
    logits = model(ids)
    assert logits.shape == (2, 6, 27)
    for place in range(6):
        assert torch.allclose(model(ids[:, place : place + n])[:, 0], logits[:, place], atol=1e-6)
    started = torch.cat([ids[:, :1].expand(-1, n - 1), ids[:, :1]], dim=1)
    assert torch.equal(model(ids[:, :1]), model(started))
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 27
    assert torch.equal(model(changed)[:, 1:], logits[:, 1:])
    assert not torch.equal(model(changed)[:, 0], logits[:, 0])


def test_batch_norm_is_that_of_torch():
    ours, theirs = BatchNorm(5, 1e-5, 0.1, unbiased=False), torch.nn.BatchNorm1d(5)
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.arange(1.0, 6))
            module.bias.fill_(0.3)
    x = torch.randn(6, 7, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    assert torch.allclose(ours(x), theirs(x.flatten(0, 1)).unflatten(0, (6, 7)), atol=1e-5)
    assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-6)
    assert torch.allclose(ours.running_std, 0.9 + 0.1 * (x.flatten(0, 1).var(0, correction=0) + 1e-5).sqrt())
    kept = ours.running_mean.clone()
    evaluated = ours.eval()(x)
    assert torch.equal(ours.running_mean, kept)
    expected = ours.weight * (x - ours.running_mean) / ours.running_std + ours.bias
    assert torch.equal(evaluated, expected)


def test_the_weights_begin_as_the_settings_say():
    model = build(MLPConfig(d_hidden=400, d_embedding=30, init_output=0.2, init_output_bias=1.5, direct=True), 0)
    spread = {name: parameter.std().item() for name, parameter in model.named_parameters()}
    assert spread["layers.0.linear.weight"] == pytest.approx(5 / 3 / math.sqrt(90), rel=0.02)
    assert spread["output.weight"] == pytest.approx(0.2, rel=0.03)
    assert spread["output.bias"] == pytest.approx(1.5, rel=0.4)
    assert spread["direct.weight"] == pytest.approx(0.01, rel=0.05)
    zero = build(MLPConfig(init_embedding=0, init_hidden=0, init_hidden_bias=0, init_output=0, batch_norm=False), 0)
    assert all(not parameter.any() for parameter in zero.parameters())
    constant = build(MLPConfig(init="constant", init_hidden=0.1, batch_norm=False), 0)
    assert torch.equal(constant.layers[0].linear.weight, torch.full((200, 30), 0.1))
    again, other = build(MLPConfig(), 3), build(MLPConfig(d_hidden=50), 3)
    assert torch.equal(again.embedding.weight, other.embedding.weight)


def script(path, steps, seed=2147483647):
    """Makemore's script as published, by hand: losses of all steps, and the dev loss at the end."""
    words = path.read_text("utf-8").splitlines()
    place = {c: i + 1 for i, c in enumerate(sorted(set("".join(words))))}
    random.seed(42)
    random.shuffle(words)
    n_1, n_2 = int(0.8 * len(words)), int(0.9 * len(words))

    def examples(words):
        xs, ys = [], []
        for word in words:
            context = [0, 0, 0]
            for id in [*(place[c] for c in word), 0]:
                xs.append(context)
                ys.append(id)
                context = [*context[1:], id]
        return torch.tensor(xs), torch.tensor(ys)

    xs, ys = examples(words[:n_1])
    g, v = torch.Generator().manual_seed(seed), len(place) + 1
    c = torch.randn((v, 10), generator=g)
    w1 = torch.randn((30, 200), generator=g) * (5 / 3) / 30**0.5
    b1 = torch.randn(200, generator=g) * 0.01
    w2 = torch.randn((200, v), generator=g) * 0.01
    b2 = torch.randn(v, generator=g) * 0
    gain, shift, mean, std = torch.ones(1, 200), torch.zeros(1, 200), torch.zeros(1, 200), torch.ones(1, 200)
    parameters = [c, w1, b1, w2, b2, gain, shift]
    for p in parameters:
        p.requires_grad = True
    losses = []
    for step in range(steps):
        ix = torch.randint(0, len(xs), (32,), generator=g)
        h = c[xs[ix]].view(32, -1) @ w1 + b1
        m, s = h.mean(0, keepdim=True), h.std(0, keepdim=True)
        loss = F.cross_entropy(torch.tanh(gain * (h - m) / s + shift) @ w2 + b2, ys[ix])
        mean, std = 0.999 * mean + 0.001 * m.detach(), 0.999 * std + 0.001 * s.detach()
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -(0.1 if step < steps // 2 else 0.01) * p.grad
        losses.append(loss.item())
    xs, ys = examples(words[n_1:n_2])
    with torch.no_grad():
        h = c[xs].view(len(xs), -1) @ w1 + b1
        return losses, F.cross_entropy(torch.tanh(gain * (h - mean) / std + shift) @ w2 + b2, ys).item()


def test_the_published_script_is_replayed(names, tmp_path):
    events = list(fit(short(makemore(str(names))), tmp_path / "run"))
    losses, dev = script(names, 60)
    assert [e.loss for e in events if isinstance(e, Step)] == pytest.approx(losses, abs=1e-5)
    assert [e.loss for e in events if isinstance(e, Evaluation)][-1] == pytest.approx(dev, abs=1e-5)
    other = list(fit(short(makemore(str(names)), "seed=3", "train.steps=2"), tmp_path / "other"))
    assert [e.loss for e in other if isinstance(e, Step)] == pytest.approx(script(names, 2, 2147483650)[0], abs=1e-5)


@pytest.mark.parametrize("recipe", [mlp, makemore])
def test_a_resumed_run_equals_the_uninterrupted_one(names, tmp_path, recipe):
    """Running statistics of the batch norm, too, and the place in the generator's stream."""
    config = short(recipe(str(names)), "text.dev_fraction=0.1")
    whole = list(fit(config, tmp_path / "whole"))
    asked = []
    for event in fit(config, tmp_path / "parts"):
        asked.append(event)
        if isinstance(event, Step) and event.step == 33:
            break
    rest = list(resume(tmp_path / "parts"))
    after = {e.step: e.loss for e in rest if isinstance(e, Step)}
    assert min(after) == 21
    assert after == {e.step: e.loss for e in whole if isinstance(e, Step) and e.step >= 21}
    a, b = (load(tmp_path / name).model.state_dict() for name in ("whole", "parts"))
    assert a.keys() == b.keys() >= {"layers.0.norm.running_std"}
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (a["layers.0.norm.running_std"] != 1).all()


def test_it_learns_more_than_how_frequent_each_letter_is(tmp_path):
    """Names have a unigram entropy of 2.82 nats per token."""
    events = list(fit(short(mlp("names"), "train.steps=400", "train.eval_every=400"), tmp_path / "run"))
    first, last = (e.loss for e in events if isinstance(e, Evaluation))
    assert abs(first - math.log(27)) < 0.05
    assert last < 2.7


def test_evaluation_predicts_every_token_from_its_own_context(names):
    """By lines against a loop over them; the losses of the documents are in the documents' order."""
    config = short(mlp(str(names)), "text.unit=line", "text.dev_fraction=0.2", "model.batch_norm=false")
    store = prepare(open_corpus(config.corpus, "line"), config.text)
    config = resolve(config, store)
    model, part, end = build(config.model, 0).eval(), store.splits["dev"], store.tokenizer.end_id
    task = open_task(config, store)
    sums = unit_sums(model, task, "dev")
    losses, tokens = sums["nats"], sums["targets"]
    for number in (0, 1, 7, len(tokens) - 1):
        ids = part.ids[part.offsets[number] : part.offsets[number + 1]].tolist()
        padded = torch.tensor([[end] * 3 + ids + [end]])
        loss = F.cross_entropy(model(padded[:, :-1])[0], padded[0, 3:], reduction="sum")
        assert (losses[number], tokens[number]) == (pytest.approx(loss.item(), abs=1e-4), len(ids) + 1)
    found = evaluate(model, task, "dev", 0)
    assert found.whole
    assert found.n_tokens == tokens.sum()
    assert found.loss == pytest.approx(losses.sum() / tokens.sum(), abs=1e-6)


def test_running_text_is_predicted_from_its_second_token_on(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, that is the question. " * 40, encoding="utf-8")
    config = short(mlp(str(path)), "train.steps=20")
    store = prepare(open_corpus(config.corpus, config.text.unit), config.text)
    config = resolve(config, store)
    found = evaluate(build(config.model, 0), open_task(config, store), "dev", 0)
    assert found.n_tokens == len(store.splits["dev"].ids) - 1
    assert [e for e in fit(config, tmp_path / "run") if isinstance(e, Evaluation)]


def test_decoding_past_the_context():
    model = build(MLPConfig(init_output=1.0), 0).eval()
    ids = [0, 5, 9, 13, 2]
    each = list(Reader(model).next_logits(ids))
    assert len(each) == 5
    for end in range(1, 6):
        assert each[end - 1] == pytest.approx(
            model(torch.tensor([ids[max(0, end - 3) : end]]))[0, -1].tolist(), abs=1e-5
        )
    new = [token.id for token in decode(model, ids, 4, SamplingConfig(), seed=1)]
    again = [token.id for token in decode(model, [0, 0, *ids], 4, SamplingConfig(), seed=1)]
    assert new == again


def test_configs_of_two_families():
    config = RunConfig(corpus="names", model=MLPConfig())
    assert parse(RunConfig, config.model_dump()) == config
    assert override(config, ["model.d_hidden=7"]).model == MLPConfig(d_hidden=7)
    assert config.replace(seed=3).model == MLPConfig()
    assert parse(RunConfig, {"corpus": "names", "model": {"d_model": 48}}).model == TransformerConfig(d_model=48)
    with pytest.raises(ConfigError, match=r"there is no such setting; did you mean model.n_layers\?"):
        override(config, ["model.n_heads=2"])
    with pytest.raises(ConfigError, match=r"^model.d_hidden: input should be greater than 0, given 0$"):
        override(config, ["model.d_hidden=0"])
    with pytest.raises(ConfigError, match=r"there is no setting model.n_heads"):
        parse(RunConfig, {"corpus": "names", "model": {"family": "mlp", "n_heads": 2}})


@pytest.mark.parametrize(
    ("base", "changes", "sentence"),
    [
        (mlp, ["train.batch_size=8", "train.grad_accumulation=5"], "batch norm needs at least two examples at once"),
        (mlp, ["train.recompute=true"], "computes blocks again, and the family mlp has none"),
        (lambda corpus: RunConfig(corpus=corpus), ["generator=3"], "generator=3 replays scripts of the family mlp"),
        (lambda corpus: RunConfig(corpus=corpus), ["text.unit=text", "text.shuffle_seed=3"], "is one running text"),
    ],
)
def test_what_cannot_be_trained_is_refused(names, tmp_path, base, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        list(fit(override(base(str(names)), changes), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
