"""What a network costs, without a clock."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.inference_mode()
def forward_flop(model: nn.Module, size: int) -> int:
    """Floating point operations of convolutions and matrix products for one picture; a multiply-add is two.

    Normalisation, activations and pooling are not counted.

    Args:
        model: (B, 1, size, size) -> anything; it is put into evaluation mode.
        size: width and height of the picture.
    """
    parameter = next(model.parameters())
    picture = torch.zeros(1, 1, size, size, dtype=parameter.dtype, device=parameter.device)
    with FlopCounterMode(display=False) as counter:
        model.eval()(picture)
    return int(counter.get_total_flops())
