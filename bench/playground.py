"""Measure the playground in a Chromium: updates a second, start, memory: python bench/playground.py [CHROMIUM]

A spiral with three hidden layers of eight units is trained for some seconds at each speed, on a page of 1440 x 900.  It
needs the extra `dev`, which brings Playwright.
"""

import re
import shutil
import subprocess
import sys
import time

from playwright.sync_api import sync_playwright

SECONDS = 5
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main(executable: str) -> None:
    """Print the figures, a line each."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "fastmlp", "playground", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        print(f"from the command to the address: {time.perf_counter() - begin:.2f} s")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            begin = time.perf_counter()
            page.goto(f"{address}#dataset=spiral&hidden_layer_sizes=8,8,8")
            page.wait_for_selector("html[data-drawn]")
            print(f"from the address to the drawn page: {time.perf_counter() - begin:.2f} s")
            for speed in (0, 3):
                updates(page, speed)
            browser.close()
        print(f"memory of the server: {resident(server.pid)}")
    finally:
        server.terminate()
        server.wait()


def updates(page, speed: int) -> None:
    """Train at a speed and print how often the page was drawn anew."""
    page.click("#reset")
    page.fill("#speed", str(speed))
    per_update = int(page.inner_text("#speed-value").split()[0])
    begin = time.perf_counter()
    page.click("#play")
    page.wait_for_timeout(1000 * SECONDS)
    page.click("#play")
    seconds = time.perf_counter() - begin
    page.wait_for_timeout(300)
    epochs = int(page.inner_text("#epoch").replace(",", ""))
    a_second = epochs / per_update / seconds
    print(f"{per_update} epochs per update: {a_second:.0f} updates a second, accuracy {page.inner_text('#test-score')}")


def resident(pid: int) -> str:
    """Return the resident memory of a process, as Linux tells it."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            return next(f"{int(line.split()[1]) / 1024:.0f} MiB" for line in status if line.startswith("VmRSS"))
    except OSError:
        return "not known here"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else next(filter(None, map(shutil.which, NAMES))))
