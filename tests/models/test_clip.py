"""Two towers in one space: their vectors, their temperature, and what a batch and its padding may not change."""

import pytest
import torch
import torch.nn.functional as F

from windtunnel.config import override, parse
from windtunnel.errors import ConfigError
from windtunnel.models import CLIPConfig, TransformerConfig, build
from windtunnel.models.clip import AT_ONCE, CaptionTransformerConfig
from windtunnel.models.vision import ConvolutionalConfig, ViTConfig, patches
from windtunnel.nn.init import stream
from windtunnel.training.run_config import RunConfig

SMALL = TransformerConfig(n_layers=2, n_heads=2, d_model=16, dropout=0.0, causal=False)
TINY = CLIPConfig(
    vocab_size=13,
    context_length=8,
    picture=ViTConfig(size=8, trunk=SMALL),
    caption=CaptionTransformerConfig(trunk=SMALL),
    d_shared=12,
)
NETS = {
    "vit": TINY,
    "class": TINY.replace(picture=ViTConfig(size=8, trunk=SMALL, pool="class")),
    "convolutional": TINY.replace(picture=ConvolutionalConfig(size=8, widths=(4, 8))),
}


def pictures(n, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def captions(n, length=8, seed=1):
    return torch.randint(13, (n, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", NETS)
def test_vectors_are_of_length_one_and_logits_are_scaled_cosines(net):
    model = build(NETS[net], 0).eval()
    seen, ids = pictures(5), captions(3)
    with torch.no_grad():
        of_pictures, of_texts, logits = model.encode_pictures(seen), model.encode_texts(ids), model(seen, ids)
    assert of_pictures.shape == (5, TINY.d_shared if net != "convolutional" else 12)
    torch.testing.assert_close(of_pictures.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(of_texts.norm(dim=1), torch.ones(3))
    assert logits.shape == (3, 1, 5)
    torch.testing.assert_close(logits[:, 0], of_texts @ of_pictures.T / 0.07)
    assert logits.std() > 0.01  # they differ from pair to pair


@pytest.mark.parametrize("net", NETS)
def test_a_whole_split_is_read_in_parts_without_gradients(net):
    """The same vectors, and never more than AT_ONCE pictures in one pass of the tower."""
    model, n = build(NETS[net], 0).eval(), 2 * AT_ONCE + 3
    seen, ids = pictures(n), captions(n)
    sizes = []
    model.picture.register_forward_hook(lambda module, given, made: sizes.append(len(made)))
    with torch.no_grad():
        logits = model(seen, ids)
    assert sizes == [AT_ONCE, AT_ONCE, 3]
    sizes.clear()
    with torch.enable_grad():
        together = model(seen, ids)
    assert sizes == [n]
    torch.testing.assert_close(logits, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["mean", "last", "first"])
def test_padding_of_captions_is_hidden(how):
    config = TINY.replace(caption=CaptionTransformerConfig(trunk=SMALL, pool=how))
    model, ids = build(config, 0).eval(), captions(3)
    kept = torch.arange(8) < torch.tensor([8, 5, 2])[:, None]
    with torch.no_grad():
        found = model.encode_texts(ids, kept)
        other = model.encode_texts(torch.where(kept, ids, (ids + 1) % 13), kept)
        alone = [model.encode_texts(ids[row : row + 1, :length]) for row, length in enumerate((8, 5, 2))]
    torch.testing.assert_close(found, other)
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("start", "towards", "bound"), [(80.0, 1.0, 100.0), (1.5, -1.0, 1.0)])
def test_the_learned_scale_stays_within_its_bounds(start, towards, bound):
    """Pushed outwards it stops at the bound, and the first push inwards moves it again."""
    model = build(TINY.replace(scale=start), 0)
    optimizer = torch.optim.SGD([model.log_scale], lr=0.1)
    seen = []
    for _ in range(50):
        optimizer.zero_grad()
        (-towards * model.scale.log()).backward()
        optimizer.step()
        seen.append(model.scale.item())
    assert 0.999 * TINY.least_scale <= min(seen)
    assert max(seen) <= 1.001 * TINY.most_scale
    assert model.scale.item() == pytest.approx(bound)
    assert abs(model.log_scale.item() - torch.tensor(bound).log().item()) <= 0.1  # it has not drifted away
    for _ in range(2):
        optimizer.zero_grad()
        (towards * model.scale.log()).backward()
        optimizer.step()
    assert model.scale.item() != pytest.approx(bound, rel=1e-3)


def test_a_scale_outside_of_its_bounds_is_refused():
    with pytest.raises(ConfigError, match="scale 200 must lie between least_scale 1 and most_scale 100"):
        TINY.replace(scale=200.0)


def test_patches_are_a_convolution():
    """Times a matrix they are what a convolution of that stride gives, so that its weights can be taken over."""
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    seen = torch.rand(2, 3, 12, 12)
    expected = F.conv2d(seen, weight, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches(seen, 4) @ weight.flatten(1).T, expected, rtol=1e-4, atol=1e-5)


def test_a_picture_is_not_read_without_its_places():
    """The same patches in another order are another picture; without positions they are the same one."""
    seen = pictures(1)
    swapped = seen.roll(4, dims=3)  # the left half and the right half
    for position, moves in (("learned", True), ("none", False)):
        model = build(TINY.replace(picture=ViTConfig(size=8, trunk=SMALL.replace(position=position))), 0).eval()
        with torch.no_grad():
            near = torch.allclose(model.encode_pictures(seen), model.encode_pictures(swapped), atol=1e-5)
        assert near != moves


def test_towers_keep_their_weights_beside_another_tower():
    """Each parameter is drawn from the seed and its name: two arms with one tower in common begin with the same one."""
    one, other = (build(NETS[net], 3).state_dict() for net in ("vit", "convolutional"))
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith("caption."))
    name = "picture.patches.weight"
    drawn = torch.randn(one[name].shape, generator=torch.Generator().manual_seed(stream(3, "weights", name)))
    assert torch.equal(one[name], drawn * 0.02)


def test_a_tower_of_another_kind_is_one_setting():
    config = RunConfig(corpus="emoji", model=TINY)
    changed = override(config, ["model.picture.kind=convolutional", "model.picture.widths=[8, 16]"]).model
    assert changed.picture == ConvolutionalConfig(size=8, widths=(8, 16))  # of the other it keeps the size
    assert changed.caption == TINY.caption
    assert override(config, ["model.caption.trunk.n_layers=3"]).model.caption.trunk.n_layers == 3


def test_a_setting_inside_of_a_default_part_leaves_the_rest_of_it():
    """A trunk that is not causal by default stays so when its width is set."""
    changed = override(RunConfig(corpus="emoji", model=CLIPConfig()), ["model.picture.trunk.d_model=64"]).model
    assert changed.picture.trunk == ViTConfig().trunk.replace(d_model=64)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ({"kind": "vit", "size": 30, "patch": 4}, "model.picture: size 30 is not divisible by patch 4"),
        ({"kind": "vit", "trunk": {"causal": True}}, "the patches of a picture have no order"),
        ({"kind": "vit", "pach": 4}, "there is no setting model.picture.pach; did you mean model.picture.patch"),
        ({"kind": "convolutional", "size": 20, "widths": [4, 4, 4]}, "size 20 is not divisible by 2\\^3"),
        ({"kind": "resnet"}, "model.picture is not of a known kind, given 'resnet'"),
        ({"kind": "vit", "patch": 0}, "model.picture.patch: input should be greater than 0, given 0"),
    ],
)
def test_a_tower_that_cannot_be_is_refused_with_its_path(picture, message):
    with pytest.raises(ConfigError, match=message):
        parse(RunConfig, {"corpus": "emoji", "model": {"family": "clip", "picture": picture}})
