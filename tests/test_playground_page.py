"""The page of the playground in a real browser, by clicks and keys alone.

Chromium is found by its name on the path, or by FASTMLP_CHROMIUM; without one, these tests are skipped.
"""

import json
import os
import shutil
import time

import pytest

from fastmlp.playground import read_table
from fastmlp.playground.frames import unpacked
from fastmlp.playground.settings import FIELDS, Number

from playground_server import served

sync_api = pytest.importorskip("playwright.sync_api")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = os.environ.get("FASTMLP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the path, or named by FASTMLP_CHROMIUM")

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

#: What a reader hears of an element, nearly.
NAME = "({ ariaLabel, textContent, id }) => ariaLabel || textContent.trim() || id"

#: Milliseconds after which a test gives up; other tests may run beside it.
PATIENCE = 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "points.csv"
    path.write_text("\n".join(["a,b,kind", *(f"{i % 7},{i % 5},{'xy'[i % 2]}" for i in range(40))]), encoding="utf-8")
    with served(read_table(path, "kind")) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Page:
    """A page that is open, and what it has sent and got."""

    def __init__(self, server, browser, fragment="dataset=spiral", size=DESKTOP, scheme="light"):
        self.problems, self.sent, self.views = [], [], []
        self.tab = browser.new_page(viewport=size, color_scheme=scheme)
        self.tab.set_default_timeout(PATIENCE)
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on("console", lambda line: line.type == "error" and self.problems.append(line.text))
        self.tab.on("websocket", self._listen)
        self.tab.goto(f"{server.address}#{fragment}")
        self.tab.wait_for_selector("html[data-drawn]")

    def _listen(self, socket):
        socket.on("framesent", lambda text: self.sent.append(json.loads(text)))
        socket.on("framereceived", self._received)

    def _received(self, frame):
        if isinstance(frame, bytes):
            header, _ = unpacked(frame)
            if header["type"] == "view":
                self.views.append(header)

    def wait_for(self, expression):
        """Wait until an expression holds; Playwright's own way needs eval, which the page forbids."""
        self._wait(lambda: self.tab.evaluate(expression), expression)

    def wait_for_widths(self, widths):
        """Wait until the server has sent a network of these widths."""
        self._wait(lambda: self.views[-1]["widths"] == list(widths), widths)

    def _wait(self, is_so, what):
        until = time.monotonic() + PATIENCE / 1000
        while not is_so():
            assert time.monotonic() < until, what
            self.tab.wait_for_timeout(20)

    def settings(self):
        """Return the fields of the address."""
        return dict(part.split("=") for part in self.tab.url.partition("#")[2].split("&") if part)


@pytest.fixture
def opened(server, browser):
    pages = []

    def open_page(*args, **kwargs):
        pages.append(Page(server, browser, *args, **kwargs))
        return pages[-1]

    yield open_page
    for page in pages:
        page.tab.close()
        assert page.problems == []


def test_a_spiral_is_learned_by_clicks_alone(opened):
    page = opened("")
    tab = page.tab
    tab.get_by_role("radio", name="Spiral").check()
    tab.get_by_role("button", name="Add a hidden layer").click()
    tab.get_by_text("3 hidden layers").wait_for()
    assert page.settings() == {"dataset": "spiral", "hidden_layer_sizes": "8,8,8"}
    tab.get_by_role("button", name="Play", exact=True).click()
    page.wait_for("parseFloat(document.getElementById('test-score').textContent) > 95")
    tab.get_by_role("button", name="Pause").click()
    told = tab.get_by_role("status")
    sync_api.expect(told).to_contain_text("Paused. Epoch")
    assert max(view["test"]["score"] for view in page.views) > 0.95 and page.views[-1]["train"]["loss"] < 0.3
    epochs = [view["epoch"] for view in page.views]
    assert epochs == sorted(epochs) and len(set(epochs)) > 10  # seen update by update


