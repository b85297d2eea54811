"""The distillation loss: by hand, against a float64 loop, its gradients, its masks, over two processes."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mxa.labels import label_set
from mxa.models.adapter import TeacherOutputAdapter
from mxa.training.config import KdConfig
from mxa.training.losses import DistillationLoss, masked_bce_with_logits

ALL = torch.ones(6, dtype=torch.bool)


def kd(**options: object) -> KdConfig:
    return KdConfig(teacher="t", **options)  # type: ignore[arg-type]


def batch(rows: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Student and teacher logits, targets, mask of six findings."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(rows, 6, generator=generator, dtype=dtype) * 3 for _ in range(2))
    target = (torch.rand(rows, 6, generator=generator) < 0.4).to(dtype)
    mask = torch.rand(rows, 6, generator=generator) < 0.7
    return student, teacher, target, mask


def test_by_hand() -> None:
    """From a teacher's raw outputs to the loss, with numbers that need no computer.

    sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4, sigmoid(0) = 1/2. Two images; the teacher has outputs Edema, '' (never
    trained) and Effusion:

        image 1: Edema 3/4, Effusion 1/4; No Finding (1 - 3/4)(1 - 1/4) = 3/16, its logit ln(3/13)
        image 2: Edema 1/2, Effusion 1/2; No Finding 1/2 x 1/2 = 1/4, its logit ln(1/3)

    The student has No Finding, Pleural Effusion, Edema, Fracture; Fracture is unknown to the teacher.

        w = 1 - mean p:  No Finding 1 - 7/32 = 25/32, Effusion 1 - 3/8 = 5/8, Edema 1 - 5/8 = 3/8, Fracture out

    The student says ln 3 everywhere, so BCE(p) = -p ln(3/4) - (1 - p) ln(1/4) = ln 4 - p ln 3.
    Soft, averaged over the 6 known entries (mean p in each column as above):

        distill = [25/32 (ln 4 - 7/32 ln 3) + 5/8 (ln 4 - 3/8 ln 3) + 3/8 (ln 4 - 5/8 ln 3)] / 3
                = [57/32 ln 4 - (175/1024 + 240/1024 + 240/1024) ln 3] / 3 = 19/32 ln 4 - 655/3072 ln 3

    Hard: p > 1/2 only for Edema of image 1, BCE(1) = ln(4/3), BCE(0) = ln 4:

        distill = [25/32 x 2 ln 4 + 5/8 x 2 ln 4 + 3/8 (ln(4/3) + ln 4)] / 6

    Labels: all 1 but Fracture of image 2, which is masked: base = ln(4/3) over 7 entries.
    """
    ln3, ln4 = math.log(3), math.log(4)
    adapter = TeacherOutputAdapter(
        [["Edema", "", "Effusion"]], label_set(["No Finding", "Effusion", "Edema", "Fracture"])
    )
    outputs = torch.tensor([[ln3, 9.0, -ln3], [0.0, -9.0, 0.0]])
    teacher = adapter(outputs)
    torch.testing.assert_close(teacher[:, 0], torch.tensor([math.log(3 / 13), math.log(1 / 3)]))
    torch.testing.assert_close(teacher[:, 1:], torch.tensor([[-ln3, ln3, 0.0], [0.0, 0.0, 0.0]]))
    student = torch.full((2, 4), ln3)
    target, mask = torch.ones(2, 4), torch.tensor([[True] * 4, [True] * 3 + [False]])
    soft = DistillationLoss(kd(), adapter.known)(student, teacher, target, mask)
    torch.testing.assert_close(soft.weights, torch.tensor([25 / 32, 5 / 8, 3 / 8, 0.0]))
    assert soft.distill.item() == pytest.approx(19 / 32 * ln4 - 655 / 3072 * ln3, rel=1e-6)
    assert soft.base.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert soft.total.item() == pytest.approx((soft.base + soft.distill).item() / 2, rel=1e-6)
    hard = DistillationLoss(kd(type="hard", alpha=0.25), adapter.known)(student, teacher, target, mask)
    by_hand = (25 / 32 * 2 * ln4 + 5 / 8 * 2 * ln4 + 3 / 8 * (math.log(4 / 3) + ln4)) / 6
    assert hard.distill.item() == pytest.approx(by_hand, rel=1e-6)
    assert hard.total.item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * by_hand, rel=1e-6)


def bce(o: float, y: float) -> float:
    """From the definition, without shortcuts."""
    p = 1 / (1 + math.exp(-o))
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def loop(config: KdConfig, known: list[bool], *tensors: torch.Tensor) -> tuple[float, float, float]:
    """Total, base and distillation loss over samples and labels, one by one."""
    student, teacher, target, mask = (tensor.tolist() for tensor in tensors)
    rows, columns = range(len(student)), range(len(known))
    p = [[1 / (1 + math.exp(-teacher[i][j])) for j in columns] for i in rows]
    base, weighted, labelled, distill, taught = 0.0, 0.0, 0, 0.0, 0
    for i, j in product(rows, columns):
        if mask[i][j]:
            labelled += 1
            one = bce(student[i][j], target[i][j])
            base += one
            weighted += one if config.full_weight_untaught and not known[j] else (1 - config.alpha) * one
        if known[j] and (mask[i][j] or config.teach_masked):
            taught += 1
            w = 1 - sum(p[k][j] for k in rows) / len(rows) if config.dynamic_weights else 1.0
            if config.type == "hard":
                distill += w * bce(student[i][j], 1.0 if p[i][j] > 0.5 else 0.0)
            else:
                told = 1 / (1 + math.exp(-teacher[i][j] / config.tau))
                distill += config.tau**2 * w * bce(student[i][j] / config.tau, told)
    return weighted / labelled + config.alpha * distill / taught, base / labelled, distill / taught


@pytest.mark.parametrize(("kind", "tau"), [("soft", 1.0), ("soft", 4.0), ("soft", 0.5), ("hard", 1.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(("full", "masked"), [(False, False), (True, False), (False, True), (True, True)])
def test_against_a_loop(kind: str, tau: float, alpha: float, dynamic: bool, full: bool, masked: bool) -> None:
    config = kd(
        type=kind, tau=tau, alpha=alpha, dynamic_weights=dynamic, full_weight_untaught=full, teach_masked=masked
    )
    known = [True, False, True, True, False, True]
    data = batch()
    found = DistillationLoss(config, torch.tensor(known))(*data)
    expected = loop(config, known, *data)
    assert [found.total.item(), found.base.item(), found.distill.item()] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("kind", "tau"), [("soft", 1.0), ("soft", 3.0), ("hard", 1.0)])
def test_gradient_against_finite_differences(kind: str, tau: float) -> None:
    student, *rest = batch()
    known = torch.tensor([True, True, False, True, True, False])
    loss = DistillationLoss(kd(type=kind, tau=tau, full_weight_untaught=True), known)
    assert torch.autograd.gradcheck(lambda o: loss(o, *rest).total, student.requires_grad_())


def test_the_gradient_at_temperature_one_is_the_weighted_difference() -> None:
    """d/do_s = alpha w_j (sigmoid(o_s) - p_t) / entries."""
    student, teacher, target, _ = batch()
    student.requires_grad_()
    terms = DistillationLoss(kd(alpha=1.0), ALL)(student, teacher, target, torch.ones(5, 6, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(terms.total, student)
    w = 1 - teacher.sigmoid().mean(0)
    torch.testing.assert_close(gradient, w * (student.sigmoid() - teacher.sigmoid()).detach() / 30)


def test_tau_squared_keeps_the_gradients_size() -> None:
    """For large tau the soft gradient tends to w (o_s - o_t) / 4 per entry, whatever tau (Hinton et al., 2015)."""
    student, teacher, target, _ = batch()
    student.requires_grad_()
    loss = DistillationLoss(kd(alpha=1.0, tau=1000.0), ALL)
    (gradient,) = torch.autograd.grad(loss(student, teacher, target, torch.ones_like(target) > 0).total, student)
    w = 1 - teacher.sigmoid().mean(0)
    torch.testing.assert_close(gradient, (w * (student - teacher) / 4 / 30).detach(), rtol=1e-4, atol=1e-8)


def test_what_the_teacher_lacks_has_exactly_no_distillation_gradient() -> None:
    student, teacher, target, mask = batch()
    student.requires_grad_()
    known = torch.tensor([True, False, True, True, False, True])
    for alpha in (1.0, 0.5):
        for teach_masked in (False, True):
            loss = DistillationLoss(kd(alpha=alpha, teach_masked=teach_masked), known)
            (gradient,) = torch.autograd.grad(loss(student, teacher, target, mask).total, student)
            rest = (1 - alpha) * masked_bce_with_logits(student, target, mask)
            (labels_only,) = torch.autograd.grad(rest, student)
            assert torch.equal(gradient[:, ~known], labels_only[:, ~known])
            other = torch.where(known, teacher, torch.randn_like(teacher) * 100)
            (again,) = torch.autograd.grad(loss(student, other, target, mask).total, student)
            assert torch.equal(gradient, again)


def test_masked_labels_are_distilled_only_if_asked() -> None:
    student, teacher, target, mask = batch()
    student.requires_grad_()
    for teach_masked in (False, True):
        terms = DistillationLoss(kd(teach_masked=teach_masked), ALL)(student, teacher, target, mask)
        (gradient,) = torch.autograd.grad(terms.total, student)
        assert bool((gradient[~mask] != 0).all()) is teach_masked
        assert bool((gradient[~mask] == 0).all()) is not teach_masked
        assert (gradient[mask] != 0).all()


def test_untaught_labels_keep_their_full_weight_if_asked() -> None:
    student, teacher, target, mask = batch()
    student.requires_grad_()
    known = torch.tensor([True, False, True, True, False, True])
    (base,) = torch.autograd.grad(masked_bce_with_logits(student, target, mask), student)
    for full, factor in ((False, 0.5), (True, 1.0)):
        terms = DistillationLoss(kd(full_weight_untaught=full), known)(student, teacher, target, mask)
        (gradient,) = torch.autograd.grad(terms.total, student)
        torch.testing.assert_close(gradient[:, ~known], factor * base[:, ~known])


def test_all_masked_is_zero_with_zero_gradient() -> None:
    student, teacher, target, mask = batch()
    student.requires_grad_()
    for known, label_mask in ((~ALL, mask & False), (ALL, mask & False)):
        terms = DistillationLoss(kd(), known)(student, teacher, target, label_mask)
        (gradient,) = torch.autograd.grad(terms.total, student)
        assert terms.total.item() == 0
        assert (gradient == 0).all()


def test_without_a_known_finding_the_labels_remain() -> None:
    student, teacher, target, mask = batch()
    terms = DistillationLoss(kd(), ~ALL)(student, teacher, target, mask)
    assert terms.total.item() == pytest.approx(0.5 * masked_bce_with_logits(student, target, mask).item())


def test_one_sample() -> None:
    data = batch(rows=1, seed=3)
    terms = DistillationLoss(kd(), ALL)(*data)
    torch.testing.assert_close(terms.weights, 1 - data[1][0].sigmoid())
    assert terms.total.item() == pytest.approx(loop(kd(), [True] * 6, *data)[0], rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_certain_teachers(kind: str, dtype: torch.dtype) -> None:
    """p = 0 and p = 1 exactly, a student as certain, right or wrong: finite, and a column of ones weighs nothing."""
    teacher = torch.tensor([[1e4, -1e4, 1e4], [1e4, -1e4, -1e4]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    known = torch.ones(3, dtype=torch.bool)
    terms = DistillationLoss(kd(type=kind, alpha=1.0), known)(
        student, teacher, torch.zeros_like(teacher), known.expand(2, 3)
    )
    (gradient,) = torch.autograd.grad(terms.total, student)
    assert terms.weights.tolist() == [0.0, 1.0, 0.5]
    # Column 1 alone costs: 1e4 for the wrong certainty, ln 2 for the shrug; column 2 half of ln 2.
    assert terms.total.item() == pytest.approx((1e4 + math.log(2) + 0.5 * math.log(2)) / 6, rel=1e-6)
    assert gradient.isfinite().all()
    assert (gradient[:, 0] == 0).all()


def test_hard_targets_are_strictly_above_one_half() -> None:
    """1[p_t > 0.5]: an undecided teacher says no."""
    student = torch.zeros(1, 1, requires_grad=True)
    known = torch.ones(1, dtype=torch.bool)
    loss = DistillationLoss(kd(type="hard", alpha=1.0, dynamic_weights=False), known)
    for logit, sign in ((0.0, 1.0), (1e-3, -1.0), (-1e-3, 1.0)):
        terms = loss(student, torch.tensor([[logit]]), torch.zeros(1, 1), known[None])
        (gradient,) = torch.autograd.grad(terms.total, student)
        assert gradient.item() * sign > 0


def test_a_student_of_the_same_function_space_reaches_its_teacher() -> None:
    """Targets of 0.01 and 0.99 can be reached; the authors' double sigmoid allows 0.5 to 0.731 (known mistake 12)."""
    features = torch.eye(4, dtype=torch.float64)
    told = torch.tensor([[0.01, 0.99], [0.99, 0.01], [0.3, 0.99], [0.01, 0.7]], dtype=torch.float64)
    student = torch.nn.Linear(4, 2, dtype=torch.float64)
    known = torch.ones(2, dtype=torch.bool)
    loss = DistillationLoss(kd(alpha=1.0), known)
    optimiser = torch.optim.LBFGS(student.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        total = loss(student(features), told.logit(), torch.zeros_like(told), torch.ones_like(told) > 0).total
        total.backward()
        return total

    optimiser.step(closure)
    torch.testing.assert_close(student(features).sigmoid(), told, atol=1e-4, rtol=0)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher, target, mask = batch()
    teacher.requires_grad_()
    terms = DistillationLoss(kd(), ALL)(student.requires_grad_(), teacher, target, mask)
    terms.total.backward()
    assert teacher.grad is None
    assert not terms.base.requires_grad
    assert not terms.distill.requires_grad


def _weights_of_a_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    student, teacher, target, mask = batch(rows=5)
    part = slice(0, 2) if rank == 0 else slice(2, 5)
    terms = DistillationLoss(kd(), ALL)(student[part], teacher[part], target[part], mask[part])
    torch.save(terms.weights, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_weights_are_of_the_global_batch(tmp_path: Path) -> None:
    """Two processes with 2 and 3 images: the weights of all five."""
    mp.spawn(_weights_of_a_rank, args=(str(tmp_path),), nprocs=2)
    expected = DistillationLoss(kd(), ALL)(*batch(rows=5)).weights
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)
