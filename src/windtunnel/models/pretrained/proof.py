"""The evidence that a model is the one in a Hugging Face folder: transformers runs it beside ours."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.errors import ArtifactError, DataError, MissingExtra
from windtunnel.models.encoder import Encoder
from windtunnel.models.pretrained.architectures import ARCHITECTURES
from windtunnel.models.pretrained.encoders import ENCODERS
from windtunnel.models.pretrained.huggingface import known_config, link_what_computes
from windtunnel.models.pretrained.proof_tokenizer import SameIds, compare_tokenizers
from windtunnel.models.transformer import Transformer
from windtunnel.text.tokenizers import Tokenizer

TOLERANCE = 1e-4
"""How far two logits may lie apart: float32 sums in another order."""

FIELDS = {name: one.fields for name, one in ARCHITECTURES.items()} | {
    name: one.fields for name, one in ENCODERS.items()
}
LONGEST = 1024
NOT_COMPARED = SameIds(0, "transformers reads no tokenizer of this source")
TEXT = (
    "The wind tunnel was built before the aeroplane flew. A model of the wing, a hand wide, stood in the stream of "
    "air, and two small balances told what it lifted and what it cost. Some two hundred shapes were measured that way "
    "and written into tables, and the tables that had been trusted before were found to be wrong."
)


@dataclass(frozen=True)
class Proof:
    """Ours and transformers' side by side, in float32 on the same device.

    Attributes:
        max_difference: the largest |difference of two logits|, of an encoder of two numbers of its last vectors, by the
            length of the text that was read.
        loss, loss_transformers: mean cross-entropy in nats per token on a fixed text; None without a tokenizer
            that knows its characters.
        continuation, continuation_transformers: the ids that greedy decoding gives after the same first ids; none of an
            encoder, which writes nothing.
        compared: what `max_difference` is of, where nothing is written.
        tokenizer: on how many texts transformers' tokenizer was compared with ours, and the first difference.
    """

    transformers_version: str
    tolerance: float
    max_difference: dict[int, float]
    loss: float | None
    loss_transformers: float | None
    continuation: tuple[int, ...]
    continuation_transformers: tuple[int, ...]
    tokenizer: SameIds = NOT_COMPARED
    compared: str = "vectors"

    @property
    def holds(self) -> bool:
        """Whether logits and loss agree within the tolerance, and the greedy text and the ids of texts are the same."""
        near = self.loss is None or abs(self.loss - (self.loss_transformers or 0.0)) <= self.tolerance
        same = self.continuation == self.continuation_transformers
        same = same and not (self.tokenizer.n_texts and self.tokenizer.difference)
        return near and same and max(self.max_difference.values()) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "tokenizer": self.tokenizer._asdict(), "holds": self.holds}


def compare_with_transformers(
    model: Transformer | Encoder,
    source: Path,
    tokenizer: Tokenizer | None = None,
    lengths: Sequence[int] | None = None,
    n_tokens: int = 16,
) -> Proof:
    """Run the source's model in transformers and ours on the same ids, drawn at random but always the same.

    Args:
        source: a Hugging Face folder, or a GGUF file.
        lengths: of the texts; None is 1, 2, 17, and the context (at most 1,024) and one less.
        n_tokens: how many tokens are decoded.

    Raises:
        MissingExtra: when transformers is not installed, or for a GGUF file gguf and accelerate.
        ArtifactError: when transformers refuses the source's config or weights.
    """
    transformers = quiet_transformers()
    for package in ("gguf", "accelerate") if source.is_file() else ():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "comparing a GGUF file with transformers")
    context, vocab_size = model.config.context_length, model.config.vocab_size
    longest = min(context, LONGEST)
    lengths = sorted({min(length, context) for length in lengths or (1, 2, 17, max(longest - 1, 1), longest)})
    writes = isinstance(model, Transformer)
    theirs = _load(source, writes).eval().to(model.embedding.weight.device)

    def their_logits(ids_1T: Tensor) -> Tensor:
        logits: Tensor = theirs(ids_1T, use_cache=False).logits if writes else theirs(ids_1T).last_hidden_state
        return logits

    generator = torch.Generator().manual_seed(0)
    ids_1T = torch.randint(vocab_size, (1, lengths[-1]), generator=generator).to(model.embedding.weight.device)
    if not writes:
        ids_1T[ids_1T == 1] = 0  # in a RoBERTa transformers takes this id for padding, wherever it stands
    same_ids = NOT_COMPARED
    if tokenizer is not None and source.is_dir():
        same_ids = compare_tokenizers(source, tokenizer, known_config(source / "config.json", FIELDS), writes)
    with torch.no_grad():
        apart = {n: (model(ids_1T[:, :n]) - their_logits(ids_1T[:, :n])).abs().max().item() for n in lengths}
        if not writes:
            return Proof(transformers.__version__, TOLERANCE, apart, None, None, (), (), same_ids)
        start = min(8, max(context - n_tokens, 1))
        n_tokens = min(n_tokens, context - start)
        return Proof(
            transformers_version=transformers.__version__,
            tolerance=TOLERANCE,
            max_difference=apart,
            loss=_loss(model, tokenizer, longest),
            loss_transformers=_loss(their_logits, tokenizer, longest),
            continuation=_greedy(model, ids_1T[:, :start], n_tokens),
            continuation_transformers=_greedy(their_logits, ids_1T[:, :start], n_tokens),
            tokenizer=same_ids,
        )


def quiet_transformers() -> Any:
    """transformers without its progress bars. Raises MissingExtra when it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra("transformers", "comparing with transformers")
    import transformers

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    return transformers


