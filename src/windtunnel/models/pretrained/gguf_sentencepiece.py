"""A SentencePiece tokenizer of a GGUF file (tokenizer.ggml.model=llama: Llama 1 and 2, Mistral, TinyLlama) as a BPE.

SentencePiece puts together whichever two neighbours make the token with the highest score (Kudo & Richardson 2018,
arXiv 1808.06226). That is a byte-pair encoding whose merges are all pairs that make a token, by its score. A character
without a token becomes its bytes, and a space is written ▁.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windtunnel.errors import ArtifactError

SPACE = "▁"
_NORMAL, _UNKNOWN = 1, 2


def sentencepiece(
    tokens: Sequence[str], kinds: Sequence[float], scores: Sequence[float], begun: bool, where: object
) -> dict[str, Any]:
    """The parts of a tokenizer.json that say how a text becomes these tokens.

    Args:
        kinds: normal 1, unknown 2, control 3, user's 4, unused 5, a byte 6.
        begun: whether a text gets a space in front.

    Raises:
        ArtifactError: when the scores do not fit the tokens.
    """
    if len(scores) < len(tokens):
        raise ArtifactError(
            f"{where}: {len(tokens):,} tokens and {len(scores):,} scores, by which they are put together"
        )
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    to_space = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    from_space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefix = [{"type": "Prepend", "prepend": SPACE}] * begun
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] * begun
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, from_space]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [to_space, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": _merges(tokens, kinds, scores),
        },
    }


def _merges(tokens: Sequence[str], kinds: Sequence[float], scores: Sequence[float]) -> list[list[str]]:
    """All pairs of tokens that make a third, the one with the highest score first; marks are made of no text."""
    plain = {token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == _NORMAL}
    found = []
    for token, number in plain.items():
        for cut in range(1, len(token)):
            left, right = plain.get(token[:cut]), plain.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[number], left, right))
    return [[tokens[left], tokens[right]] for _, left, right in sorted(found)]
