"""The transformation layer against hand calculation and decimal arithmetic."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
import torchxrayvision

from mxa.errors import ConfigError, DataError
from mxa.labels import CHEXPERT14, label_set
from mxa.models.adapter import TeacherOutputAdapter, no_finding_logit

CHEX = torchxrayvision.models.model_urls["densenet121-res224-chex"]["labels"]
ALL = torchxrayvision.models.model_urls["densenet121-res224-all"]["labels"]


def exact(logits: list[float]) -> float:
    """logit(prod(1 - sigmoid(o))) with 60 digits and exponents without bound."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**9, -(10**9)
        one, inverse = Decimal(1), Decimal(1)
        for o in logits:
            inverse *= one + Decimal(o).exp()  # 1 / (1 - sigmoid(o))
        # logit(q) = -ln(1 / q - 1). The 1 cancels digits where every o is very negative: there 1 / q - 1 is their sum.
        rest = inverse - one if max(logits) > -100 else sum(Decimal(o).exp() for o in logits)
        return float(-rest.ln())


CASES = [
    [0.0],
    [0.0, 0.0],
    [-3.0, 2.0, 0.5],
    [1.0] * 18,
    [-5.0] * 18,
    [-20.0, -21.0],
    [-38.0, -45.0],
    [-39.9, -40.1],
    [50.0, -50.0],
    [-1e4] * 11,
    [1e4] * 11,
    [1e4, -1e4],
    [-87.5, -104.0, -300.0],
]


@pytest.mark.parametrize("logits", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_no_finding_against_decimals(logits: list[float], dtype: torch.dtype, tolerance: float) -> None:
    found = no_finding_logit(torch.tensor([logits], dtype=dtype))
    expected = exact([float(o) for o in torch.tensor(logits, dtype=dtype)])
    assert found.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_no_finding_is_the_product() -> None:
    logits = torch.randn(100, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(no_finding_logit(logits).sigmoid(), (1 - logits.sigmoid()).prod(1), atol=0, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("logits", CASES, ids=str)
def test_no_finding_is_finite_with_finite_gradients(logits: list[float], dtype: torch.dtype) -> None:
    x = torch.tensor([logits], dtype=dtype, requires_grad=True)
    y = no_finding_logit(x)
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert y.isfinite().all()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()
    assert ((gradient >= -1.001) & (gradient <= 0)).all()
    assert gradient.sum() < -0.3, "somewhere it must learn"


def test_no_finding_gradient_against_finite_differences() -> None:
    for scale in (0.1, 3.0, 30.0):
        x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * scale
        assert torch.autograd.gradcheck(no_finding_logit, x.requires_grad_())


def test_the_papers_mapping_by_name() -> None:
    """Student index 1 takes teacher index 17 [5.1]; the others as the names say."""
    adapter = TeacherOutputAdapter([CHEX], CHEXPERT14)
    outputs = torch.arange(18.0).unsqueeze(0) / 10
    adapted = adapter(outputs)[0]
    expected = {
        "Enlarged Cardiomediastinum": 17,
        "Cardiomegaly": 10,
        "Lung Opacity": 16,
        "Lung Lesion": 14,
        "Edema": 4,
        "Consolidation": 1,
        "Pneumonia": 8,
        "Atelectasis": 0,
        "Pneumothorax": 3,
        "Pleural Effusion": 7,
        "Fracture": 15,
    }
    for finding, column in expected.items():
        assert adapted[CHEXPERT14.index(finding)].item() == pytest.approx(column / 10), finding
    absent = math.prod(1 - 1 / (1 + math.exp(-column / 10)) for column in expected.values())
    assert adapted[0].sigmoid().item() == pytest.approx(absent, rel=1e-5)
    known = dict(zip(CHEXPERT14, adapter.known.tolist(), strict=True))
    assert [finding for finding in CHEXPERT14 if not known[finding]] == ["Pleural Other", "Support Devices"]


def test_untrained_outputs_are_used_nowhere() -> None:
    adapter = TeacherOutputAdapter([CHEX], CHEXPERT14)
    outputs = torch.randn(3, 18)
    wild = outputs.clone()
    wild[:, [i for i, name in enumerate(CHEX) if not name]] = float("nan")
    assert torch.equal(adapter(outputs), adapter(wild))


def test_no_finding_counts_pathologies_that_the_student_lacks_but_no_devices() -> None:
    adapter = TeacherOutputAdapter([["Hernia", "Edema", "Support Devices"]], CHEXPERT14)
    found = adapter(torch.tensor([[1.0, -2.0, 5.0]]))[0, 0]
    torch.testing.assert_close(found, no_finding_logit(torch.tensor([1.0, -2.0])))


def test_a_teachers_own_no_finding_is_taken() -> None:
    adapter = TeacherOutputAdapter([tuple(CHEXPERT14)], CHEXPERT14)
    outputs = torch.randn(4, 14)
    torch.testing.assert_close(adapter(outputs), outputs)
    assert adapter.known.all()


def test_no_finding_can_be_ignored() -> None:
    adapter = TeacherOutputAdapter([CHEX], CHEXPERT14, no_finding="ignore")
    assert not adapter.known[0]
    assert (adapter(torch.randn(2, 18))[:, 0] == 0).all()


def test_a_student_without_no_finding() -> None:
    adapter = TeacherOutputAdapter([ALL], label_set(["Mass", "Edema", "Pleural Thickening"]))
    outputs = torch.randn(2, 18)
    torch.testing.assert_close(adapter(outputs), outputs[:, [12, 4, 9]])


def test_several_teachers_are_averaged_over_those_that_know() -> None:
    labels = label_set(["Edema", "Fracture", "Mass", "Hernia"])
    adapter = TeacherOutputAdapter([["Edema", "Fracture"], ["", "Mass", "Edema"]], labels)
    adapted = adapter(torch.tensor([[1.0, 2.0, 99.0, 3.0, 5.0]]))
    assert adapted.tolist() == [[3.0, 2.0, 3.0, 0.0]]
    assert adapter.known.tolist() == [True, True, True, False]


def test_half_precision_outputs_become_float32() -> None:
    adapter = TeacherOutputAdapter([CHEX], CHEXPERT14)
    assert adapter(torch.full((2, 18), 1e4, dtype=torch.float16)).dtype == torch.float32


@pytest.mark.parametrize("names", [["Hernia", "Mass"], ["", ""], ["Support"]])
def test_no_finding_in_common_is_refused(names: list[str]) -> None:
    """Also where "No Finding" could be derived: that alone is no teaching."""
    with pytest.raises(ConfigError, match=r"no finding in common.*kd\.teacher"):
        TeacherOutputAdapter([names], CHEXPERT14)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="no_finding is 'zero'"):
        TeacherOutputAdapter([CHEX], CHEXPERT14, no_finding="zero")
    with pytest.raises(ConfigError, match="at least one"):
        TeacherOutputAdapter([], CHEXPERT14)
    with pytest.raises(DataError, match="both mean 'Pleural Effusion'"):
        TeacherOutputAdapter([["Effusion", "Pleural Effusion"]], CHEXPERT14)
    with pytest.raises(ValueError, match="17 teacher outputs, expected 18"):
        TeacherOutputAdapter([CHEX], CHEXPERT14)(torch.zeros(1, 17))
