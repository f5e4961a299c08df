import torch
from networks import build
from torch.nn import functional as F

from atrous.models.frrn import FRRN, ResidualUnit, TwoStreamUnit


def test_it_has_the_paper_s_parameters():
    network = build("frrn_a", num_classes=19, backbone="none")
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 17.7


def test_the_streams_have_the_sizes_and_widths_of_table_1():
    network = FRRN(FRRN.Config(), 3).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, TwoStreamUnit):
            module.register_forward_hook(lambda _, __, out: seen.append([x.shape for x in out]))
    network(torch.zeros(1, 3, 32, 48))
    sizes = [(96, 2)] * 3 + [(192, 4)] * 4 + [(384, 8)] * 2 + [(384, 16)] * 2
    sizes += [(192, 8)] * 2 + [(192, 4)] * 2 + [(96, 2)] * 2
    assert [tuple(pooled) for pooled, _ in seen] == [(1, c, 32 // s, 48 // s) for c, s in sizes]
    assert {tuple(full) for _, full in seen} == {(1, 32, 32, 48)}
    assert sum(isinstance(module, ResidualUnit) for module in network.modules()) == 6


def test_a_unit_only_adds_to_the_full_stream_and_the_same_to_all_pixels_of_a_cell():
    unit = TwoStreamUnit(8, 4, 4).eval()
    full = torch.randn(1, 32, 8, 12)
    _, after = unit(torch.randn(1, 8, 2, 3), full)
    added = after - full
    cells = F.avg_pool2d(added, 4)
    assert cells.std() > 0
    torch.testing.assert_close(added, cells.repeat_interleave(4, 2).repeat_interleave(4, 3))
