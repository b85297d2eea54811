"""What a server tells of its model: everything that is needed, nothing of the machine where it was trained."""

import json
from dataclasses import replace

from mxa.predictor import Predictor
from mxa.serve.description import describe, public_config
from mxa.serve.options import ServeOptions

TRAINING = {
    "config": {"out": "/home/jane/runs/first", "data": {"root": "/data/patients"}},
    "environment": {"command": ["mxa", "train", "--data.root", "/data/patients"], "platform": "Linux-machine"},
    "source": {"library": "torchxrayvision 1.3", "weights": "all", "file": "/home/jane/chex.pt", "sha256": "0" * 64},
    "data": {
        "dataset": "chexpert",
        "fingerprint": "f" * 64,
        "policy": {"uncertain": "u-ones", "blank": "negative"},
        "images": {"train": 3, "valid": 2},
    },
    "distillation": {
        "teachers": [
            {"path": "/home/jane/teachers/densenet", "fingerprint": "e" * 64},
            {"path": "C:\\Users\\jane\\teacher", "fingerprint": "d" * 64},
        ],
        "taught": ["Edema", "Nodule/Mass"],
        "not_taught": ["Nodule/Mass"],
    },
}


def test_paths_and_commands_are_left_out(predictor: Predictor) -> None:
    config = {**predictor.config, "training": TRAINING}
    config["labels"] = {**config["labels"], "findings": [*config["labels"]["findings"][:-1], "Nodule/Mass"]}
    public = public_config(config)
    assert set(public["training"]) == {"source", "data", "distillation"}
    told = describe(replace(predictor, config=config), ["a"], "", ServeOptions()).model_dump_json()
    for text in (json.dumps(public), told):
        for secret in ("jane", "/data", "--data.root", "Linux-machine", "/home", "C:"):
            assert secret not in text
    card = json.loads(told)["card"]
    assert "`densenet` (eeeeeeeeeeee)" in card
    assert "`teacher` (dddddddddddd)" in card
    assert "`chex.pt`" in card
    assert "not Nodule/Mass" in card  # a finding is no path
    assert TRAINING["config"]["out"] == "/home/jane/runs/first"  # the original stays


def test_of_the_fitting_data_only_what_is_known_to_be_harmless(predictor: Predictor) -> None:
    tuning = replace(predictor.tuning, fitted_on={"dataset": "a", "images": 3, "root": "/data/patients"})
    told = describe(replace(predictor, tuning=tuning), [], "none", ServeOptions(max_bytes=5))
    assert told.fitted_on == {"dataset": "a", "images": 3}
    assert told.limits.bytes == 5
    assert told.maps_missing == "none"
