"""Frozen teachers with contracts of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as nnf
from torch import nn

from mxa.errors import ArtifactError, ConfigError
from mxa.labels import CHEXPERT14, LabelSet, label_set
from mxa.models.artifact import Architecture, Classifier, fingerprint, load, save
from mxa.models.build import build_model
from mxa.models.teacher import Teacher, load_teachers, ready_teacher, trained_outputs
from mxa.preprocess import Preprocess


def classifier(
    findings: LabelSet = CHEXPERT14, preprocess: Preprocess | None = None, name: str = "resnet10t", seed: int = 0
) -> Classifier:
    torch.manual_seed(seed)
    preprocess = preprocess or Preprocess(size=64)
    model = build_model(name, len(findings), preprocess.size)
    model.train()
    model(torch.randn(8, 1, preprocess.size, preprocess.size))  # batch norm statistics away from their start
    return Classifier(model.eval(), Architecture(name, {}), findings, preprocess, {})


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_its_logits_are_the_models(pixels: torch.Tensor) -> None:
    one = classifier()
    expected = one.model((pixels.float() / 255 - 0.449) / 0.226)
    torch.testing.assert_close(Teacher([one], CHEXPERT14)(pixels), expected.detach(), atol=1e-4, rtol=1e-4)


def test_each_teacher_has_its_own_contract(pixels: torch.Tensor) -> None:
    """TorchXRayVision's: [-1024, 1024] and another size, resized with antialiasing."""
    one = classifier(preprocess=Preprocess(size=96, mean=0.5, std=1 / 2048))
    resized = nnf.interpolate(pixels.float(), size=(96, 96), mode="bilinear", antialias=True)
    expected = one.model((2 * resized / 255 - 1) * 1024)
    torch.testing.assert_close(Teacher([one], CHEXPERT14)(pixels), expected.detach(), atol=1e-3, rtol=1e-3)


def test_its_maps_are_its_logits_taken_apart(pixels: torch.Tensor) -> None:
    """No Finding has an output of its own here, so every map's mean is its logit; a finding it lacks has none."""
    some = label_set([*list(CHEXPERT14)[:5], "Hernia"])
    teacher = Teacher([classifier(preprocess=Preprocess(size=96))], some)
    logits, maps = teacher.look(pixels)
    torch.testing.assert_close(logits, teacher(pixels))
    assert maps.shape == (3, 6, 3, 3)
    torch.testing.assert_close(maps.mean((2, 3)), logits, atol=1e-4, rtol=1e-4)
    assert maps.std((2, 3))[:, :5].min() > 0
    assert not maps[:, 5].any()


def test_maps_of_several_teachers_have_the_finest_ones_size(pixels: torch.Tensor) -> None:
    coarse, fine = classifier(), classifier(preprocess=Preprocess(size=128), seed=1)
    together = Teacher([coarse, fine], CHEXPERT14).look(pixels)[1]
    one, two = (Teacher([own], CHEXPERT14).look(pixels)[1] for own in (coarse, fine))
    assert two.shape[-2:] == (4, 4)
    expected = (nnf.interpolate(one, (4, 4), mode="bilinear") + two) / 2
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=1e-4)


def test_several_teachers_give_their_mean(pixels: torch.Tensor) -> None:
    some = label_set(["Edema", "Hernia"])
    one, two = classifier(), classifier(some, Preprocess(size=32), seed=1)
    apart = [Teacher([c], CHEXPERT14, no_finding="ignore")(pixels) for c in (one, two)]
    together = Teacher([one, two], CHEXPERT14, no_finding="ignore")
    edema = CHEXPERT14.index("Edema")
    expected = apart[0].clone()
    expected[:, edema] = (apart[0][:, edema] + apart[1][:, edema]) / 2
    torch.testing.assert_close(together(pixels), expected, atol=1e-4, rtol=1e-4)
    assert together.outputs(pixels).shape == (3, 16)


def test_frozen_and_in_evaluation_mode_whatever_is_asked(pixels: torch.Tensor) -> None:
    teacher = Teacher([classifier()], CHEXPERT14)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    holder = nn.ModuleDict({"student": nn.Linear(2, 2), "teacher": teacher})
    holder.train()
    teacher.train()
    first = teacher(pixels)
    assert holder["student"].training
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not first.requires_grad
    assert not first.is_inference(), "the loss must be able to keep it for its backward pass"
    assert torch.equal(first, teacher(pixels))
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_any_saved_model_can_teach(tmp_path: Path, pixels: torch.Tensor) -> None:
    saved = save(classifier(name="mxa_efficientvit_m0"), tmp_path / "model")
    (model,) = load_teachers([str(saved)])
    teacher = ready_teacher([model], CHEXPERT14, "product").cpu()
    torch.testing.assert_close(teacher(pixels), load(saved).logits(pixels), atol=1e-5, rtol=1e-5)
    described = model.describe()
    assert described["fingerprint"] == fingerprint(saved)
    assert described["outputs"] == list(CHEXPERT14)


def test_what_training_never_showed_is_not_taught(pixels: torch.Tensor) -> None:
    counts = {finding: {"positive": 5, "not_annotated": 0} for finding in CHEXPERT14}
    counts["Fracture"] = {"positive": 0, "not_annotated": 40}
    one = replace(classifier(), training={"data": {"counts": {"train": counts}}})
    assert trained_outputs(one) == ["" if finding == "Fracture" else finding for finding in CHEXPERT14]
    teacher = Teacher([one], CHEXPERT14)
    assert [f for f, known in zip(CHEXPERT14, teacher.known.tolist(), strict=True) if not known] == ["Fracture"]
    assert (teacher(pixels)[:, CHEXPERT14.index("Fracture")] == 0).all()


def test_the_fingerprint_follows_weights_and_contract(tmp_path: Path) -> None:
    prints = [
        fingerprint(save(one, tmp_path / str(i)))
        for i, one in enumerate(
            [
                classifier(),
                classifier(),
                classifier(seed=1),
                classifier(preprocess=Preprocess(size=64, mean=0.5)),
                classifier(label_set(list(CHEXPERT14)[::-1])),
            ]
        )
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_a_torchxrayvision_name_says_how_to_convert() -> None:
    with pytest.raises(ArtifactError, match="mxa teacher convert densenet121-res224-chex --out"):
        load_teachers(["densenet121-res224-chex"])


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "chex-densenet121.pt"
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(ArtifactError, match="mxa teacher convert"):
        load_teachers([str(file)])


def test_no_finding_in_common() -> None:
    with pytest.raises(ConfigError, match="no finding in common"):
        Teacher([classifier(label_set(["Hernia"]))], CHEXPERT14)
