"""Our models against timm's own, through timm's own ways of making and loading them."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import mxa  # noqa: F401  (registers the models)
from conftest import put_into_hub_cache
from mxa.errors import ArtifactError
from mxa.models.efficientvit import MxaMixer
from mxa.models.mxa import roi_pool

SIZES = ["m0", "m1", "m2", "m3", "m4", "m5"]
PLAIN_PARAMETERS = dict(zip(SIZES, [2_158_994, 2_789_974, 3_965_416, 6_583_928, 8_424_330, 12_093_730], strict=True))


def make(name: str, **options: object) -> nn.Module:
    return timm.create_model(name, **{"in_chans": 1, "num_classes": 14, **options})


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random everything: batch norm scales that start at zero hide whole branches."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                if name.endswith("running_var"):
                    value.copy_(noise.abs() * 0.2 + 0.9)
                elif name.endswith(("bn.weight", "norm.weight")):
                    value.copy_(noise * 0.1 + 0.5)
                else:
                    value.add_(noise * 0.05)
    return model


@pytest.mark.parametrize("size", SIZES)
def test_plain_parameter_counts(size: str) -> None:
    assert sum(p.numel() for p in make(f"efficientvit_{size}").parameters()) == PLAIN_PARAMETERS[size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [False, True])
def test_without_mxa_it_is_timms_model_exactly(size: str, training: bool) -> None:
    ours, theirs = make(f"mxa_efficientvit_{size}", mxa_stages=()), make(f"efficientvit_{size}")
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 1, 224, 224)
    assert torch.equal(ours.train(training)(x), theirs.train(training)(x))


def test_mxa_closed_equals_timms_model() -> None:
    """F_output = F_MHSA + F_MXA: with a shut spatial gate F_MXA is 0 and the rest must be timm's model to the bit."""
    ours, theirs = randomise(make("mxa_efficientvit_m0")), make("efficientvit_m0")
    for module in ours.modules():
        if isinstance(module, MxaMixer):
            nn.init.zeros_(module.mxa.spatial.conv.weight)
            nn.init.constant_(module.mxa.spatial.conv.bias, -float("inf"))
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if ".mxa." not in k})
    x = torch.randn(2, 1, 224, 224)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_the_sum_stands_beside_the_attention_in_every_block() -> None:
    model = randomise(make("mxa_efficientvit_m5")).eval()
    mixers = [module for module in model.modules() if isinstance(module, MxaMixer)]
    assert len(mixers) == 1 + 3 + 4
    for mixer in mixers:
        x = torch.randn(1, mixer.m.dim, 7, 7)
        torch.testing.assert_close(mixer(x), x + mixer.m(x) + mixer.mxa(x)[0])
        assert mixer.mxa(x)[0].abs().max() > 0


def test_the_attention_runs_once_per_forward() -> None:
    """Mistake 4 of the authors' code."""
    model = make("mxa_efficientvit_m0").eval()
    calls: list[int] = []
    for module in model.modules():
        if isinstance(module, MxaMixer):
            module.m.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(1, 1, 224, 224))
    assert len(calls) == 6


def test_stages_can_be_chosen() -> None:
    model = make("mxa_efficientvit_m0", mxa_stages=(2,))
    assert list(model.eval().regions(torch.randn(1, 1, 224, 224))) == [f"stages.2.blocks.{j}" for j in range(3)]
    with pytest.raises(ValueError, match="mxa_stages"):
        make("mxa_efficientvit_m0", mxa_stages=(3,))


def test_options_reach_the_block() -> None:
    model = make(
        "mxa_efficientvit_m0", mxa_reduction=8, mxa_spatial_kernel=3, mxa_region_reduction=2, mxa_region_pool=2
    )
    block = model.stages[1].blocks[0].mixer.mxa
    assert block.channel.w1.out_features == 128 // 8
    assert block.spatial.conv.kernel_size == (3, 3)
    assert block.region.conv.out_channels == 128 // 2
    assert block.region.conv.kernel_size == (3, 3)
    assert block.region.pool == 2


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="mxa_boxes"):
        make("mxa_efficientvit_m0", mxa_boxes=2)


def test_several_regions_have_names_of_their_own() -> None:
    model = make("mxa_efficientvit_m0", mxa_regions=2, mxa_stages=(0, 1)).train()
    logits, regions = model.forward_with_regions(torch.randn(2, 1, 224, 224))
    blocks = ("stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1")
    assert list(regions) == list(model.region_blocks()) == [f"{b}.regions.{k}" for b in blocks for k in range(2)]
    assert all(boxes.shape == (2, 4) for boxes in regions.values())
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert ".region." not in name or parameter.grad.abs().max() > 0, name


def test_options_of_blocks_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="mxa_stages is empty, so mxa_jitter would do nothing"):
        make("mxa_efficientvit_m0", mxa_stages=[], mxa_jitter=0.1)


def test_without_roi_there_are_no_regions() -> None:
    model = make("mxa_efficientvit_m0", mxa_roi=False).eval()
    x = torch.randn(2, 1, 224, 224)
    logits, regions = model.forward_with_regions(x)
    assert regions == {}
    assert model.region_blocks() == ()
    torch.testing.assert_close(logits, model(x))


