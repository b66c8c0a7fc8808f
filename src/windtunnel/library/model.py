"""A trained model in one's hands: ask it, look inside, judge it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.config import parse
from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.opening import opening
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import Trace, corpus_truth, trace
from windtunnel.generation.translate import Translated, translate
from windtunnel.inspect.attention import AttentionMap, attention
from windtunnel.inspect.classification import predict
from windtunnel.inspect.lens import Attribution, attribution, gradients, lens
from windtunnel.inspect.search import Search, open_gallery, search
from windtunnel.inspect.sites import ablated, head_site, patched, recorded, site_names
from windtunnel.library.settings import PathLike
from windtunnel.models import Model as Module
from windtunnel.runs.seeds import evaluate_on, find_run
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training import run
from windtunnel.training.change import Named
from windtunnel.training.events import Evaluation
from windtunnel.training.exports import export_run
from windtunnel.training.run_config import RunConfig

READ_MORE = {
    "pair": "a source and a target; ask it by translate(source)",
    "captioned": "pictures and captions; ask it by search(words)",
}


def load(name: PathLike = "last", change: Named | None = None) -> Model:
    """The newest model of a run; every file of its folder is checked first.

    Args:
        name: a run folder, its name below ./runs, or "last", the newest; of several seeds it is the first.
        change: what the run was begun with, where its model was altered in Python.

    Raises:
        ArtifactError: when there is no such run, nothing of it has been saved, or a file was altered.

    >>> wt.load("last").step
    20
    """
    trained = run.load(find_run(str(name)), change)
    for warning in trained.warnings:
        warnings.warn(warning, stacklevel=2)
    return Model(trained)


@dataclass(frozen=True, repr=False)
class Model:
    """A model as it was saved, in float32 and evaluation mode, with its tokenizer and settings.

    T is the number of tokens of a text, with the end mark that stands before a document; V is the vocabulary.

    >>> model = wt.load("last")
    >>> model.logits("anna").shape
    (5, 27)
    """

    trained: run.TrainedModel

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.trained.run.folder

    @property
    def step(self) -> int:
        """After how many optimizer steps it was saved."""
        return self.trained.step

    @property
    def config(self) -> RunConfig:
        """The settings of the run."""
        return self.trained.run.config

    @property
    def module(self) -> Module:
        """The torch module: `module(ids_BT)` gives logits (B, T, V)."""
        return self.trained.model

    @property
    def tokenizer(self) -> Tokenizer:
        """`encode(text)` gives ids, `decode(ids)` the text."""
        return self.trained.tokenizer

    def generate(
        self,
        prompt: str = "",
        tokens: int = 64,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: tuple[str, ...] = (),
        alternatives: int = 6,
        chat: bool = False,
    ) -> Trace:
        """Continue a prompt: `str()` of the result is the text, its `tokens` have each token's probability.

        Args:
            prompt: "" begins a new document.
            tokens: how many to add at most.
            temperature: 0 is greedy.
            top_k, top_p: sample only among the k most probable tokens; among those that make up this probability.
            seed: the same seed gives the same text.
            stop: the text ends before the first of these.
            alternatives: how many of the most probable tokens are kept at each position.
            chat: whether the prompt is a message, to be put into the model's own chat template.

        Raises:
            ConfigError: for a model that does not write, or a number out of range.
            DataError: for a character without a token.

        >>> str(wt.load("last").generate("an", tokens=4, seed=1)).startswith("an")
        True
        """
        sampling = parse(SamplingConfig, {"temperature": temperature, "top_k": top_k, "top_p": top_p})
        request = Request(prompt, tokens, sampling, seed, alternatives, tuple(stop), chat)
        return trace(self.trained, request, corpus_truth(self.trained))

    def trace(self, text: str, alternatives: int = 6) -> Trace:
        """Every token of a text with its probability, rank and surprise in bits, and what else was probable.

        >>> [token.text for token in wt.load("last").trace("anna").tokens]
        ['a', 'n', 'n', 'a']
        """
        return self.generate(text, 0, alternatives=alternatives)

    def logits(self, text: str) -> npt.NDArray[np.float32]:
        """The logits (T, V) of the token after each token of a text; a document begins with its end mark.

        Raises:
            ConfigError: for a model that reads more than one text.
            DataError: for a character without a token, or an empty text where there is no end mark.

        >>> wt.load("last").logits("anna").shape
        (5, 27)
        """
        if (model := self.config.model).reads in READ_MORE:
            raise ConfigError(
                f"logits needs a model of one text, and this {model.family} reads {READ_MORE[model.reads]}"
            )
        with torch.no_grad():
            logits_1TV = self.module(torch.tensor([self.ids(text)], device=next(self.module.parameters()).device))
        return np.asarray(logits_1TV[0].float().cpu().numpy())

    def attention(self, text: str) -> AttentionMap:
        """The attention weights (n_layers, n_heads, T, T) on a text.

        Raises:
            ConfigError: for a model without attention.
            DataError: for a text that is longer than the model's context.

        >>> wt.load("last").attention("anna").weights.shape
        (1, 4, 5, 5)
        """
        return attention(self.module, self.ids(text))

    def ids(self, text: str) -> list[int]:
        """The ids (T,) that the model reads for a text: a document begins with its end mark.

        >>> wt.load("last").ids("anna")
        [0, 1, 14, 14, 1]
        """
        return opening(self.trained, Request(text, 0)).ids

    def evaluate(self, split: str = "dev", corpus: PathLike | None = None) -> Evaluation:
        """The scores on the whole of a split, train, dev or test, of the run's corpus or of another one.

        Args:
            split: of another corpus also "all", the whole of it.

        Raises:
            ConfigError: for a split that there is not, or a run without a corpus.

        >>> wt.load("last").evaluate("dev").n_tokens
        11383
        """
        return evaluate_on(self.trained, split, None if corpus is None else str(corpus))

    def sites(self) -> list[str]:
        """The names of all that can be recorded and changed; see `windtunnel.inspect.sites`.

        >>> wt.load("last").sites()[:3]
        ['dropout', 'dropout.in', 'blocks.0']
        """
        return site_names(self.module)

    @contextmanager
    def record(self, *sites: str) -> Iterator[dict[str, Tensor]]:
        """While this lasts, the values at sites by name, as the last pass had them: (B, ...) each.

        Args:
            sites: names in which * stands for anything: "blocks.*.resid", "blocks.0.attention.pattern".

        Raises:
            ConfigError: for a name that no site has, naming the nearest.

        >>> model = wt.load("last")
        >>> with model.record("blocks.*.resid") as seen:
        ...     _ = model.logits("anna")
        >>> seen["blocks.0.resid"].shape[:2]
        torch.Size([1, 5])
        """
        with recorded(self.module, sites) as seen:
            yield seen

    @contextmanager
    def ablate(self, *sites: str, head: tuple[int, int] | None = None) -> Iterator[None]:
        """While this lasts, the values at these sites are zero: `evaluate`, `logits`, `generate` do without them.

        Args:
            sites: as in `record`.
            head: (block, head), both from 0 as in the names of sites: what this head hands on.

        Raises:
            ConfigError: for a site or a head that there is not.

        >>> model = wt.load("last")
        >>> with model.ablate(head=(0, 1)):
        ...     without = model.evaluate().loss
        """
        with ablated(self.module, [*sites, *([head_site(*head)] if head is not None else [])]):
            yield

    @contextmanager
    def patch(self, site: str, text: str, positions: Sequence[int] | None = None) -> Iterator[None]:
        """While this lasts, the value at a site is the one that it has on this text.

        Args:
            positions: of which tokens (see `ids`); None is all, and then both texts need the same number of tokens.

        Raises:
            ConfigError: for a site that there is not.
            DataError: for a pass of other tokens than the text has.

        >>> model = wt.load("last")
        >>> with model.patch("blocks.0.resid", "anna"):
        ...     patched = model.logits("lisa")
        >>> patched.shape
        (5, 27)
        """
        with self.record(site) as seen:
            self.logits(text)
        with patched(self.module, seen, positions):
            yield

    def lens(self, text: str) -> npt.NDArray[np.float32]:
        """The logits (n_layers + 1, T, V) of a model that ends before the first block, and after each of them.

        Raises:
            ConfigError: for a model that is no transformer.

        >>> wt.load("last").lens("anna").shape
        (2, 5, 27)
        """
        return np.asarray(lens(self.module, self.ids(text)).float().cpu().numpy())

    def attribution(self, text: str, token: str | None = None, position: int = -1) -> Attribution:
        """What each head and layer adds to the logit of a token after the text, or after its token at `position`.

        Args:
            token: None is the most probable one.

        Raises:
            ConfigError: for a model that is no transformer, or normed after its sums.
            DataError: for a text as `token` that is not one token.

        >>> sorted(wt.load("last").attribution("ann", "a").parts)[:2]
        ['bias', 'blocks.0.attention']
        """
        ids = [] if token is None else [int(id) for id in self.tokenizer.encode(token)]
        if token is not None and len(ids) != 1:
            raise DataError(f"expected one token, given {token!r}, which is {len(ids)}")
        return attribution(self.module, self.ids(text), ids[0] if ids else None, position)

    def gradients(self, text: str) -> npt.NDArray[np.float32]:
        """The gradient (T, D) of the text's loss in nats by what each token enters the first block with.

        Raises:
            ConfigError: for a model that is no transformer.

        >>> wt.load("last").gradients("anna").shape
        (5, 64)
        """
        return np.asarray(gradients(self.module, self.ids(text)).float().cpu().numpy())

    def translate(self, text: str, beam: int = 1, alternatives: int = 1) -> list[Translated]:
        """The target of each source in a text, of a run that was trained on pairs.

        Raises:
            ConfigError: for a run that does not translate.

        >>> seeds = wt.train("pig-latin-small", steps=2, train__threads=1, out="translator", progress=False)
        >>> len(seeds[0].translate("the air"))
        2
        """
        return translate(self.trained, text, beam, alternatives)

    def classify(self, text: str) -> dict[str, float]:
        """The probability of each label, the most probable first, of a run that was trained on texts with labels.

        Raises:
            ConfigError: for a run that does not classify.
        """
        labels = self.trained.run.record.get("labels")
        if labels is None:
            raise ConfigError(f"{self.folder} is no classifier; train one: wt.train(TABLE, start={str(self.folder)!r})")
        [found] = predict(self.trained, [text]).tolist()
        return dict(sorted(zip(labels, found, strict=True), key=lambda one: -one[1]))

    def search(self, text: str, pictures: PathLike | None = None, top: int = 8, split: str | None = None) -> Search:
        """The pictures that a text fits best, of a run that was trained on pictures with captions.

        Args:
            pictures: a folder; what the model makes of its pictures is kept in the cache. None is the run's own corpus.
            split: of that; None is test, or dev where there is no test.

        Raises:
            ConfigError: for a run that finds no pictures, and an empty text.
            DataError: for a folder without pictures.
        """
        gallery = open_gallery(self.trained, None if pictures is None else Path(pictures), split)
        return search(self.trained, text, gallery, top)

    def export(self, folder: PathLike, format: str = "hf") -> tuple[str, ...]:
        """Write the model as transformers ("hf") or llama.cpp ("gguf") reads it; what is worth saying of it.

        Raises:
            ConfigError: for a folder that is not empty, or a model that the format cannot hold.

        >>> wt.load("last").export("model-for-transformers")
        ('gpt2 has more biases: they were written as zeros, which gives the same logits',)
        """
        return export_run(self.folder, Path(folder), format)

    def __repr__(self) -> str:
        config = self.config
        n = sum(parameter.numel() for parameter in self.module.parameters())
        return f"Model({self.folder}: {config.model.family}, {n:,} parameters, step {self.step}, seed {config.seed})"
