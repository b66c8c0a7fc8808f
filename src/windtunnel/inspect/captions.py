"""The captions of pictures, and their words."""

from __future__ import annotations

from windtunnel.tasks import Contrastive
from windtunnel.text.store import TokenStore


def main_captions(task: Contrastive, split: str) -> list[str]:
    """The main caption of each picture of a split."""
    texts = list(task.store.documents(split))
    return [texts[i] for i in task.examples(split).main]


def known_words(store: TokenStore) -> frozenset[str]:
    """The words of the captions that are trained on."""
    return frozenset(word for text in store.documents("train") for word in words(text))


def words(text: str) -> list[str]:
    """The words of a caption as they are compared: in small letters, without what stands around them."""
    return [word.strip(".,:;!?()\"'“”‘’") for word in text.lower().split()]
