"""A notebook in JupyterLab, in a browser: what is seen, what answers to the mouse, and what the stop button leaves.

The notebook is the quickstart, with cells after its own that draw a tape with layers and train until they are stopped.
It needs `pip install -e '.[test,browser]'` and a browser: Chromium or Chrome on the path, such as Debian's `chromium`,
or that of `playwright install chromium`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "01_quickstart.ipynb"

CELLS = (
    """def deep(x, ws):
    for w in ws:
        x = np.tanh(x @ w)
    return (x * x).sum()

tg.trace(tg.grad(deep))(np.ones((4, 3)), [np.eye(3)] * 12)""",
    "long = train.fit(objective, model, batches, optimizers.adam(5e-3), epochs=10**6)",
    "print('kept', len(long.history['loss']) == int(long.state.step) > 0, long.stopped)\nlong",
)

LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")

WAIT = 180_000
"""How long something may take, in milliseconds, on a machine that does other things as well."""


def browser_of(playwright: Any) -> str:
    """The program of a browser; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if Path(playwright.chromium.executable_path).exists():
        return str(playwright.chromium.executable_path)
    pytest.skip("no Chromium: install one with `playwright install chromium` or `apt-get install chromium`")


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab of its own, which shows this folder."""
    config = folder.parent / "config"
    settings = config / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="),
        f"--ServerApp.root_dir={folder}",
    ]
    own = {f"JUPYTER_{name}_DIR": str(config / name.lower()) for name in ("DATA", "RUNTIME")}
    own |= {"JUPYTER_CONFIG_DIR": str(config), "IPYTHONDIR": str(config / "ipython")}
    path = os.pathsep.join(filter(None, [str(NOTEBOOK.parent.parent), os.environ.get("PYTHONPATH")]))
    with (folder.parent / "log").open("w+") as log:
        server = subprocess.Popen(command, env={**os.environ, **own, "PYTHONPATH": path}, stdout=log, stderr=log)
        try:
            until = time.monotonic() + WAIT / 1000
            while True:
                try:
                    with urllib.request.urlopen(f"{address}/api", timeout=5):
                        break
                except OSError:
                    log.seek(0)
                    assert server.poll() is None and time.monotonic() < until, log.read()
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The notebook, opened and not yet run. Its scripts may raise nothing, and it may not go to the network."""
    for package in ("jupyterlab", "playwright"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[test,browser]'")
    from playwright.sync_api import sync_playwright

    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = json.loads(NOTEBOOK.read_text())
    for i, source in enumerate(CELLS):
        cell = {"cell_type": "code", "id": f"more-{i}", "metadata": {}, "outputs": [], "execution_count": None}
        notebook["cells"].append(cell | {"source": source})
    (folder / NOTEBOOK.name).write_text(json.dumps(notebook))
    with sync_playwright() as playwright:
        program = browser_of(playwright)
        with jupyterlab(folder) as address:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.set_default_timeout(WAIT)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda r: errors.append(r.url) if not r.url.startswith(LOCAL) else None)
            page.goto(f"{address}/lab/tree/{NOTEBOOK.name}")
            yield page
            browser.close()
            assert not errors


def cell_with(page: Any, text: str) -> Any:
    """The cell whose source has this text."""
    return page.locator(".jp-CodeCell", has=page.locator(".jp-InputArea", has_text=text))


def run_cell(page: Any, text: str) -> None:
    cell_with(page, text).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")


def menu(page: Any, *path: str) -> None:
    for name in path:
        page.locator(".lm-MenuBar-item, .lm-Menu-item", has=page.get_by_text(name, exact=True)).last.click()


def is_drawn(image: Any) -> bool:
    """Whether an image has been loaded, and has a size."""
    image.scroll_into_view_if_needed()
    return bool(image.evaluate("i => i.decode().then(() => i.naturalWidth > 100 && i.width > 100)"))


def colour(element: Any) -> str:
    return str(element.evaluate("e => getComputedStyle(e).backgroundColor"))


def test_a_notebook_in_jupyterlab(page: Any) -> None:
    # Not trusted: its scripts are taken out, and the tape is a picture that stands still, with nothing to click.
    first, second = cell_with(page, "rng.normal(size=3)"), cell_with(page, "def deep")
    first.locator("img.still").wait_for()
    assert is_drawn(first.locator("img.still")) and "data:image/svg+xml" in first.locator("img").get_attribute("src")
    assert first.locator("button:visible, input:visible, pre:visible").count() == 0
    bar = cell_with(page, "result = train.fit").locator(".tracegrad-progress")
    bar.get_by_text("step 600/600 (100%)").wait_for(state="attached")

    # A picture that answers, beside one that does not.
    run_cell(page, "import tracegrad as tg")
    run_cell(page, "def deep")
    second.locator(".strips g[data-n]").first.wait_for(state="attached")
    assert second.locator("img.still").count() == 0
    first.locator("img.still").wait_for(state="attached")

    # A layer unfolds when it is clicked, a step tells its line, and the search finds steps.
    boxes = second.locator(".strips g[data-n]:visible")
    before = boxes.count()
    second.locator("summary:visible").first.click()
    second.locator("summary:visible").nth(1).click()
    assert boxes.count() == before + 6  # of one layer: a product and tanh, and four steps back
    second.locator(".strips g[data-n]:visible", has_text="= tanh").first.click()
    told = second.locator("pre").last.inner_text()
    assert "= tanh" in told and "x = np.tanh(x @ w)" in told
    second.locator("input[type=search]").fill("= tanh")
    assert second.locator(".note").inner_text() == "1 of 12 found"

    # All of it: the tape's picture, the progress bar, the plots.
    menu(page, "Run", "Run All Cells")
    first.locator(".strips g[data-n]").first.wait_for()
    assert first.locator(".strips g[data-n]:visible").count() == 11
    bar.get_by_text("step 600/600 (100%)").wait_for()
    assert bar.locator("progress").evaluate("b => b.value / b.max") == 1
    for cell in (cell_with(page, "history.plot()"), cell_with(page, "import matplotlib.pyplot")):
        cell.locator(".jp-OutputArea img").wait_for()
        assert is_drawn(cell.locator(".jp-OutputArea img"))

    # The stop button ends the training; what was trained is there, and the kernel goes on.
    long = cell_with(page, "long = train.fit")
    long.get_by_text("steps/s").wait_for()
    page.locator("[data-command='notebook:interrupt-kernel'], [title^='Interrupt the kernel']").first.click()
    after = cell_with(page, "print('kept'").locator(".jp-OutputArea")
    after.get_by_text("kept True interrupted").wait_for()
    after.get_by_text("FitResult(History").wait_for()
    assert "Traceback" not in long.inner_text() and "interrupted" in long.inner_text()

    # The picture follows the theme.
    light = colour(first.locator(".tracegrad"))
    menu(page, "Settings", "Theme", "JupyterLab Dark")
    page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    page.wait_for_function(
        "old => getComputedStyle(document.querySelector('.tracegrad')).backgroundColor != old", arg=light
    )
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 700
    assert sum(map(int, re.findall(r"\d+", colour(first.locator(".tracegrad")))[:3])) < 100
