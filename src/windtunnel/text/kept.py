"""Arrays that take long to compute, kept in the cache under a hash of what decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from windtunnel.errors import ArtifactError, DataError
from windtunnel.files import read_file, temporary, write_file
from windtunnel.text.corpora.cache import cache_folder, writing

Vectors = npt.NDArray[np.float32]


def kept_vectors(of: Sequence[object], shape: tuple[int, int], computed: Callable[[], Vectors]) -> Vectors:
    """Vectors (N, D) from the cache, or computed and kept there; a damaged file is computed again.

    Args:
        of: all that decides them, as JSON holds it.

    Raises:
        DataError: when they are not finite.
        SaveError: when the cache cannot be written.
    """
    key = hashlib.sha256(json.dumps(list(of), sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / "features" / f"{key}.safetensors"
    try:
        kept: Vectors = safetensors.numpy.load(read_file(path))["features"]
        if kept.shape == shape and np.isfinite(kept).all():
            return kept
    except (OSError, ArtifactError, SafetensorError, KeyError):  # not there, or damaged
        pass
    found = computed()
    if not np.isfinite(found).all():
        raise DataError(f"{len(found):,} vectors are not finite; the weights of this model cannot be used")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as new:
            write_file(new, safetensors.numpy.save({"features": found}))
            new.rename(path)
    return found
