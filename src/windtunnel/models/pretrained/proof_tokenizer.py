"""The evidence that a tokenizer is the one in a Hugging Face folder: transformers encodes the same texts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from windtunnel.errors import DataError
from windtunnel.files import read_given
from windtunnel.models.pretrained.huggingface import TOKENIZER_FILES
from windtunnel.models.pretrained.marks import CHAT, LARGEST
from windtunnel.text.hf_library import Library
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.text.vocab_files import BESIDE

TEXTS = (
    "The wind tunnel was built before the aeroplane flew.",
    " a space first,  two in the middle and one at the end ",
    "def f(x):\n    if x:\n        return 10 + 2345\n\n\n\t# done",
    "naïve 日本語 🙂 don't WON'T",
)
FILES = (*TOKENIZER_FILES, "merges.txt", "vocab.bpe", "vocab.txt", *BESIDE)


class SameIds(NamedTuple):
    """How many texts have been encoded by both, and the first that the two encode differently, or what hindered."""

    n_texts: int
    difference: str


def compare_tokenizers(source: Path, tokenizer: Tokenizer, config: str, begins: bool) -> SameIds:
    """Encode a handful of texts with ours and with transformers' tokenizer of the same folder.

    Texts that ours refuses are left out; some hold the tokens that were added to the vocabulary.

    Args:
        config: what transformers sees as config.json.
        begins: whether what is put in front of a text is compared, too.
    """
    try:
        theirs = _load(source, config)
    except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        return SameIds(0, f"transformers cannot read it ({' '.join(str(error).split())[:160]})")
    n_texts = 0
    for text in (*TEXTS, *(f"a {token} b" for token in tokenizer.added[:4])):
        try:
            ours = tokenizer.encode(text).tolist()
        except DataError:
            continue
        n_texts += 1
        with Library("encode a text in transformers"):
            encoded = [
                theirs(text, add_special_tokens=special, verbose=False)["input_ids"] for special in (False, True)
            ]
            plain, whole = map(list, encoded)
        front = list(tokenizer.front)
        if plain != ours:
            return SameIds(n_texts, f"{text!r} is {_shown(ours)} here and {_shown(plain)} there")
        if begins and whole[: len(front) + len(ours)] != front + ours:
            return SameIds(n_texts, f"a text begins with {_shown(front)} here and as {_shown(whole)} there")
    return SameIds(n_texts, "")


def _load(source: Path, config: str) -> Any:
    """transformers' tokenizer of the folder; it sees nothing that could load code."""
    import transformers

    with tempfile.TemporaryDirectory() as plain, Library("read this tokenizer in transformers"):
        (Path(plain) / "config.json").write_text(config, encoding="utf-8")
        for name in FILES:
            if (source / name).exists() and name != CHAT:
                (Path(plain) / name).symlink_to((source / name).resolve())
        if (source / CHAT).exists():
            told = json.loads(read_given(source / CHAT, LARGEST))
            kept = {name: value for name, value in told.items() if name not in ("auto_map", "chat_template")}
            (Path(plain) / CHAT).write_text(json.dumps(kept), encoding="utf-8")
        return transformers.AutoTokenizer.from_pretrained(plain, local_files_only=True, trust_remote_code=False)


def _shown(ids: list[int]) -> str:
    return f"{ids[:12]}"[:-1] + (", …]" if len(ids) > 12 else "]")
