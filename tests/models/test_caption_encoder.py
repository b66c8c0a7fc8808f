"""A tower of captions that was trained before, MiniLM: its weights, its statistics, its tokens."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from shapes import shapes_corpus
from windtunnel.errors import ConfigError, DataError
from windtunnel.models import CLIPConfig, build
from windtunnel.models.captions import CaptionEncoder, CaptionEncoderConfig
from windtunnel.models.vectors import CaptionVectorsConfig
from windtunnel.models.vision import ConvolutionalConfig, load_trained
from windtunnel.nn.attention import attend
from windtunnel.tasks import ContrastiveConfig
from windtunnel.tasks.vectors import _minilm, caption_vectors, captions_of
from windtunnel.text.store import TextConfig, prepare

TEXTS = ["red fish", "a very large black square with a name", "pilot"]
SMALL = ConvolutionalConfig(size=16, widths=(8,))


def users_cache():
    """The cache of the person who runs the tests; the tests' own is empty."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "windtunnel"


@pytest.fixture
def minilm(tmp_path, monkeypatch):
    """The real MiniLM, where the person who runs the tests has fetched it."""
    if not (users_cache() / "models" / "minilm-l6").exists():
        pytest.skip("MiniLM is not on this machine; get it: windtunnel models get minilm-l6")
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    (tmp_path / "models").symlink_to(users_cache() / "models")
    _minilm.cache_clear()
    yield str(tmp_path / "models" / "minilm-l6")
    _minilm.cache_clear()


def test_it_begins_as_the_encoder_that_was_trained(minilm):
    store = prepare(shapes_corpus(), TextConfig(tokenizer=minilm))
    config = CLIPConfig(vocab_size=30522, context_length=24, picture=SMALL, caption=CaptionEncoderConfig())
    model = build(ContrastiveConfig().sized(config, store), 0).eval()
    frozen = CLIPConfig(picture=SMALL, caption=CaptionVectorsConfig())
    read = captions_of(config, store.tokenizer, TEXTS)
    with torch.no_grad():
        found = model.caption(read["ids"], read["kept"], attend)
    np.testing.assert_allclose(found.numpy(), caption_vectors(TEXTS, frozen), atol=1e-5)


def test_its_vectors_are_brought_to_the_scale_of_training():
    trunk = CaptionEncoderConfig().trunk.replace(n_layers=1, n_heads=2, d_model=8, d_ff=16)
    config = CaptionEncoderConfig(pretrained=False, trunk=trunk).sized(50, 12)
    tower = CaptionEncoder(config).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    ids = torch.randint(50, (40, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tower.settle(ids)
        made = tower(ids, None, attend)
    torch.testing.assert_close(made.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.std(0, correction=0), torch.ones(8), atol=1e-3, rtol=0)


def test_other_tokens_are_refused_and_what_was_not_fetched_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    config = CLIPConfig(picture=SMALL, caption=CaptionEncoderConfig())
    store = prepare(shapes_corpus(), TextConfig(tokenizer="characters"))
    with pytest.raises(ConfigError, match=r"reads the tokens of minilm-l6, and these are others; give --set text"):
        ContrastiveConfig().sized(config, store)
    with pytest.raises(DataError, match="windtunnel models get minilm-l6"):
        build(config.replace(vocab_size=30522), 0)


def test_weights_that_lack_one_are_refused_and_only_the_last_norm_may_be_missing():
    trunk = CaptionEncoderConfig().trunk.replace(n_layers=1, n_heads=2, d_model=8, d_ff=16)
    tower = CaptionEncoder(CaptionEncoderConfig(pretrained=False, trunk=trunk).sized(50, 12))
    weights = {name: torch.ones_like(tensor) for name, tensor in tower.state_dict().items() if "norm." not in name[:5]}
    load_trained(tower, weights)
    assert (tower.trunk.embedding.weight == 1).all()
    assert tower.norm.mean.tolist() == [0.0] * 8
    del weights["trunk.embedding.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"trunk\.embedding\.weight\""):
        load_trained(tower, weights)
