"""The page's script without a browser, in Node: what it shows when answers and pictures come late, or never."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import mxa.serve

NODE = shutil.which("node")
PAGE = Path(mxa.serve.__file__).parent / "page"
STUB = Path(__file__).parent / "stub.mjs"
BEGIN = """
import { answer, at, drawn, findings, give, seen, server, slow, submit, tick } from "./stub.mjs";
const told = [];
const tell = (...values) => told.push(values);
"""
START = 'await import("./page.js"); await tick();\n'
END = "\nconsole.log(JSON.stringify(told));\n"

pytestmark = pytest.mark.skipif(NODE is None, reason="no Node is installed")


def play(folder: Path, scenario: str, before: str = "") -> list[Any]:
    """What a scenario tells; ``before`` is run before the page is there."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    shutil.copy(STUB, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "scenario.js").write_text(BEGIN + before + START + scenario + END)
    command = [str(NODE), str(folder / "scenario.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_picture_and_its_findings(tmp_path: Path) -> None:
    scenario = """
        await give(["a.png", 9]);
        tell(!at("working").hidden);
        await answer(0, "A", 0.25);
        tell(drawn(), findings(), seen("problem"), at("working").hidden);"""
    assert play(tmp_path, scenario) == [[True], ["A", ["0.25"], "", True]]


def test_a_picture_that_decodes_slowly_does_not_come_to_anothers_findings(tmp_path: Path) -> None:
    scenario = """
        let decoded;
        slow.A = new Promise((done) => (decoded = done));
        await give(["a.png", 9]);
        await answer(0, "A", 0.25);
        await give(["b.png", 9]);
        await answer(1, "B", 0.75);
        decoded();
        await tick();
        tell(drawn(), findings());"""
    assert play(tmp_path, scenario) == [["B", ["0.75"]]]


TOO_LARGE = "The file has 1001 bytes; this server takes 1000 at most."
SEVERAL = "Several files were given; give one at a time."


@pytest.mark.parametrize(
    ("files", "problem"), [('["b.png", 1001]', TOO_LARGE), ('["b.png", 9], ["c.png", 9]', SEVERAL)]
)
@pytest.mark.parametrize("answered", [False, True])
def test_a_refusal_ends_what_is_under_way_and_stays(tmp_path: Path, files: str, problem: str, answered: bool) -> None:
    """``answered``: only the picture is still to be decoded."""
    scenario = f"""
        let decoded;
        slow.A = new Promise((done) => (decoded = done));
        await give(["a.png", 9]);
        if ({json.dumps(answered)}) await answer(0, "A", 0.25);
        await give({files});
        tell(seen("problem"));
        if ({json.dumps(not answered)}) await answer(0, "A", 0.25);
        decoded();
        await tick();
        tell(seen("problem"), findings(), at("canvas").hidden, at("working").hidden);"""
    assert play(tmp_path, scenario) == [[problem], [problem, [], True, True]]


NO_TOKEN = "server.status = 401;\n"


def test_a_wrong_token_is_told_and_the_right_one_goes_on(tmp_path: Path) -> None:
    scenario = """
        tell(at("token-form").hidden, seen("no-model"));
        await submit("wrong");
        tell(at("token-form").hidden, seen("no-model"));
        server.status = 200;
        await submit(" right ");
        tell(at("token-form").hidden, seen("no-model"), at("main").hidden, server.headers.at(-1));"""
    assert play(tmp_path, scenario, NO_TOKEN) == [
        [False, ""],
        [False, "The token is wrong."],
        [True, "", False, {"Authorization": "Bearer right"}],
    ]


@pytest.mark.parametrize("token", ["wrong\N{EN DASH}dash", "w\xf6rter-w\xf6rter-w\xf6rter", "two words"])
def test_a_token_that_can_be_none_is_not_even_sent(tmp_path: Path, token: str) -> None:
    scenario = f"""
        await submit({json.dumps(token)});
        tell(seen("no-model"), server.headers.length, at("token-form").hidden);"""
    message = "A token has visible ASCII characters only; copy it once more."
    assert play(tmp_path, scenario, NO_TOKEN) == [[message, 1, False]]


def test_a_server_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    scenario = """
        globalThis.fetch = () => Promise.reject(new TypeError("gone"));
        await submit("right");
        await submit("right");
        tell(seen("no-model"), at("header").children.length, at("token-form").hidden);"""
    message = "The server does not answer; is it still running?"
    assert play(tmp_path, scenario, NO_TOKEN) == [[message, 0, False]]