def test_the_stems_map_reaches_the_first_stage() -> None:
    options = {"mxa_source": "stem", "mxa_stages": (0,), "mxa_region": "moments", "mxa_spatial_bias": 0.0}
    model = randomise(make("mxa_efficientvit_m0", img_size=128, **options)).eval()
    seen: list[torch.Tensor] = []
    model.patch_embed.conv4.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.stages[0].blocks[0].mixer.mxa.region.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(2, 1, 128, 128)
    logits, regions = model.forward_with_regions(x)
    torch.testing.assert_close(seen[0], seen[1])
    assert seen[0].shape == (2, 32, 16, 16)
    assert list(regions) == list(model.region_blocks()) == ["stages.0.blocks.0"]
    torch.testing.assert_close(model(x), logits)
    with pytest.raises(ValueError, match="mxa_stages"):
        make("mxa_efficientvit_m0", mxa_source="stem")


def test_the_picture_reaches_the_first_stage() -> None:
    model = randomise(make("mxa_efficientvit_m0", img_size=128, mxa_source="image", mxa_stages=(0,))).train()
    seen: list[torch.Tensor] = []
    block = model.stages[0].blocks[0].mixer.mxa
    block.project.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(2, 1, 128, 128)
    logits, regions = model.forward_with_regions(x)
    assert list(regions) == list(model.region_blocks()) == ["stages.0.blocks.0"]
    torch.testing.assert_close(seen[0], roi_pool(x, regions["stages.0.blocks.0"]))
    logits.square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    model.eval()
    torch.testing.assert_close(model(x), model.forward_with_regions(x)[0])


@pytest.mark.parametrize("size", [(224, 224), (128, 128), (256, 192)])
def test_regions_come_with_the_same_logits(size: tuple[int, int]) -> None:
    model = randomise(make("mxa_efficientvit_m0", img_size=size)).eval()
    x = torch.randn(3, 1, *size)
    logits, regions = model.forward_with_regions(x)
    torch.testing.assert_close(logits, model(x))
    assert len(regions) == 6
    for boxes in regions.values():
        assert boxes.shape == (3, 4)
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert boxes.min() >= 0
        assert boxes.max() <= 1


def test_set_input_size_gives_a_working_model() -> None:
    model = make("mxa_efficientvit_m0")
    model.set_input_size(160)
    assert model(torch.randn(2, 1, 160, 160)).shape == (2, 14)


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A stand-in for timm's ImageNet M0: three channels, 1,000 classes, random weights, in the cache."""
    source = randomise(timm.create_model("efficientvit_m0"), seed=5)
    put_into_hub_cache(tmp_path / "hub", "efficientvit_m0.r224_in1k", source.state_dict())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return source


def test_pretrained_weights_load_into_one_channel_and_mxa(imagenet: nn.Module, tmp_path: Path) -> None:
    ours = make("mxa_efficientvit_m0", pretrained=True, cache_dir=tmp_path / "hub").eval()
    own, theirs = ours.state_dict(), imagenet.state_dict()
    same = [key for key in theirs if not key.startswith(("head.linear", "patch_embed.conv1.conv"))]
    assert len(same) > 400
    for key in same:
        assert torch.equal(own[key], theirs[key]), key
    torch.testing.assert_close(
        own["patch_embed.conv1.conv.weight"], theirs["patch_embed.conv1.conv.weight"].sum(1, keepdim=True)
    )


def test_mxa_on_a_pretrained_backbone_starts_close_to_it(imagenet: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = make("mxa_efficientvit_m0", pretrained=True, cache_dir=tmp_path / "hub").eval()
    grey = torch.randn(4, 1, 224, 224)
    features, expected = ours.forward_features(grey), imagenet.eval().forward_features(grey.expand(-1, 3, -1, -1))
    assert ((features - expected).norm() / expected.norm()).item() < 0.1
    assert not torch.allclose(features, expected)


@pytest.mark.parametrize("other", ["efficientvit_m1", "efficientvit_m5"])
def test_weights_of_another_size_are_refused(other: str, tmp_path: Path) -> None:
    put_into_hub_cache(tmp_path / "hub", "efficientvit_m0.r224_in1k", timm.create_model(other).state_dict())
    with pytest.raises(ArtifactError, match="not of this EfficientViT size"):
        make("mxa_efficientvit_m0", pretrained=True, cache_dir=tmp_path / "hub")


def test_bfloat16_autocast_keeps_the_boxes_fine() -> None:
    model = make("mxa_efficientvit_m0").eval()
    x = torch.randn(2, 1, 224, 224)
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, regions = model.forward_with_regions(x)
    assert all(boxes.dtype == torch.float32 for boxes in regions.values())
    torch.testing.assert_close(logits.float(), exact, atol=0.05, rtol=0.05)


def test_channels_last_gives_the_same() -> None:
    model = randomise(make("mxa_efficientvit_m0")).eval()
    x = torch.randn(2, 1, 224, 224)
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_exports_with_a_dynamic_batch() -> None:
    model = randomise(make("mxa_efficientvit_m0", img_size=64)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 1, 64, 64),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 1, 64, 64)
    torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=1e-4)


def test_compiles_in_one_graph() -> None:
    """No graph break; the eager backend spares the test a C++ compiler."""
    model = randomise(make("mxa_efficientvit_m0", img_size=64)).eval()
    x = torch.randn(2, 1, 64, 64)
    expected = model(x)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(
    "order", ["import mxa, timm", "import timm, mxa", "import mxa\nfrom timm.models import create_model\nimport timm"]
)
def test_registered_whichever_is_imported_first(order: str) -> None:
    code = f"{order}\nassert len(timm.list_models('mxa_efficientvit_m?')) == 6"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_importing_mxa_loads_no_torch() -> None:
    code = "import sys, mxa; assert not {'torch', 'timm', 'pandas'} & set(sys.modules), 'heavy import'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
