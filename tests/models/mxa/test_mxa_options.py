"""The block's options."""

import pytest

from mxa.models.mxa import MxaOptions


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"region": "middle"}, "mxa_region"),
        ({"source": "picture"}, "mxa_source"),
        ({"gates": False, "spatial_bias": 0.0}, "mxa_spatial_bias"),
        ({"gates": False, "layer_scale": 0.1}, "mxa_layer_scale"),
        ({"layer_scale": 0.0}, "mxa_layer_scale"),
        ({"layer_scale": float("nan")}, "mxa_layer_scale"),
        ({"region": "moments", "log_size": True}, "mxa_log_size"),
        ({"roi": False, "log_size": True}, "mxa_log_size"),
        ({"spatial_kernel": 4}, "mxa_spatial_kernel"),
        ({"spatial_kernel": -1}, "mxa_spatial_kernel"),
        ({"reduction": 0}, "mxa_reduction"),
        ({"region_reduction": 0}, "mxa_region_reduction"),
        ({"region_pool": 0}, "mxa_region_pool"),
        ({"min_size": 0.95}, "mxa_min_size"),
        ({"smoothing": 0.5}, "mxa_smoothing"),
        ({"jitter": 1.0}, "mxa_jitter"),
        ({"roi": False, "jitter": 0.1}, "mxa_jitter"),
        ({"regions": 0}, "mxa_regions"),
        ({"regions": 2, "min_size": 0.7}, "mxa_min_size"),
        ({"roi": False, "regions": 2}, "mxa_regions"),
        ({"roi": False, "gates": False}, "mxa_gates"),
        ({"roi": False, "put_back": True}, "mxa_put_back"),
        ({"roi": False, "region": "moments"}, "mxa_region"),
        ({"roi": False, "region_pool": 2, "min_size": 0.3}, "mxa_region_pool, mxa_min_size"),
        ({"gates": False, "reduction": 8}, "mxa_reduction"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MxaOptions(**options)  # type: ignore[arg-type]
