"""What a model makes of texts, one row each; the vectors of its hidden layers are kept in the cache.

The same weights and texts give the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models import Model
from windtunnel.models.encoder import Pool, TextModel, pool
from windtunnel.models.transformer import Transformer
from windtunnel.tasks.classification import Classification
from windtunnel.tasks.vectors import Function, of_texts, read_batches
from windtunnel.text import kept
from windtunnel.text.features import Floats, Ints
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.checkpoint import weights_sha256


def of_split(
    model: Model, function: Function, task: Classification, split: str, chosen: Ints | None = None
) -> npt.NDArray[Any]:
    """A function's rows (N, D) of a split's texts, or the chosen ones, in its order; the model is in evaluation mode
    meanwhile."""

    def batches() -> Iterator[tuple[np.ndarray, Mapping[str, Tensor]]]:
        for batch in task.examples(split).sweep(task.rows, chosen=chosen):
            assert batch.units is not None
            yield batch.units[:, 0].numpy(), batch.inputs

    return read_batches(model, function, batches())


def text_vectors(model: Model, tokenizer: Tokenizer, texts: Sequence[str], how: Pool = "mean") -> Floats:
    """The pooled vectors (N, D) of any texts, from the cache where they are there.

    Args:
        how: which vector stands for a text: the mean of its tokens', its last one's or its first one's.

    Raises:
        ConfigError: for a family without a vector for each token.
        DataError: for a character that the tokenizer does not know, or vectors that are not finite.
    """
    trunk = model.trunk if isinstance(model, TextModel) else model
    if not isinstance(trunk, Transformer) or tokenizer.end_id is None:
        raise ConfigError(
            f"a model of the family {model.config.family} gives no vectors of texts; expected an encoder, a classifier "
            "or a transformer whose tokenizer has an end mark, such as minilm-l6"
        )

    def vectors(ids: Tensor, kept: Tensor) -> Tensor:
        return pool(trunk.hidden(ids, kept=kept), kept, how).float()

    return kept_vectors(
        trunk,
        [how, tokenizer.to_json(), list(texts)],
        (len(texts), trunk.config.d_model),
        lambda: of_texts(trunk, vectors, tokenizer, texts),
    )


def kept_vectors(
    trunk: Transformer, of: Sequence[object], shape: tuple[int, int], computed: Callable[[], npt.NDArray[np.float32]]
) -> Floats:
    """`kept.kept_vectors` of what is decided by a trunk's weights and settings, and by `of`, as JSON holds it."""
    sha256 = weights_sha256({name: t.detach().cpu() for name, t in trunk.state_dict().items()})
    parts = [sha256, trunk.config.model_dump(mode="json"), *of]
    return kept.kept_vectors(parts, shape, computed).astype(np.float64)
