"""Maps come with the picture where the model has them; elsewhere the server says why not."""

import numpy as np
import pytest

from deploy.small import exported, pictures, saved
from mxa.deploy.locate import locate
from mxa.predictor import open_predictor
from mxa.serve.maps import NoMaps, SavedMaps, open_maps
from serve.serving import png, site

GREY = pictures(1, 90)[0, 0][:70]


def test_a_saved_model_gives_maps_whose_means_are_the_logits() -> None:
    maps = open_maps(locate(saved()), "cpu")
    assert maps.missing == ""
    with site(open_predictor(saved(), threads=1), maps=maps) as here:
        assert here.get("/model").json()["maps_missing"] == ""
        answer = here.predict(png(GREY), "?maps=1").json()
        assert here.predict(png(GREY)).json()["maps"] is None
    cells, window = answer["maps"]["cells"], answer["maps"]["window"]
    assert list(cells) == list(answer["logits"])
    for finding, logit in answer["logits"].items():
        assert np.mean(cells[finding]) == pytest.approx(logit, abs=1e-3)
    assert window == [0, -10, 90, 80]  # the fit is "pad": a square around 90 x 70 pixels


def test_an_exported_model_has_none() -> None:
    maps = open_maps(locate(exported("onnx")), "cpu")
    assert isinstance(maps, NoMaps)
    assert "serve the saved model's folder" in maps.missing
    with pytest.raises(RuntimeError, match="exported model"):
        maps(GREY)


def test_a_network_without_exact_maps_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import mxa.explain.explanation
    from mxa.errors import ConfigError

    def refuse(*_: object) -> None:
        raise ConfigError("its head is not linear")

    monkeypatch.setattr(mxa.explain.explanation, "explain_grey", refuse)
    with pytest.raises(ConfigError):
        SavedMaps(locate(saved()), "cpu")
    assert open_maps(locate(saved()), "cpu").missing == "its head is not linear"