def test_a_page_that_is_paused_asks_for_nothing(opened):
    page = opened()
    tab = page.tab
    tab.get_by_role("button", name="Play", exact=True).click()
    page.wait_for("parseInt(document.getElementById('epoch').textContent) > 4")
    tab.get_by_role("button", name="Pause").click()
    sync_api.expect(tab.get_by_role("status")).to_contain_text("Paused")
    tab.wait_for_timeout(300)
    n_sent, n_got = len(page.sent), len(page.views)
    tab.wait_for_timeout(500)
    assert (len(page.sent), len(page.views)) == (n_sent, n_got)


def test_step_and_reset(opened):
    page = opened()
    tab = page.tab
    step = tab.get_by_role("button", name="Step")
    for epoch in (1, 2):
        step.click()
        sync_api.expect(tab.locator("#epoch")).to_have_text(str(epoch))
    sync_api.expect(tab.get_by_role("status")).to_contain_text("Epoch 2, training loss 0.")
    tab.get_by_role("button", name="Reset").click()
    sync_api.expect(tab.locator("#epoch")).to_have_text("0")
    first, last = page.views[0], page.views[-1]
    assert (last["epoch"], last["train"]) == (0, first["train"])  # the same first weights
    tab.get_by_role("button", name="New seed").click()
    page.wait_for("location.hash.includes('random_state')")
    page.wait_for("document.getElementById('control-random_state').value !== '0'")


def test_every_slider_moves_by_keys_and_reaches_the_session(opened):
    page = opened("dataset=circle&learning_rate=cosine")
    sliders = [name for name, field in FIELDS.items() if isinstance(field, Number) and name != "random_state"]
    assert len(sliders) >= 7
    for name in sliders:
        slider = page.tab.get_by_label(FIELDS[name].label, exact=True)
        before = slider.input_value()
        slider.press("ArrowRight")
        assert slider.input_value() != before, name
        page.wait_for(f"location.hash.includes('{name}=')")
        assert page.settings()[name] != str(FIELDS[name].default), name
    assert page.views[-1]["problem"] is None


def test_layers_units_and_features_are_added_and_removed_by_keys(opened):
    page = opened("dataset=circle&hidden_layer_sizes=2&features=x1")
    tab = page.tab

    def press(name, widths):
        button = tab.get_by_role("button", name=name, exact=True)
        button.press("Enter")
        page.wait_for(f"document.querySelectorAll('.unit:not(.feature)').length === {sum(widths)}")
        page.wait_for_widths((1, *widths))

    press("Add a unit to hidden layer 1", (3, 1))
    assert "hidden layer 1" in tab.evaluate("document.activeElement.ariaLabel")  # which was made anew
    press("Add a hidden layer", (3, 3, 1))
    press("Remove a unit from hidden layer 2", (3, 2, 1))
    press("Remove the last hidden layer", (3, 1))
    tab.get_by_role("button", name="Feature x₁x₂").press("Space")
    sync_api.expect(tab.get_by_role("button", name="Feature x₁x₂")).to_have_attribute("aria-pressed", "true")
    page.wait_for_widths((2, 3, 1))
    assert page.settings()["features"] == "x1,x1_x2"
    tab.get_by_role("button", name="Hidden layer 1, unit 2").focus()
    sync_api.expect(tab.locator("#detail")).to_contain_text("Hidden layer 1, unit 2: bias")
    sync_api.expect(tab.locator("#output-title")).to_have_text("Hidden layer 1, unit 2")


def test_choices_are_selected(opened):
    page = opened("dataset=circle")
    for name, label, value in (
        *(("activation", "Activation", "gelu"), ("solver", "Solver", "rmsprop"), ("loss", "Loss", "focal")),
        *(("learning_rate", "Schedule", "cosine"), ("batch_norm", "Batch normalisation", "after")),
    ):
        page.tab.get_by_role("combobox", name=label, exact=True).select_option(value)
        page.wait_for(f"location.hash.includes('{name}={value}')")
    page.tab.get_by_role("radio", name="Plane").check()  # a regression has other losses
    sync_api.expect(page.tab.locator("#score-name")).to_have_text("Test R²")
    assert page.tab.get_by_role("combobox", name="Loss", exact=True).input_value() == "squared_error"


