"""The exported graph takes 8-bit pixels and gives what the saved model gives."""

import pytest
import torch

from deploy.small import OPTIONS, classifier, pictures
from mxa.deploy.graph import Graph, block_names

BLOCKS = ("stages.0.blocks.0", "stages.1.blocks.0", "stages.2.blocks.0")


def test_it_equals_the_classifier() -> None:
    one = classifier()
    pixels = torch.from_numpy(pictures(5))
    before = one.logits(pixels)
    graph = Graph(one)
    with torch.inference_mode():
        logits, boxes = graph(pixels)
    torch.testing.assert_close(logits, before, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        boxes, torch.stack([one.regions(pixels)[block] for block in BLOCKS], 1), atol=1e-4, rtol=0
    )
    assert torch.equal(one.logits(pixels), before)  # the classifier's own network is left alone


@pytest.mark.parametrize(
    ("options", "expected"), [({}, BLOCKS), ({"mxa_stages": [2]}, BLOCKS[2:]), ({"mxa_stages": []}, ())]
)
def test_blocks_are_named_in_the_networks_order(options: dict[str, object], expected: tuple[str, ...]) -> None:
    one = classifier(options=OPTIONS | options)
    assert block_names(one) == expected
    assert tuple(one.regions(torch.from_numpy(pictures(1)))) == expected


def test_networks_of_others_stay_as_they_are() -> None:
    one = classifier("resnet10t", options={})
    pixels = torch.from_numpy(pictures(2))
    graph = Graph(one)
    with torch.inference_mode():
        (logits,) = graph(pixels)
    torch.testing.assert_close(logits, one.logits(pixels), atol=1e-5, rtol=1e-5)
    assert graph.blocks == ()
