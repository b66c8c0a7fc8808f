"""Find pictures by words: in the run's own held-out pictures, or in a folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from windtunnel.errors import ConfigError, WindtunnelError
from windtunnel.inspect.captions import known_words, main_captions, words
from windtunnel.inspect.clip_vectors import clip_of, encoded, vectors_of
from windtunnel.inspect.picture_index import Progress, index_folder
from windtunnel.inspect.retrieval import retrieval_of
from windtunnel.models.clip import CLIP
from windtunnel.models.vectors import CaptionVectorsConfig
from windtunnel.text.corpora.picture_files import PictureFiles
from windtunnel.text.kept import Vectors, kept_vectors
from windtunnel.text.pictures import Pictures, drawing_key, drawn_as
from windtunnel.training.checkpoint import weights_sha256
from windtunnel.training.data import check_split
from windtunnel.training.run import TrainedModel


@dataclass(frozen=True)
class Gallery:
    """Pictures that a model has read.

    of: where they are from. captions: the main caption of each, "" where there is none.
    vectors: (N, D), of length 1. n_new, seconds, left_out: as in `Indexed`.
    known: the words of all captions of the run's train split; None where they are not here.
    """

    of: str
    names: tuple[str, ...]
    captions: tuple[str, ...]
    vectors: Vectors = field(repr=False)
    pictures: Pictures = field(repr=False)
    known: frozenset[str] | None = field(default=None, repr=False)
    n_new: int = 0
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hit:
    """A picture that was found. score: scale x cosine; share: softmax of the scores over the whole gallery."""

    name: str
    caption: str
    cosine: float
    score: float
    share: float


@dataclass(frozen=True)
class Search:
    """What words found, the best first.

    words: of each word by how much the score of the first picture falls without it; none of a single word.
    new_words: those that no caption in training had; None where these captions are not here.
    cut: whether the text is longer than the model reads, and its end was left out.
    """

    run: str
    step: int
    text: str
    scale: float
    hits: tuple[Hit, ...]
    words: tuple[tuple[str, float], ...]
    new_words: tuple[str, ...] | None
    cut: bool
    gallery: Gallery


def open_gallery(
    trained: TrainedModel, folder: Path | None = None, split: str | None = None, progress: Progress | None = None
) -> Gallery:
    """The pictures of a folder, or of a split of the run's corpus, as the model reads them; see `index_folder`.

    Args:
        split: of the run's own corpus; None is test, or dev where there is no test.

    Raises:
        ConfigError: for a run that finds no pictures, or has none of its own, and for a split that it has not.
        DataError: when a picture of the run's own, or all of a folder, cannot be read.
    """
    model = clip_of(trained)
    if folder is not None:
        found = index_folder(trained, folder, progress)
        files = PictureFiles(folder, cropped=model.config.picture.cropped)
        known = None
        with suppress(WindtunnelError):  # of an imported run there is no corpus, of another one it may be elsewhere now
            known = known_words(trained.run.store())
        none = ("",) * len(found.names)
        return Gallery(
            str(folder), found.names, none, found.vectors, files, known, found.n_new, found.seconds, found.left_out
        )
    if not trained.run.config.corpus:
        raise ConfigError(f"{trained.run.folder} has no pictures of its own; say in which to search: --pictures FOLDER")
    task = retrieval_of(trained)
    store = task.store
    split = split or ("test" if len(store.splits["test"].ids) else "dev")
    check_split(trained.run.folder, store, split)
    assert store.corpus.pictures is not None
    examples, size = task.examples(split), model.config.picture.size
    names = [store.pictures[place] for place in examples.places]
    pictures = drawn_as(store.corpus.pictures, model.config.picture.cropped)
    of = [weights_sha256(model.state_dict()), split, drawing_key(pictures, names, size)]
    shape = (len(names), model.config.d_shared)
    vectors = kept_vectors(of, shape, lambda: encoded(model, examples.seen(np.arange(len(names)))))
    captions = tuple(main_captions(task, split))
    title = f"the {split} split of {store.corpus.name}"
    return Gallery(title, tuple(names), captions, vectors, pictures, known_words(store))


def search(trained: TrainedModel, text: str, gallery: Gallery, top: int = 8) -> Search:
    """The pictures of a gallery that a text fits best.

    Raises:
        ConfigError: for an empty text.
        DataError: for a character that the model's tokenizer does not know.
    """
    model, said = clip_of(trained), text.split()
    if not said:
        raise ConfigError("the text to search for is empty; expected a few words, e.g. 'a red fish'")
    without = [" ".join(said[:i] + said[i + 1 :]) for i in range(len(said))] if len(said) > 1 else []
    vectors = vectors_of(trained, [" ".join(said), *without])
    cosines = (gallery.vectors @ vectors[0].astype(np.float32)).astype(np.float64)
    scale = model.scale.item()
    shares = np.exp(scale * (cosines - cosines.max()))
    shares /= shares.sum()
    order = np.argsort(-cosines, kind="stable")[:top]
    own = vectors @ gallery.vectors[order[0]].astype(np.float64) * scale
    hits = [
        Hit(gallery.names[i], gallery.captions[i], float(cosines[i]), float(scale * cosines[i]), float(shares[i]))
        for i in order
    ]
    falls = tuple(zip(said, (own[0] - own[1:]).tolist(), strict=True)) if without else ()
    return Search(
        run=str(trained.run.folder),
        step=trained.step,
        text=" ".join(said),
        scale=scale,
        hits=tuple(hits),
        words=falls,
        new_words=None if gallery.known is None else _new(gallery.known, text),
        cut=_is_cut(trained, model, text),
        gallery=gallery,
    )


def _new(known: frozenset[str], text: str) -> tuple[str, ...]:
    """The words of a text that are not known, each once."""
    return tuple(dict.fromkeys(word for word in words(text) if word and word not in known))


def _is_cut(trained: TrainedModel, model: CLIP, text: str) -> bool:
    if isinstance(model.config.caption, CaptionVectorsConfig):
        return False
    return len(trained.tokenizer.encode(" ".join(text.split()))) + 2 > model.config.context_length
