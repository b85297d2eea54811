"""Operations of a network against a count by hand."""

import torch
from torch import nn

from mxa.models.build import build_model
from mxa.models.cost import forward_flop


def test_convolutions_and_matrix_products_are_counted() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 5, groups=3, padding=2),
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 10),
    ).train()
    by_hand = 2 * (16 * 6 * 9 * 1 + 16 * 6 * 25 * 2 + 96 * 10)
    assert forward_flop(network, 8) == by_hand
    assert not network.training
    assert torch.equal(network[1].running_mean, torch.zeros(6)), "nothing was learnt from it"


def test_mxa_costs_more_than_its_backbone_and_less_without_regions() -> None:
    plain, cbam, mxa = (
        forward_flop(build_model(name, 14, 64, options=options), 64)
        for name, options in (
            ("efficientvit_m0", {}),
            ("mxa_efficientvit_m0", {"mxa_roi": False}),
            ("mxa_efficientvit_m0", {}),
        )
    )
    assert plain < cbam < mxa < 2 * plain
