"""Made-up texts of three kinds, two of them rare, whose words tell the kind."""

import numpy as np
import pytest

from windtunnel.labelling.examples import Example

WORDS = {
    "sport": ["goal", "match", "team", "coach", "ball", "league", "win", "player"],
    "money": ["bank", "rate", "bond", "loan", "share", "stock", "price", "yield"],
    "ship": ["port", "cargo", "vessel", "crew", "dock", "sail", "sea", "tanker"],
}
COMMON = ["the", "a", "of", "in", "on", "and", "to", "for", "it", "was", "said", "with"]


def made(n, seed=0, labelled=1.0):
    """Texts of 12 words, 3 of them telling; nine of ten about sport."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(WORDS), n, p=[0.9, 0.06, 0.04])
    texts = [" ".join(rng.permutation([*rng.choice(WORDS[kind], 3), *rng.choice(COMMON, 9)])) for kind in kinds]
    known = rng.random(n) < labelled
    return [
        Example(str(i), text, {"": str(kind)} if there else {})
        for i, (text, kind, there) in enumerate(zip(texts, kinds, known, strict=True))
    ]


@pytest.fixture
def texts():
    return made
