"""The training step: no graph break, no wait for the device, the same numbers compiled or in parts."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mxa  # noqa: F401
from mxa.data.loader import Batch
from mxa.labels import CHEXPERT14
from mxa.preprocess import Preprocess
from mxa.training.config import OptimConfig
from mxa.training.module import ClassifierModule

OPTIM = OptimConfig(epochs=2, batch_size=4, warmup_epochs=0, cooldown_epochs=0, ema_decay=0.9)


def network(name: str = "mxa_efficientvit_m0", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, in_chans=1, num_classes=14, img_size=64, **options)


def make_batch(images: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (images, 1, 64, 64), dtype=torch.uint8, generator=generator)
    target = (torch.rand(images, 14, generator=generator) > 0.5).float()
    return Batch(pixels, target, torch.rand(images, 14, generator=generator) > 0.2, torch.arange(images))


def make_module(**options: object) -> ClassifierModule:
    module = ClassifierModule(network(), Preprocess(size=64), OPTIM, CHEXPERT14, ["x"] * 4, **options)  # type: ignore[arg-type]
    module.trainer = SimpleNamespace(estimated_stepping_batches=20, training=True)  # type: ignore[assignment]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return module.train()


def one_step(module: ClassifierModule, optimizer: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
    """What Lightning does with a batch."""
    loss = module._loss(module(batch.image).float(), batch)
    loss.backward()
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
    assert compiled._compiled is not None
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for module in (plain, compiled):
        module._loss(module(batch.image), batch).backward()
    for (name, one), other in zip(plain.model.named_parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_the_compiler_gives_the_same_gradients() -> None:
    torch._dynamo.reset()
    batch = make_batch()
    plain, compiled = make_module(), make_module(compiled=True)
    for module in (plain, compiled):
        module._loss(module(batch.image), batch).backward()
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


def test_no_step_waits_for_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make_module(), make_batch()
    optimizer = module.configure_optimizers()["optimizer"]
    assert optimizer.defaults["fused"]
    assert module._clip is not None
    monkeypatch.setattr(module, "_clip", module._clip.at_once)
    monkeypatch.setattr(ClassifierModule, "device", torch.device("cuda"))
    module.trainer.global_step = 1  # type: ignore[misc]
    with NoLook():
        loss = one_step(module, optimizer, batch)
        module._watch(loss.detach(), batch.row)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            loss.item()
        with pytest.raises(AssertionError, match=r"index\.Tensor"):
            batch.target[batch.mask]
