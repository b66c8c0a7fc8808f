"""Claim: a search over 10,000 pictures answers in less than 0.1 s after the index.

    python -m benchmarks.picture_search RUN [--threads N] [--repeats N] [--pictures N]

The index is made up: random vectors of the width of the run. An answer is the text's vector, all cosines, their
softmax, the best eight, and each of its seven words left out; beside it the cosines and the softmax alone. The claim is
about the run that is given, of the recipe `clip`; a tower of captions as large as CLIP ViT-B/32's, with random weights,
is timed too, and one word, of which nothing is left out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.inspect.search import Gallery, search
from windtunnel.models import build
from windtunnel.models.captions import CaptionTransformerConfig
from windtunnel.models.clip import CLIPConfig
from windtunnel.models.transformer import TransformerConfig
from windtunnel.text.corpora.picture_files import PictureFiles
from windtunnel.training.run import load

CLAIM = "a search over 10,000 pictures, with every word left out once, takes less than 0.1 s after the index"
TEXT = "three fish in front of a coral"
MOST = 0.1
LARGE = CLIPConfig(
    vocab_size=49408,
    context_length=77,
    d_shared=512,
    caption=CaptionTransformerConfig(
        pool="last", trunk=TransformerConfig(n_layers=12, n_heads=8, d_model=512, activation="quick_gelu", dropout=0.0)
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=10_000)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    own = load(asked.run)
    large = replace(own, model=build(LARGE, 0).eval())
    results = []
    for what, trained in {"the run's tower of captions": own, "a tower as CLIP ViT-B/32's": large}.items():
        made = np.random.default_rng(0).standard_normal((asked.pictures, trained.model.config.d_shared), np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        names = tuple(f"{i}.jpg" for i in range(asked.pictures))
        known = frozenset(TEXT.split())
        gallery = Gallery("made up", names, ("",) * asked.pictures, made, PictureFiles(Path()), known)
        rivals = {
            "search": lambda trained=trained, gallery=gallery: search(trained, TEXT, gallery),
            "search for one word": lambda trained=trained, gallery=gallery: search(trained, "fish", gallery),
            "cosines alone": lambda made=made: (scores := np.exp(made @ made[0])) / scores.sum(),
        }
        times = alternate(rivals, asked.repeats)
        results.append(
            {
                "what": f"{asked.pictures:,} pictures, {what}",
                **as_dict(times, *(ratio(times, one, "cosines alone") for one in list(rivals)[:2])),
            }
        )
    document = report(CLAIM, results, asked.repeats)
    document["holds"] = results[0]["milliseconds"]["search"]["median"] < 1e3 * MOST
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
