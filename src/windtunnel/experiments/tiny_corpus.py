"""001-2.1 to 2.5: a small GPT on a text whose true probabilities are known, what it writes, and each probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from windtunnel.experiments.frame import Claim, Findings, Given, Progress, Row, Setting, Steps, draw, table, text
from windtunnel.experiments.sentences import (
    Floats,
    Ids,
    Sentences,
    diluted,
    masked,
    minibatches,
    read_sentences,
)  # fmt: skip
from windtunnel.experiments.small_gpt import as_batch, example_losses, gpt_nano, next_logits, train_on
from windtunnel.generation.decode import Position, decode
from windtunnel.generation.sampling import SamplingConfig, adjust, log_softmax, softmax
from windtunnel.generation.trace import Alternative, TokenTrace, describe
from windtunnel.models import Transformer
from windtunnel.report.charts import Panel, lines
from windtunnel.stats.intervals import mean_interval
from windtunnel.text.tokenizers import Tokenizer, gpt2_tokenizer

LOSS, TEXT, EACH, SIX, CALL = (Row(f"001-2.{n}") for n in range(1, 6))
E11, E12, E13 = Row("E11"), Row("E12"), Row("E13")
PROMPTS = {"He and I": 0.8, "She rubs": 0.6, "They are": 0.8}
"""The source's prompts, the last its own, and the temperature of each."""
N_TOKENS, TOP = 10, 6
CLOSE = 0.04
"""Nats a token: a loss as near as this is at the floor."""
TEMPERATURES = (0.3, 0.6, 0.8, 1.0, 2.0)
PRINTED_LOSS, SURE, NEAR = 0.68115, 0.99, 0.15
ROW_1 = (0.516, 0.3306, 0.1488, 0.0035, 0.0004, 0.0002)
"""What the source printed for the first token after "He and I" at temperature 0.8: can, hold, rub ..."""
AT_1 = (0.478, 0.335, 0.177)
"""The first three of them at temperature 1."""


@dataclass(frozen=True)
class Learned:
    """A trained model, and what was seen on the way."""

    model: Transformer
    tokenizer: Tokenizer
    sentences: Sentences
    losses: list[float]
    """Of every step's minibatch."""
    watched: dict[int, Floats]
    """After so many steps, the probabilities of the token after the first prompt (V,), at temperature 1."""


def tiny_corpus(at: Setting) -> Findings:
    """A small GPT on a tiny corpus.

    gpt-nano (3 layers x 48, 3 heads) with GPT-2's vocabulary was trained on sentences, each an example without an end
    mark, and its loss compared with the lowest that any model can reach. Then it wrote greedily, and every probability
    stands beside the true one. A second model, whose sentences end in an end mark, shows why the first one's tail is
    nonsense.
    """
    yield Progress("reading sentences")
    tokenizer, corpus = gpt2_tokenizer(), at.corpus or "pets"
    sentences = read_sentences(corpus, tokenizer, at.size(400, quick=20))
    learned = yield from learn(at, tokenizer, sentences)
    n, config = len(sentences.train), learned.model.config
    shape = f"{config.n_layers} layers x {config.d_model}, context {config.context_length}, {config.vocab_size} tokens"
    yield Given({"corpus": corpus, "trained sentences": n, "truth": sentences.known, "model": shape})
    yield from losses(at, learned)
    texts = {prompt: written(learned, prompt, t) for prompt, t in PROMPTS.items()}
    yield from greedy(learned, texts)
    yield from tail(at, learned)
    yield from each_probability(learned, texts)
    yield from top_six(learned, texts)
    yield from one_call(learned, texts)


