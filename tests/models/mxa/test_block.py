"""The MXA block as a whole: its parts in the paper's order, its gradients, its options."""

import pytest
import torch

from models.mxa.random_weights import randomise
from mxa.models.mxa import Mxa, MxaOptions, put_back, roi_pool


def test_the_loss_reaches_every_weight_of_the_region_predictor() -> None:
    block = randomise(Mxa(16).double())
    block.train()
    out, _ = block(torch.randn(4, 16, 7, 7, dtype=torch.float64))
    out.square().sum().backward()
    for name, parameter in block.region.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradient_of_the_block_through_the_box_against_finite_differences() -> None:
    block = randomise(Mxa(8).double()).eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    bias = block.region.head.bias
    weight = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    (block(x)[0] * weight).sum().backward()
    for k in range(4):
        step = 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[k] += sign * step
                values.append((block(x)[0] * weight).sum().item())
                bias[k] -= sign * step
        assert bias.grad[k].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-7)


def test_block_is_its_parts_in_the_papers_order() -> None:
    block = randomise(Mxa(8).double()).eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    refined, boxes = block(x)
    torch.testing.assert_close(boxes, block.region(x))
    torch.testing.assert_close(refined, block.spatial(block.channel(roi_pool(x, boxes))))


def test_a_fresh_block_adds_about_one_percent() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64, 14, 14)
    refined, _ = Mxa(64)(x)
    share = (refined.norm() / x.norm()).item()
    assert 0.001 < share < 0.02


def test_without_roi_it_is_cbam_of_the_whole_map() -> None:
    block = randomise(Mxa(8, MxaOptions(roi=False)).double()).eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    refined, boxes = block(x)
    assert boxes is None
    assert not [name for name, _ in block.named_parameters() if name.startswith("region")]
    torch.testing.assert_close(refined, block.spatial(block.channel(x)))


def test_without_gates_the_crop_is_scaled_by_channel() -> None:
    block = Mxa(8, MxaOptions(gates=False)).eval()
    x = torch.randn(2, 8, 6, 6)
    refined, boxes = block(x)
    torch.testing.assert_close(refined, 0.01 * roi_pool(x, boxes))
    with torch.no_grad():
        block.channel.weight[3] = 2
    torch.testing.assert_close(block(x)[0][:, 3], 2 * roi_pool(x, boxes)[:, 3])


@pytest.mark.parametrize("changes", [{}, {"roi": False}, {"put_back": True}, {"regions": 2}])
def test_layer_scale_scales_what_the_block_adds_by_channel(changes: dict[str, object]) -> None:
    plain, scaled = (Mxa(8, MxaOptions(layer_scale=start, **changes)).double().eval() for start in (None, 0.25))  # type: ignore[arg-type]
    scaled.load_state_dict(randomise(plain).state_dict(), strict=False)
    assert not [name for name in plain.state_dict() if name.startswith("scale")]
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(scaled(x)[0], 0.25 * plain(x)[0])
    with torch.no_grad():
        scaled.scale.weight[3] = 2
    torch.testing.assert_close(scaled(x)[0][:, 3], 2 * plain(x)[0][:, 3])


@pytest.mark.parametrize(("options", "start"), [({}, -4), ({"spatial_bias": 0.5}, 0.5)])
def test_where_the_gate_starts(options: dict[str, float], start: float) -> None:
    assert Mxa(8, MxaOptions(**options)).spatial.conv.bias.item() == start  # type: ignore[arg-type]


def test_where_the_gate_starts_changes_nothing_else() -> None:
    shut, half_open = (Mxa(16, MxaOptions(spatial_bias=bias)).eval() for bias in (-4.0, 0.0))
    x = torch.randn(2, 16, 7, 7)
    half_open.load_state_dict(shut.state_dict())
    torch.testing.assert_close(half_open(x), shut(x))


def test_put_back_comes_after_the_gates() -> None:
    plain, aligned = (randomise(Mxa(8, MxaOptions(put_back=on)).double()).eval() for on in (False, True))
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    refined, boxes = plain(x)
    torch.testing.assert_close(aligned(x)[0], put_back(refined, boxes))


