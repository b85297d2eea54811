"""The training step: no graph break, no wait for the device, the same numbers compiled or in parts; learning rates."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch.utils._python_dispatch import TorchDispatchMode

import mxa  # noqa: F401
from mxa.data.loader import Batch
from mxa.labels import CHEXPERT14
from mxa.preprocess import Preprocess
from mxa.training.config import OptimConfig
from mxa.training.module import ClassifierModule, mean_area
from mxa.training.region_watch import WatchRegions

OPTIM = OptimConfig(epochs=2, batch_size=4, warmup_epochs=0, cooldown_epochs=0, ema_decay=0.9)


def network(name: str = "mxa_efficientvit_m0", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, in_chans=1, num_classes=14, img_size=64, **options)


def make_batch(images: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (images, 1, 64, 64), dtype=torch.uint8, generator=generator)
    target = (torch.rand(images, 14, generator=generator) > 0.5).float()
    return Batch(pixels, target, torch.rand(images, 14, generator=generator) > 0.2, torch.arange(images))


def make_module(optim: OptimConfig = OPTIM, **options: object) -> ClassifierModule:
    module = ClassifierModule(network(), Preprocess(size=64), optim, CHEXPERT14, ["x"] * 4, **options)  # type: ignore[arg-type]
    module.trainer = SimpleNamespace(estimated_stepping_batches=20, training=True)  # type: ignore[assignment]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return module.train()


def one_step(
    module: ClassifierModule, optimizer: torch.optim.Optimizer, batch: Batch, watch: WatchRegions
) -> torch.Tensor:
    """What Lightning does with a batch."""
    loss = module._loss(module(batch.image).float(), batch, {})
    loss.backward()
    watch.on_before_optimizer_step(module.trainer, module, optimizer)
    module.configure_gradient_clipping(optimizer)
    optimizer.step()
    assert module.ema is not None
    module.ema.update(module.model, step=2)
    return loss


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [("mxa_efficientvit_m0", {}), ("mxa_efficientvit_m0", {"mxa_region_pool": 2}), ("efficientvit_m0", {})],
)
def test_the_network_is_one_graph(name: str, options: dict[str, int], training: bool) -> None:
    torch._dynamo.reset()
    model = network(name, **options).train(training)
    explained = torch._dynamo.explain(model)(torch.randn(2, 1, 64, 64))
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0


def test_a_compiled_step_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by dynamo and split by autograd, without the minutes that the compiler itself takes."""
    torch._dynamo.reset()
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: original(function, backend="aot_eager"))
    batch = make_batch()
    plain, compiled = make_module(), make_module(compiled=True)
    assert compiled._network != compiled.model.forward
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for module in (plain, compiled):
        module._loss(module(batch.image), batch, {}).backward()
    for (name, one), other in zip(plain.model.named_parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_the_compiler_gives_the_same_gradients() -> None:
    torch._dynamo.reset()
    batch = make_batch()
    plain, compiled = make_module(), make_module(compiled=True)
    for module in (plain, compiled):
        module._loss(module(batch.image), batch, {}).backward()
    for (name, one), other in zip(plain.model.named_parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


class NoLook(TorchDispatchMode):
    """Refuses whatever would wait for an accelerator: a number or a size that only its memory knows."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "repeat_interleave.Tensor")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = str(func).removeprefix("aten.")
        masks = name.startswith("index.Tensor") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if masks or (name.startswith(self.FORBIDDEN) and not (kwargs or {}).get("output_size")):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_an_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, batch = make_module(), make_batch()
    watch = WatchRegions(tmp_path / "regions.csv")
    module.trainer.is_global_zero, module.trainer.current_epoch = True, 0  # type: ignore[misc]
    watch.on_train_start(module.trainer, module)
    optimizer = module.configure_optimizers()["optimizer"]
    assert optimizer.defaults["fused"]
    assert module._clip is not None
    monkeypatch.setattr(module, "_clip", module._clip.at_once)
    monkeypatch.setattr(ClassifierModule, "device", torch.device("cuda"))
    module.trainer.global_step = 1  # type: ignore[misc]
    with NoLook():
        loss = one_step(module, optimizer, batch, watch)
        module._watch(loss.detach(), batch.row)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            loss.item()
        with pytest.raises(AssertionError, match=r"index\.Tensor"):
            batch.target[batch.mask]
    assert watch.state_dict()["steps"] == 1


# --------------------------------------------------------------- learning rates


def region_names(module: ClassifierModule) -> set[str]:
    return {name for name, _ in module.model.named_parameters() if ".mixer.mxa.region." in name}


@pytest.mark.parametrize("weight_decay", [0.025, 0.0])
def test_without_options_the_groups_are_timms(weight_decay: float) -> None:
    """Groups and the order in them decide whether an older checkpoint's optimiser can be loaded."""
    module = make_module(replace(OPTIM, weight_decay=weight_decay))
    own = module.configure_optimizers()["optimizer"]
    timms = create_optimizer_v2(module.model, opt="adamw", lr=OPTIM.lr, weight_decay=weight_decay, fused=True)
    assert [list(map(id, group["params"])) for group in own.param_groups] == [
        list(map(id, group["params"])) for group in timms.param_groups
    ]
    assert not any("lr_scale" in group for group in own.param_groups)


@pytest.mark.parametrize("weight_decay", [0.025, 0.0])
def test_regions_apart_are_the_same_parameters_with_the_same_decay(weight_decay: float) -> None:
    optim = replace(OPTIM, weight_decay=weight_decay)
    module = make_module(optim)
    together = module.configure_optimizers()["optimizer"].param_groups
    module.optim = replace(optim, region_lr=0.3)
    optimizer = module.configure_optimizers()["optimizer"]
    assert optimizer.defaults["fused"]
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    decays = [
        {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
        for groups in (together, optimizer.param_groups)
    ]
    assert decays[0] == decays[1]
    assert decays[0].keys() == set(names.values())
    apart = {names[id(p)] for group in optimizer.param_groups if "lr_scale" in group for p in group["params"]}
    assert apart == region_names(module) != set()
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize(("region_lr", "waiting"), [(0.25, 0.0), (4.0, 0.0), (1.0, 2.5), (0.5, 6.0), (0.0, 0.0)])
def test_the_regions_rate_against_the_formula(region_lr: float, waiting: float) -> None:
    """10 steps per epoch; 8 images where the rates are meant for 4."""
    optim = OptimConfig(
        epochs=10,
        batch_size=8,
        lr_batch_size=4,
        lr=1e-3,
        min_lr=1e-5,
        warmup_lr=1e-6,
        warmup_epochs=3,
        cooldown_epochs=2,
        region_lr=region_lr,
        region_warmup_epochs=waiting,
    )
    module = make_module(optim)
    module.trainer.estimated_stepping_batches = 100  # type: ignore[misc]
    module.trainer.global_step = 0  # type: ignore[misc]
    configured = module.configure_optimizers()
    groups, scheduler = configured["optimizer"].param_groups, configured["lr_scheduler"]["scheduler"]
    assert len(groups) == 4
    for step in range(100):
        if step < 30:
            rate = 2e-6 + (2e-3 - 2e-6) * step / 30
        elif step < 80:
            rate = 2e-5 + (2e-3 - 2e-5) * (1 + math.cos(math.pi * step / 80)) / 2
        else:
            rate = 2e-5
        regions = 0.0 if step < 10 * waiting else region_lr * rate
        expected = [regions if "lr_scale" in group else rate for group in groups]
        assert [group["lr"] for group in groups] == pytest.approx(expected, rel=1e-9), step
        module.trainer.global_step = step + 1  # type: ignore[misc]
        module.lr_scheduler_step(scheduler, None)


def test_the_mean_area_of_the_boxes() -> None:
    boxes = {"a": torch.tensor([[0.0, 0.0, 1.0, 0.5], [0.2, 0.2, 0.4, 0.6]]), "b": torch.tensor([[0.0, 0.0, 0.1, 0.1]])}
    assert mean_area(boxes).item() == pytest.approx((0.5 + 0.08 + 0.01) / 3)
    module, batch = make_module(replace(OPTIM, region_area=2.0)), make_batch()
    logits, seen = module._see(batch.image)
    torch.testing.assert_close(logits, make_module()(batch.image))
    assert list(seen) == list(module.model.region_blocks())
    assert make_module()._see(batch.image)[1] == {}, "not asked for"
    mean_area(seen).backward()
    moved = {name for name, parameter in module.model.named_parameters() if parameter.grad is not None}
    assert region_names(module) <= moved


def test_a_rate_of_0_keeps_the_weights() -> None:
    module, batch = make_module(replace(OPTIM, lr_batch_size=4, region_lr=0.0)), make_batch()
    before = {name: parameter.detach().clone() for name, parameter in module.model.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    module._loss(module(batch.image).float(), batch, {}).backward()
    optimizer.step()
    still = {name for name, parameter in module.model.named_parameters() if torch.equal(parameter, before[name])}
    moving = {name for name, parameter in module.model.named_parameters() if parameter.grad.abs().max() > 1e-5}
    assert moving & region_names(module), "they have a gradient"
    assert moving - region_names(module), "and so have others"
    assert region_names(module) <= still
    assert not still & (moving - region_names(module))
