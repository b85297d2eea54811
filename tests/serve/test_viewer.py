"""The page's viewer without a browser: the parts that draw nothing, in Node."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import mxa.serve

NODE = shutil.which("node")
VIEWER = Path(mxa.serve.__file__).parent / "page" / "viewer.js"
CALL = """
const [code, regions] = JSON.parse(require("fs").readFileSync(0));
import("data:text/javascript," + encodeURIComponent(code)).then(({ boxesByStage }) =>
    console.log(JSON.stringify([...boxesByStage(regions)])));
"""


@pytest.mark.skipif(NODE is None, reason="no Node is installed")
@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ({}, []),
        ({"stages.0.blocks.0": [1], "stages.2.blocks.0": [2], "stages.2.blocks.1": [3]}, [[0, [[1]]], [2, [[3]]]]),
        ({f"stages.1.blocks.{b}.regions.{k}": [b, k] for b in range(2) for k in range(2)}, [[1, [[1, 0], [1, 1]]]]),
    ],
    ids=["none", "one region", "two regions"],
)
def test_the_boxes_of_the_last_block_of_each_stage(regions: dict[str, list[int]], expected: list[object]) -> None:
    given = json.dumps([VIEWER.read_text(encoding="utf-8"), regions])
    done = subprocess.run([str(NODE), "-e", CALL], input=given, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == expected