@pytest.mark.parametrize("changes", [{}, {"put_back": True}, {"region": "moments", "smoothing": 1.5}])
def test_several_regions_are_refined_alike_and_averaged(changes: dict[str, object]) -> None:
    block = randomise(Mxa(8, MxaOptions(regions=3, **changes)).double()).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    refined, boxes = block(x)
    assert boxes.shape == (2, 3, 4)
    expected = torch.zeros_like(x)
    for number, predictor in enumerate(block.region.predictors):
        own = predictor(x)
        torch.testing.assert_close(boxes[:, number], own)
        one = block.spatial(block.channel(roi_pool(x, own, smoothing=block.options.smoothing)))
        expected += (put_back(one, own) if block.options.put_back else one) / 3
    torch.testing.assert_close(refined, expected)


def test_several_regions_start_side_by_side() -> None:
    left, right = Mxa(64, MxaOptions(regions=2)).eval()(torch.randn(8, 64, 14, 14))[1].unbind(1)
    torch.testing.assert_close(left, torch.tensor([0.1, 0.2, 0.7, 0.8]).expand(8, 4), atol=0.03, rtol=0)
    torch.testing.assert_close(right, torch.tensor([0.3, 0.2, 0.9, 0.8]).expand(8, 4), atol=0.03, rtol=0)


def test_boxes_are_moved_in_training_only() -> None:
    plain, shaken = (randomise(Mxa(8, MxaOptions(jitter=amount)).double()) for amount in (0.0, 0.2))
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(shaken.eval()(x), plain.eval()(x))
    one, boxes = shaken.train()(x)
    torch.testing.assert_close(boxes, plain.train()(x)[1])  # what is told is the prediction
    assert not torch.equal(one, shaken(x)[0])
    assert not torch.equal(one, plain(x)[0])


def test_the_stem_is_cropped_to_the_blocks_map() -> None:
    block = randomise(Mxa(8, MxaOptions(source="stem", region="moments"), finer_channels=4).double()).eval()
    x, stem = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.randn(2, 4, 12, 12, dtype=torch.float64)
    refined, boxes = block(x, stem)
    torch.testing.assert_close(boxes, block.region(stem))
    crop = block.project(roi_pool(stem, boxes, (6, 6)))
    torch.testing.assert_close(refined, block.spatial(block.channel(crop)))
    with pytest.raises(ValueError, match="whole model"):
        block(x)
    with pytest.raises(ValueError, match="mxa_stages"):
        Mxa(8, MxaOptions(source="stem"))


def test_the_picture_is_cropped_enlarged_and_embedded() -> None:
    block = randomise(Mxa(16, MxaOptions(source="image"), finer_channels=1).double()).eval()
    x, picture = torch.randn(2, 16, 4, 4, dtype=torch.float64), torch.randn(2, 1, 64, 64, dtype=torch.float64)
    refined, boxes = block(x, picture)
    torch.testing.assert_close(boxes, block.region(x))
    crop = block.project(roi_pool(picture, boxes))
    assert crop.shape == x.shape
    torch.testing.assert_close(refined, block.spatial(block.channel(crop)))
    with pytest.raises(ValueError, match="crops the image: call the whole model"):
        block(x)
    with pytest.raises(ValueError, match=r"mxa_source is .image.*mxa_stages"):
        Mxa(16, MxaOptions(source="image"))


@pytest.mark.parametrize(
    "options",
    [
        {"region": "moments"},
        {"smoothing": 2.0},
        {"jitter": 0.1},
        {"put_back": True},
        {"gates": False, "reduction": 16},
        {"regions": 2},
        {"log_size": True},
        {"layer_scale": 0.1},
    ],
)
def test_the_loss_reaches_every_weight_with_any_option(options: dict[str, object]) -> None:
    block = randomise(Mxa(16, MxaOptions(**{"reduction": 2, **options})).double()).train()  # type: ignore[arg-type]
    out, _ = block(torch.randn(4, 16, 7, 7, dtype=torch.float64))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
