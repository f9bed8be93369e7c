"""The live page at the admin port, in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlinfer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    found = os.environ.get("MLINFER_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "wanted a browser: install chromium, or name one in MLINFER_BROWSER"
    with sync_playwright() as playwright:
        # a container has no user namespaces for root; the page is our own
        with playwright.chromium.launch(executable_path=found, args=["--no-sandbox"]) as chromium:
            yield chromium


@pytest.fixture
def served(tmp_path):
    """A saved model behind `mlinfer serve`: its process, its address and that of its admin port."""
    X, y = load_iris(return_X_y=True)
    mlinfer.save(LogisticRegression(max_iter=500).fit(X, y), tmp_path / "iris.mlinfer", example=X[:20])
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlinfer", "serve", "iris.mlinfer", "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--admin-bind", admin], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        url = re.search(r"http://[0-9.:]+", process.stderr.readline())[0]
        yield process, url, f"http://{admin}"
    finally:
        process.kill()
        process.communicate()


def test_the_page_shows_what_is_asked_while_it_is_asked_and_that_the_server_has_gone(browser, served):
    process, url, admin = served
    with browser.new_page() as page:
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.goto(admin)
        expect(page.locator("#state")).to_have_text("serving")
        expect(page.get_by_text("no requests yet")).to_be_visible()
        expect(page.locator("[data-label]")).to_contain_text("iris, version")
        for _ in range(3):
            assert httpx.post(f"{url}/predict", json=[{"x": [5, 3, 1, 0.2]}] * 2).status_code == 200
        assert httpx.post(f"{url}/predict", json={"x": None}).status_code == 422
        expect(page.locator('[data-total="mlinfer_serve_rows_total"]')).to_have_text("6")
        expect(page.locator('[data-list="mlinfer_serve_rejects_total"] dd')).to_have_text("1")
        expect(page.locator('[data-time="mlinfer_serve_infer_seconds"]')).to_contain_text("s")
        assert problems == []
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                page.set_viewport_size({"width": width, "height": 800})
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"
                if folder := os.environ.get("MLINFER_SCREENSHOTS"):
                    page.screenshot(path=f"{folder}/console-{width}-{scheme}.png", full_page=True)
        process.kill()
        expect(page.locator("#state")).to_have_text(re.compile(r"^server gone: last seen \d\d:\d\d:\d\d$"))