def test_settings_that_make_no_sense_are_told(opened):
    page = opened("dataset=circle&noise=9&solver=lbfgs&colour=red")
    sync_api.expect(page.tab.locator("#problem-noise")).to_have_text('must be a number from 0 to 0.5, got "9"')
    sync_api.expect(page.tab.locator("#alert")).to_contain_text("colour: there is no such setting")
    assert page.settings() == {"dataset": "circle", "solver": "lbfgs"}
    page.tab.get_by_label("Dropout").press("ArrowRight")
    sync_api.expect(page.tab.locator("#problem-dropout")).to_contain_text("makes no sense with solver='lbfgs'")
    assert page.tab.get_by_label("Dropout").input_value() == "0"


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_diverges_is_told(opened):
    page = opened("dataset=plane&solver=sgd&learning_rate_init=100&activation=identity")
    page.tab.get_by_role("button", name="Play", exact=True).click()
    alert = page.tab.get_by_role("alert")
    sync_api.expect(alert).to_contain_text("Training stopped", timeout=PATIENCE)
    alert.get_by_role("button", name="Reset").click()
    sync_api.expect(page.tab.locator("#epoch")).to_have_text("0")
    sync_api.expect(alert).to_be_hidden()


def test_the_program_runs(opened):
    page = opened("dataset=moons&hidden_layer_sizes=3&n_samples=60")
    page.tab.get_by_role("button", name="Step").click()
    sync_api.expect(page.tab.locator("#epoch")).to_have_text("1")
    page.tab.get_by_role("button", name="Python code").click()
    code = page.tab.locator("#code")
    sync_api.expect(code).to_contain_text("range(1)")
    names = {"print": lambda *shown: None}
    exec(code.inner_text(), names)
    assert names["model"].score(names["X_test"], names["y_test"]) == page.views[-1]["test"]["score"]
    page.tab.keyboard.press("Escape")
    sync_api.expect(code).to_be_hidden()


def test_an_address_shares_the_settings(opened):
    fragment = "dataset=xor&hidden_layer_sizes=4,2&features=x1,x2,x1_x2&activation=relu&alpha=0.01"
    page = opened(fragment)
    settings = dict(part.split("=") for part in fragment.split("&"))
    assert page.settings() == settings
    page.tab.evaluate("location.hash = 'dataset=moons'")
    sync_api.expect(page.tab.get_by_role("radio", name="Moons")).to_be_checked()
    page.wait_for("!location.hash.includes('relu')")


def test_the_table_of_the_command_line_comes_first(opened):
    page = opened("")
    assert page.tab.get_by_role("radio", name="kind").is_checked()
    assert page.tab.locator("#legend").inner_text().split() == ["class", "x", "class", "y"]
    assert page.tab.locator("#x-axis").inner_text().startswith("a")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_accessible_and_no_wider_than_the_screen(opened, size, scheme):
    page = opened("dataset=blobs&noise=9", size=size, scheme=scheme)
    tab = page.tab
    tab.get_by_role("button", name="Step").click()
    sync_api.expect(tab.locator("#epoch")).to_have_text("1")
    assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert violations(tab) == []
    tab.get_by_role("button", name="Python code").click()
    assert violations(tab) == []


def violations(tab):
    """Return what axe finds, in a line each."""
    found = Axe().run(tab, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    return [
        f"{violation['id']}: {node['html'][:120]} {' '.join(node['failureSummary'].split())[:300]}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]


def test_the_keyboard_reaches_everything_in_order(opened):
    tab = opened().tab
    reached = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate(f"({NAME})(document.activeElement)"))
    expected = ["Skip to the network", "Copy link", "Python code", "Play", "Step: one epoch"]
    assert reached[:5] == expected and reached[7] == "speed"
    tab.get_by_role("button", name="Play", exact=True).focus()
    tab.keyboard.press("Space")
    sync_api.expect(tab.get_by_role("button", name="Pause")).to_be_focused()


def test_the_end_of_the_server_is_told(browser):
    with served() as running:
        page = Page(running, browser)
    sync_api.expect(page.tab.get_by_role("alert")).to_contain_text("The playground has ended")
    page.tab.close()