def _load(source: Path, writes: bool) -> Any:
    """transformers' model of the source's weights, with a head if it writes; it sees nothing that could load code.

    Raises:
        ArtifactError: when transformers refuses them.
    """
    import transformers

    with tempfile.TemporaryDirectory() as plain:
        if source.is_file():
            (Path(plain) / "model.gguf").symlink_to(source.resolve())
            which: dict[str, Any] = {"gguf_file": "model.gguf"}
        else:
            link_what_computes(source, Path(plain), FIELDS)
            which = {"use_safetensors": True}
        kind = transformers.AutoModelForCausalLM if writes else transformers.AutoModel
        return loaded(kind, Path(plain), source, **which)


def loaded(kind: Any, plain: Path, source: Path, **which: Any) -> Any:
    """A class's model of the folder `plain`, in which there is what computes of `source`.

    Raises:
        ArtifactError: when transformers refuses it.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        return kind.from_pretrained(plain, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **which)
    except (StrictDataclassError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:200] or type(error).__name__
        raise ArtifactError(
            f"transformers cannot load the model in {source}, so nothing can be compared ({reason}); "
            "correct its config.json or download it again, or import it with --no-proof"
        ) from None


def _loss(logits: Callable[[Tensor], Tensor], tokenizer: Tokenizer | None, longest: int) -> float | None:
    """Mean cross-entropy of the fixed text's tokens, the first excepted, in nats."""
    try:
        ids_1T = torch.from_numpy(tokenizer.encode(TEXT)[:longest])[None] if tokenizer else None
    except DataError:  # a tokenizer that does not know all of its characters
        return None
    if ids_1T is None or ids_1T.shape[1] < 2:
        return None
    return F.cross_entropy(logits(ids_1T)[0, :-1], ids_1T[0, 1:]).item()


def _greedy(logits: Callable[[Tensor], Tensor], ids_1T: Tensor, n_tokens: int) -> tuple[int, ...]:
    """The most likely continuation, without a cache."""
    start = ids_1T.shape[1]
    for _ in range(n_tokens):
        ids_1T = torch.cat((ids_1T, logits(ids_1T)[:, -1:].argmax(-1)), dim=1)
    return tuple(ids_1T[0, start:].tolist())
