"""The console in a real browser: it shows what the server does, second by second, and a record can be tried on it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlinfer

PIPELINE = """
name = "irises"
keep = ["flower"]
source = {{ type = "jsonl", path = "in/*.jsonl" }}
host = {{ type = "sklearn", model = "{model}", method = ["predict", "predict_proba"] }}
destination = {{ type = "sql", url = "sqlite:///scores.db", table = "scores" }}
"""
MLINFER = [sys.executable, "-m", "mlinfer"]
expect.set_options(timeout=20_000)  # a machine that is busy shows a second's news later


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline over a model of four numbers, beside each other and not in a tensor."""
    found = tmp_path_factory.mktemp("console")
    flowers = load_iris(as_frame=True)
    inputs = flowers.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    model = LogisticRegression(max_iter=500).fit(inputs, flowers.target_names[flowers.target])
    mlinfer.save(model, found / "iris.mlinfer", example=inputs, method=["predict", "predict_proba"])
    (found / "in").mkdir()
    flower = {**dict.fromkeys(inputs.columns, 1.0), "flower": "one"}
    (found / "in/flowers.jsonl").write_text(f"{json.dumps(flower)}\n")
    (found / "pipeline.toml").write_text(PIPELINE.format(model=found / "iris.mlinfer"))
    return found


def served(folder: Path, *more: str) -> Iterator[tuple[str, str]]:
    """The addresses of a server and of its console."""
    where = ["--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]
    command = [*MLINFER, "serve", str(folder / "pipeline.toml"), *where, *more]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"serving at (\S+)/predict; console at (\S+);", said)
        try:
            assert found is not None, said + process.stderr.read()
            yield found[1], found[2]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[str, str]]:
    yield from served(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # in a container root has no other sandbox than the container
        found = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which anything that the browser complains about fails the test."""
    complaints: list[str] = []
    found = browser.new_page()
    found.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: complaints.append(str(error)))
    yield found
    found.close()
    assert complaints == []


def test_it_shows_what_the_server_does_as_it_does_it(server: tuple[str, str], page: Page) -> None:
    url, console = server
    page.goto(console)
    expect(page.get_by_role("heading", name="irises")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("ready")
    expect(page.get_by_role("img", name="Requests: HTTP")).to_contain_text("SklearnHost")
    expect(page.get_by_role("img", name="Requests: HTTP")).to_contain_text("SqlDestination")
    expect(page.locator("#model")).to_contain_text("iris")
    expect(page.locator("#rejects")).to_have_text("None: every record was answered.")
    flower = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    with httpx.Client(base_url=url) as client:
        for _ in range(20):
            assert client.post("/predict", json=[flower] * 3).status_code == 200
        assert client.post("/predict", json=[flower, {**flower, "petal_width": None}]).status_code == 422
    expect(page.locator("#rejects")).to_contain_text("missing value")
    expect(page.locator("#batches")).to_contain_text("3\u20134")
    expect(page.locator("#latency").get_by_role("row", name="Model")).to_contain_text("ms")
    axis = page.locator(".rates > div", has_text="Records answered").locator(".axis")
    expect(axis).to_contain_text(re.compile(r"most [1-9]"))  # the rate of a second that has passed by now


def test_a_record_is_tried_and_answered_as_by_the_server(server: tuple[str, str], page: Page) -> None:
    url, console = server
    page.goto(console)
    values = {"sepal_length": "6.3", "sepal_width": "2.5", "petal_length": "5.0", "petal_width": "1.9"}
    for name, value in values.items():
        page.get_by_label(name).fill(value)
    page.get_by_label("flower").fill("<b>one</b>")
    page.get_by_role("button", name="Answer").click()
    answer = page.locator("#answer")
    expect(answer.get_by_role("heading")).to_have_text("Answered")
    wanted = httpx.post(f"{url}/predict", json={name: float(value) for name, value in values.items()}).json()
    expect(answer.get_by_role("row", name="y_pred")).to_contain_text(wanted["y_pred"])
    expect(answer.get_by_role("row", name="flower")).to_contain_text("<b>one</b>")  # it stays text
    assert answer.locator("b").count() == 0


def test_a_bad_record_is_refused_at_its_field(server: tuple[str, str], page: Page) -> None:
    page.goto(server[1])
    page.get_by_label("petal_width").fill("")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#answer").get_by_role("heading")).to_have_text("Refused: 1 bad record")
    expect(page.get_by_label("petal_width")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("petal_width")).to_have_accessible_description(
        "wanted a value (double), found none"
    )
    expect(page.locator("#rejects")).to_contain_text("missing value")


def test_what_is_no_number_is_refused_at_its_field(server: tuple[str, str], page: Page) -> None:
    page.goto(server[1])
    for number, value in enumerate(["wide", "5,1", '1, "flower": "x"'], 1):
        page.get_by_label("petal_width").fill(value)
        page.get_by_role("button", name="Answer").click()
        expect(page.get_by_label("petal_width")).to_have_accessible_description(
            re.compile(r"wanted double, found")
        )
        expect(page.locator("#rejects")).to_contain_text(f"wrong type{number}")


def test_the_page_of_the_server_says_which_field_is_wrong(server: tuple[str, str], browser: Browser) -> None:
    page = browser.new_page()  # the browser complains about a status of 422
    page.goto(f"{server[0]}/docs")
    page.get_by_label("petal_width").fill("wide")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("pre")).to_contain_text("422")
    expect(page.locator("pre")).to_contain_text("petal_width")
    expect(page.locator("pre")).to_contain_text("wide")
    page.get_by_label("petal_width").fill("0.2")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("pre")).to_contain_text("setosa")
    lines = (
        page.locator("pre").inner_text().splitlines()
    )  # a field a line: between probabilities nothing is cut
    assert len(lines) == len(json.loads("\n".join(lines[1:]))) + 3
    page.close()


def test_a_server_that_has_gone_is_said_to_have(folder: Path, browser: Browser) -> None:
    page = browser.new_page()  # the browser may complain that nobody is there
    running = served(folder)
    _, console = next(running)
    page.goto(console)
    expect(page.get_by_role("status")).to_have_text("ready")
    running.close()
    expect(page.get_by_role("status")).to_have_text("cannot be reached")
    expect(page.locator("#ago")).to_contain_text("last seen")
    page.close()


def test_where_keys_are_asked_for_nothing_can_be_tried(folder: Path, page: Page) -> None:
    done = subprocess.run([*MLINFER, "keys", "new", "somebody"], capture_output=True, text=True, check=True)
    _, *line = done.stdout.splitlines()
    (folder / "keys.toml").write_text("\n".join(line))
    (folder / "keys.toml").chmod(0o600)
    running = served(folder, "--keys", str(folder / "keys.toml"))
    _, console = next(running)
    page.goto(console)
    expect(page.get_by_text("The server asks for TLS or a key")).to_be_visible()
    expect(page.get_by_role("button", name="Answer")).to_be_hidden()
    assert httpx.post(f"{console}/try", json={}).status_code == 403
    running.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page(
    server: tuple[str, str], browser: Browser, width: int, scheme: Any
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(server[1])
    expect(page.get_by_role("status")).to_have_text("ready")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
