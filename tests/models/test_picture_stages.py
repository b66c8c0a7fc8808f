"""The picture vectors of EfficientNet-Lite0, with random weights."""

import torch

from windtunnel.models.efficientnet import LAST_BLOCKS, STAGES, EfficientNetConfig
from windtunnel.models.vectors import WIDTHS
from windtunnel.nn.attention import attend


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
