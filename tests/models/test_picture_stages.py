"""EfficientNet-Lite0: its shape by the paper, and, where its weights were fetched, what it sees in pictures."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from windtunnel.errors import ArtifactError, DataError
from windtunnel.inspect.cost import count_forward_flops
from windtunnel.models import CLIPConfig, build
from windtunnel.models.efficientnet import LAST_BLOCKS, STAGES, EfficientNetConfig, convolutions
from windtunnel.models.pretrained.catalogue import LITE0
from windtunnel.models.pretrained.efficientnet import lite0_file, lite0_weights
from windtunnel.models.vectors import WIDTHS
from windtunnel.nn.attention import attend
from windtunnel.text.corpora import open_corpus


@pytest.fixture
def fetched(monkeypatch):
    """The cache of the person who runs the tests, which is only read, where the weights are there."""
    base = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(base / "windtunnel"))
    lite0_file.cache_clear()
    if not LITE0.path.exists():
        pytest.skip("the weights are not on this machine; get them: windtunnel models get efficientnet-lite0")


RANDOM = EfficientNetConfig(size=64, pretrained=False)


def test_it_has_the_size_of_the_paper():
    """4.7 million parameters with the 1,281,000 of ImageNet's classes; 407 million multiplications at 224 pixels."""
    config = EfficientNetConfig(pretrained=False)
    n = sum(row.n_parameters for row in config.parameter_rows())
    assert n + 1280 * 1000 + 1000 == pytest.approx(4_652_008, abs=1)
    assert config.flops_by_part()["net"] / 2 == pytest.approx(407e6, rel=0.06)
    assert sum(c.side > 1 for c in convolutions()) == 17  # the stem and one of each of 16 blocks


def test_its_formulas_and_flops_are_those_of_the_module():
    config = CLIPConfig(vocab_size=20, context_length=4, picture=RANDOM)
    assert config.n_parameters() == sum(p.numel() for p in config.create().parameters())
    assert sum(config.flops_by_part(4).values()) == count_forward_flops(config, 4)


def test_a_picture_does_not_depend_on_those_beside_it_and_every_weight_is_trained():
    model = build(CLIPConfig(vocab_size=20, context_length=4, picture=RANDOM), 0).train()
    seen = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = model.picture(seen, attend)
    alone = torch.cat([model.picture(seen[i : i + 1], attend) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    together.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.picture.parameters())


def test_stages_are_the_means_of_what_the_last_three_end_with_and_the_vector():
    config = EfficientNetConfig(size=32, pretrained=False)
    net, draw = config.create(), torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        std = config.std(name, parameter)
        if std is not None:
            torch.nn.init.normal_(parameter, std=std, generator=draw)
    for module in net.modules():
        if hasattr(module, "variance"):
            module.variance.fill_(1.0)
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        found = net.stages(torch.rand(2, 3, 32, 32, generator=draw))
        assert [len(one[0]) for one in (seen[i - 1] for i in LAST_BLOCKS)] == [stage[0] for stage in STAGES[-3:]]
        assert LAST_BLOCKS[-1] == len(net.blocks)
        assert found.shape == (2, WIDTHS["efficientnet-lite0-stages"])
        ends = torch.cat([seen[i - 1].mean((2, 3)) for i in LAST_BLOCKS], 1)
        torch.testing.assert_close(found[:, : ends.shape[1]], ends)
        pictures = torch.rand(2, 3, 32, 32, generator=draw)
        torch.testing.assert_close(net.stages(pictures)[:, ends.shape[1] :], net(pictures, attend))


def test_its_weights_are_those_of_the_file(fetched):
    model = build(CLIPConfig(vocab_size=20, context_length=4, picture=EfficientNetConfig()), 3)
    named, file = lite0_weights(), lite0_file()
    assert {name: t.shape for name, t in named.items()} == {n: t.shape for n, t in model.picture.state_dict().items()}
    assert torch.equal(model.picture.stem.weight, file["_conv_stem.weight"])
    assert torch.equal(model.picture.blocks[3].project.gain, file["_blocks.3._bn2.weight"])
    assert torch.equal(model.picture.head.variance, file["_bn1.running_var"])


@pytest.mark.parametrize(
    ("caption", "label", "among"), [("umbrella", 879, 1), ("violin", 889, 2), ("accordion", 401, 5)]
)
def test_it_knows_what_an_emoji_shows(fetched, caption, label, among):
    """By the numbers of ImageNet's classes: a drawn umbrella is an umbrella."""
    corpus = open_corpus("emoji")
    try:
        names = {line.split("\t")[1]: line.split("\t")[0] for line in corpus.read()}
    except DataError as error:
        pytest.skip(str(error))
    picture = torch.from_numpy(corpus.pictures.draw(names[caption], 224)).permute(2, 0, 1)[None]
    file, model = lite0_file(), build(CLIPConfig(picture=EfficientNetConfig()), 0).eval()
    with torch.no_grad():
        logits = model.picture(picture, attend) @ file["_fc.weight"].T + file["_fc.bias"]
    assert label in logits.topk(among).indices[0].tolist()


def test_a_file_that_is_another_one_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    lite0_file.cache_clear()
    with pytest.raises(DataError, match="models get efficientnet-lite0"):
        lite0_file()
    LITE0.path.parent.mkdir(parents=True)
    LITE0.path.write_bytes(b"\0" * LITE0.members[0].size)
    assert hashlib.sha256(LITE0.path.read_bytes()).hexdigest() != LITE0.members[0].sha256
    with pytest.raises(ArtifactError, match="was altered"):
        lite0_file()
    LITE0.path.write_bytes(b"short")
    with pytest.raises(ArtifactError, match="truncated or altered"):
        lite0_file()
