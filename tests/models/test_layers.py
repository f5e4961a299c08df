import pytest
import torch
from torch import nn

from atrous.models.layers import ASPP, Norm, crop, pad_image, resize, upsample


def test_norm_trains_on_a_single_value_by_the_running_statistics():
    norm = Norm(3).train()
    x = torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]], requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(3).train()(x)
    norm(x).sum().backward()
    torch.testing.assert_close(norm(x), x / (1 + norm.eps) ** 0.5)
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_norm_is_batch_norm_elsewhere():
    x = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(Norm(3).train()(x), nn.BatchNorm2d(3).train()(x))


@pytest.mark.parametrize("rates", [(1,), (6, 12, 18), (2, 4, 6, 8, 10)])
@pytest.mark.parametrize("image_pooling", [True, False])
@pytest.mark.parametrize("separable", [True, False])
def test_aspp_takes_any_rates_at_any_size(rates, image_pooling, separable):
    aspp = ASPP(
        6,
        ASPP.Config(
            channels=4, atrous_rates=rates, image_pooling=image_pooling, separable=separable
        ),
    ).train()
    for size in ((1, 1), (3, 5)):
        assert aspp(torch.randn(1, 6, *size)).shape == (1, 4, *size)
    found = {m.dilation[0] for m in aspp.modules() if isinstance(m, nn.Conv2d)}
    assert found == {1, *rates}


def test_image_pooling_sees_the_whole_image():
    image = torch.zeros(1, 2, 9, 9)
    far = image.clone()
    far[..., 8, 8] = 100
    for image_pooling in (True, False):
        aspp = ASPP(
            2, ASPP.Config(channels=4, atrous_rates=(1,), image_pooling=image_pooling)
        ).eval()
        for parameter in aspp.parameters():
            parameter.data.abs_()  # so that no ReLU hides the change
        changed = not torch.equal(aspp(image)[..., 0, 0], aspp(far)[..., 0, 0])
        assert changed == image_pooling


def test_padding_goes_right_and_down():
    padded = pad_image(torch.ones(1, 3, 33, 48), 16, training=False)
    assert padded.shape == (1, 3, 48, 48)
    assert padded[..., :33, :].min() == 1
    assert padded[..., 33:, :].max() == 0


def test_a_single_cell_is_widened_only_where_it_could_not_train():
    assert pad_image(torch.ones(1, 3, 5, 8), 8, training=True).shape == (1, 3, 8, 16)
    assert pad_image(torch.ones(1, 3, 5, 8), 8, training=False).shape == (1, 3, 8, 8)
    assert pad_image(torch.ones(1, 3, 5, 9), 8, training=True).shape == (1, 3, 8, 16)
    assert pad_image(torch.ones(2, 3, 5, 8), 8, training=True).shape == (2, 3, 8, 8)


def test_crop_keeps_each_cell_that_touches_the_image():
    image = torch.zeros(1, 3, 33, 64)
    assert crop(torch.zeros(1, 2, 16, 16), image, 4).shape == (1, 2, 9, 16)


def test_resize_is_by_areas():
    row = torch.tensor([[[[0.0, 1.0]]]])
    torch.testing.assert_close(resize(row, 2)[0, 0, 0], torch.tensor([0, 0.25, 0.75, 1]))


def test_upsample_scales_by_the_stride_whatever_the_size():
    logits = torch.randn(1, 2, 3, 4)
    whole = upsample(logits, 4, (12, 16))
    assert torch.equal(upsample(logits, 4, (9, 13)), whole[..., :9, :13])