def learn(at: Setting, tokenizer: Tokenizer, sentences: Sentences) -> Steps[Learned]:
    """Train, watching what follows the first prompt."""
    model = gpt_nano(tokenizer.vocab_size, max(map(len, sentences.train)), at.seed)
    prompt = ids_of(tokenizer, next(iter(PROMPTS)))
    steps, found, watched = at.size(600, quick=25), list[float](), dict[int, Floats]()
    for loss in train_on(model, sentences.train, steps, at.seed):
        found.append(loss)
        if len(found) % max(1, steps // 50) == 0:
            yield Progress("training", len(found), steps)
            watched[len(found)] = softmax(next_logits(model, prompt))
    return Learned(model, tokenizer, sentences, found, watched)


def ids_of(tokenizer: Tokenizer, text: str) -> Ids:
    """The ids of a text."""
    return tuple(tokenizer.encode(text).tolist())


# --------------------------------------------------------------------------------------------------------------- loss


def losses(at: Setting, learned: Learned) -> Findings:
    """001-2.1 and E11: the loss against its floor, and what one minibatch says of it."""
    own, true = example_losses(learned.model, learned.sentences.judged), learned.sentences.true_losses()
    tokens = float(np.mean([len(row) for row in true]))
    above = mean_interval([float(a.sum() - b.sum()) / tokens for a, b in zip(own, true, strict=True)])
    shown = f"{masked(own):.4f} nats per token, the truth has {masked(true):.4f}: {{}} more"
    statement = f"trained, it is within {CLOSE} nats of the lowest loss that any model can reach"
    yield LOSS.within(statement, above, high=CLOSE, shown=shown)
    shown = f"floor {masked(true):.4f} without padding, {diluted(true):.4f} in minibatches of 4 that count it"
    statement = "padding that counts among the targets lowers the loss that is reported"
    floors = {"masked": masked(true), "diluted": diluted(true)}
    yield LOSS.shows(statement, diluted(true) < masked(true), shown, ".657 and .578 on the course's text", **floors)
    yield one_minibatch(minibatches(true, at.size(20_000, quick=500), at.seed), diluted(true))
    yield draw("loss", *panels(learned, masked(true)))


def one_minibatch(floor: Floats, mean: float) -> Claim:
    """E11, given losses of minibatches of 4 under the truth itself."""
    low, high = (float(x) for x in np.quantile(floor, (0.025, 0.975)))
    shown = f"at the floor of {mean:.4f} one of 4 sentences has {low:.4f} to {high:.4f} in 95 % of cases"
    statement = "the loss of the last minibatch is the loss of the model, to within .01"
    return E11.shows(statement, high - low < 0.02, shown, f"loss {PRINTED_LOSS}", low=low, high=high, floor=mean)


def panels(learned: Learned, floor: float) -> tuple[Panel, Panel]:
    """The loss of every minibatch, and the probabilities after the first prompt, over the steps."""
    prompt, steps = next(iter(PROMPTS)), list(learned.watched)
    true = learned.sentences.truth(ids_of(learned.tokenizer, prompt))[-1]
    best = np.argsort(-np.where(true > 0, true, learned.watched[steps[-1]] * 1e-9))[:3].tolist()
    curves = {learned.tokenizer.token(id): (steps, [learned.watched[s][id] for s in steps]) for id in best}
    marks = {"true": [float(true[id]) for id in best]}
    n = range(1, len(learned.losses) + 1)
    left = lines({"minibatch": (n, learned.losses)}, {"floor": floor}, xlabel="step", ylabel="loss, nats per token")
    return left, lines(curves, marks, xlabel="step", ylabel=f'probability after "{prompt}"')


# --------------------------------------------------------------------------------------------------------------- text


def written(learned: Learned, prompt: str, temperature: float) -> list[TokenTrace]:
    """The greedy continuation; each probability at this temperature and at 1, beside the true one."""
    known, positions = list(ids_of(learned.tokenizer, prompt)), list[Position]()
    for new in decode(learned.model, known, N_TOKENS, SamplingConfig(temperature=0), 0):
        drawn = adjust(new.logits_V, SamplingConfig(temperature=temperature))
        positions.append(replace(new, probabilities_V=drawn, true_V=learned.sentences.truth(known)[-1]))
        known.append(new.id)
    return list(describe(learned.tokenizer, positions, TOP))


def greedy(learned: Learned, texts: Mapping[str, Sequence[TokenTrace]]) -> Findings:
    """001-2.2: temperature and a greedy text."""
    n, samplings = 0, [SamplingConfig(temperature=t, top_k=1) for t in TEMPERATURES]
    for prompt, tokens in texts.items():
        ids = ids_of(learned.tokenizer, prompt)
        found = {tuple(p.id for p in decode(learned.model, ids, N_TOKENS, each, 0)) for each in samplings}
        n += found == {tuple(token.id for token in tokens)}
    said = "; ".join(repr(text_of(learned, prompt, tokens)) for prompt, tokens in texts.items())
    shown = f"{n} of {len(texts)} texts are the same at {', '.join(map(str, TEMPERATURES))}: {said}"
    statement = "a greedy text does not depend on the temperature"
    yield TEXT.shows(statement, n == len(texts), shown, "'He and I can hold a dog. cat. cat and dog'", same=n)


def text_of(learned: Learned, prompt: str, tokens: Sequence[TokenTrace]) -> str:
    """Prompt and continuation."""
    return learned.tokenizer.decode([*ids_of(learned.tokenizer, prompt), *(token.id for token in tokens)])


def tail(at: Setting, learned: Learned) -> Findings:
    """E12: what was never trained, and what an end mark changes."""
    model, train = learned.model, learned.sentences.train
    stop, context = ids_of(learned.tokenizer, ".")[0], model.config.context_length
    read, before = as_batch(train), gpt_nano(learned.tokenizer.vocab_size, context, at.seed)
    n, total = int((read.ids[read.targets >= 0] == stop).sum()), read.n_targets
    yield E12.shows("no full stop is ever read in training: nothing after it is learned", n == 0,
                    f"{n} of {total:,} inputs", full_stops=n)  # fmt: skip
    turned = angle(before.embedding.weight[stop], model.embedding.weight[stop])
    other = angle(before.embedding.weight[train[0][0]], model.embedding.weight[train[0][0]])
    shown = f"its embedding has turned by {turned:.2f} degrees, that of {learned.tokenizer.token(train[0][0])!r} by "
    yield E12.shows("so what it reads there is as random as at the start", turned < 0.1 < other,
                    f"{shown}{other:.1f}", stop=turned, first=other)  # fmt: skip
    longest = read.ids.shape[1]
    shown = f"{longest} positions are trained; the context is {context}, and what is older is cut off"
    yield E12.shows("the last position of the context is never trained", longest < context, shown, longest=longest)
    yield from with_end_marks(at, learned, stop)


def with_end_marks(at: Setting, learned: Learned, stop: int) -> Findings:
    """The same model on the same sentences, each with an end mark, against the one without."""
    end = learned.tokenizer.end_id
    assert end is not None
    marked = [(*ids, end) for ids in learned.sentences.train]
    model, steps = gpt_nano(learned.tokenizer.vocab_size, max(map(len, marked)), at.seed), at.size(250, quick=25)
    for done, _ in enumerate(train_on(model, marked, steps, at.seed), start=1):
        yield Progress("training with end marks", done, steps)
    sentence = next(ids for ids in learned.sentences.judged if ids[-1] == stop)
    without, ends = (float(softmax(next_logits(each, sentence))[end]) for each in (learned.model, model))
    shown = f"probability {ends:.4f} after {learned.tokenizer.decode(sentence)!r}; without end marks {without:.1e}"
    yield E12.shows("trained with an end mark, a model ends where the sentence does", ends > SURE > without, shown,
                    ends=ends, without=without)  # fmt: skip


def angle(a: Tensor, b: Tensor) -> float:
    """Between two vectors, in degrees."""
    a, b = a.detach().double(), b.detach().double()
    return float(torch.rad2deg(torch.atan2((a - (a @ b) / (b @ b) * b).norm(), (a @ b) / b.norm())))


# ------------------------------------------------------------------------------------------------------ probabilities


def each_probability(learned: Learned, texts: Mapping[str, Sequence[TokenTrace]]) -> Findings:
    """001-2.3 and E13: as sampled, at temperature 1, and the truth."""
    for prompt, tokens in texts.items():
        rows = [(token.text, token.probability, token.probability_1, token.true_probability) for token in tokens]
        title = f'After "{prompt}": each token\'s probability'
        yield table(title, ("token", f"at T {PROMPTS[prompt]}", "at T 1", "true"), rows)
    gaps = [gap for p, tokens in texts.items() for gap in tempered_gaps(tokens, PROMPTS[p])]
    statement = "what is printed with a temperature is p^(1/T) over its sum, not what the model believes"
    yield EACH.equal(statement, gaps)
    again = np.array(ROW_1) ** PROMPTS["He and I"]
    gap = np.abs(again / again.sum() - np.array((*AT_1, *(again / again.sum())[3:]))).max()
    yield E13.equal("the source's .516 .3306 .1488 at T .8 are .478 .335 .177 at T 1", gap, 1e-3, printed=".516")
    yield wandering(learned)


def tempered_gaps(tokens: Sequence[TokenTrace], temperature: float) -> list[float]:
    """How far the ratios of the alternatives' probabilities are from those at temperature 1, to the power 1/T."""
    gaps = []
    for token in tokens:
        a, b = token.alternatives[:2]
        assert a.probability is not None
        assert b.probability is not None
        gaps.append(abs(b.probability / a.probability - (b.probability_1 / a.probability_1) ** (1 / temperature)))
    return gaps


def wandering(learned: Learned) -> Claim:
    """E13: how far one probability moves in the last third of the training."""
    steps = list(learned.watched)
    final = learned.watched[steps[-1]]
    id, third = int(final.argmax()), [learned.watched[s] for s in steps[2 * len(steps) // 3 :]]
    low, high = (float(f([row[id] for row in third])) for f in (min, max))
    shown = f"{learned.tokenizer.token(id)} has {low:.4f} to {high:.4f} in the last third of one training"
    statement = "the last third of a training moves one probability by more than lies between .5568 and .516"
    return E13.shows(statement, high - low > 0.5568 - 0.516, shown, ".5568 and .516", low=low, high=high)


def top_six(learned: Learned, texts: Mapping[str, Sequence[TokenTrace]]) -> Findings:
    """001-2.4: the six most probable tokens of each step, and the first steps against the truth."""
    for prompt, tokens in texts.items():
        rows = [[f"{i + 1}", *(cell(token.alternatives[i]) for token in tokens)] for i in range(TOP)]
        heads = ("", *(f"{n}: {token.text}" for n, token in enumerate(tokens, start=1)))
        yield table(f'After "{prompt}": the top six at T {PROMPTS[prompt]}', heads, rows)
        for n, token in enumerate(tokens[:2]):
            if token.true_probability is not None:
                yield against_truth(text_of(learned, prompt, tokens[:n]), token)


def cell(one: Alternative) -> str:
    """A token and its probability."""
    return f"{one.text} {one.probability or 0:.4f}"


def against_truth(said: str, token: TokenTrace) -> Claim:
    """Whether the most probable tokens at one step are those that the text has there, and about as probable."""
    assert token.total_variation is not None
    true = {one.text: one.true_probability for one in token.alternatives if one.true_probability}
    own = {one.text: one.probability_1 for one in token.alternatives[: len(true)]}
    shown = f"{text(own)}; true are {text(true)}; apart by {token.total_variation:.4f} in total variation"
    holds = own.keys() == true.keys() and token.total_variation < NEAR
    statement = f'after "{said}" the most probable tokens are those that the text has there'
    return SIX.shows(statement, holds, shown, total_variation=token.total_variation, own=own, true=true)


def one_call(learned: Learned, texts: Mapping[str, Sequence[TokenTrace]]) -> Findings:
    """001-2.5: the tokens with their probabilities, against one forward pass over the finished text."""
    gaps, products, context = [], [], learned.model.config.context_length
    for prompt, tokens in texts.items():
        ids = [*ids_of(learned.tokenizer, prompt), *(token.id for token in tokens)]
        again = [
            float(log_softmax(next_logits(learned.model, ids[max(0, end - context) : end]))[ids[end]])
            for end in range(len(ids) - N_TOKENS, len(ids))
        ]
        product = math.prod(token.probability_1 or 0.0 for token in tokens)
        products.append(f"{product:.3g}")
        gaps.append(abs(math.log(product) - math.fsum(again)))
    shown = f"probabilities of the texts: {', '.join(products)}; logarithms"
    statement = "one call gives tokens, probabilities and alternatives; the product is the probability of the text"
    yield CALL.equal(statement, gaps, 1e-4, shown=shown)
