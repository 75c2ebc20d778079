"""Drives the pages of the server in Chromium, and takes their pictures on request.

    browser.py URL TOKEN [DIRECTORY]
"""

import json
import math
import sys
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

URL, TOKEN = sys.argv[1:3]
PICTURES = sys.argv[3] if len(sys.argv) > 3 else None
PATIENCE = 30


def request(method, path, body=None, **headers):
    headers = {"Authorization": f"Bearer {TOKEN}", **headers}
    asked = urllib.request.Request(URL + path, data=body, method=method, headers=headers)
    with urllib.request.urlopen(asked) as answer:
        return answer.read()


def fill(keys):
    operations = [{"op": "put", "key": f"user/{number:05}", "value": "x" * 100} for number in range(keys)]
    for start in range(0, keys, 5000):
        body = json.dumps({"operations": operations[start:start + 5000]}).encode()
        request("POST", "/v1/batch", body, **{"Content-Type": "application/json"})


def busy(seconds):
    """Gives the lines of a picture something to show."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left = until - time.monotonic()
        for number in range(int(40 + 30 * math.sin(left / 3))):
            request("GET", f"/v1/keys/user/{number:05}")
            request("PUT", f"/v1/keys/user/{number:05}", b"y" * 100)
        time.sleep(0.1)


def start():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1180,860"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options)


class Page:
    def __init__(self, browser):
        self.browser = browser

    def text(self, name):
        return self.browser.find_element(By.ID, name).text

    def wait(self, what, holds):
        WebDriverWait(self.browser, PATIENCE, 0.2).until(lambda _: holds(), f"never: {what}")

    def picture(self, name):
        if PICTURES:
            self.browser.save_screenshot(f"{PICTURES}/{name}.png")

    def elsewhere(self):
        """Returns the URLs outside of the server that the page has asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events
                 if event["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith((URL, "data:"))]

    def complaints(self):
        """Returns what the console says, except for the answer that asks for the token."""
        said = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        return [text for text in said if "401" not in text and "favicon" not in text]


def dashboard(page):
    page.browser.get(URL + "/dashboard")
    page.wait("the page asks for the token", lambda: page.text("state") == "a token is needed")
    page.browser.find_element(By.ID, "token").send_keys(TOKEN)
    page.browser.find_element(By.CSS_SELECTOR, "#login button").click()
    page.wait("the page shows the keys", lambda: page.text("keys") == "20,000")
    assert page.text("state") == "running" and "MiB" in page.text("log"), page.text("log")
    # It goes on by itself: what happens now appears, and is drawn.
    fill(10_000)
    request("PUT", "/v1/keys/one-more", b"value")
    request("GET", "/v1/keys/one-more")
    page.wait("the new key is counted", lambda: page.text("keys") == "20,001")
    page.wait("the dead share rises", lambda: page.text("dead") not in ("-", "0.0 %"))
    page.wait("requests are counted", lambda: float(page.text("requests").replace(",", "")) > 0)
    line = page.browser.find_element(By.CSS_SELECTOR, "#writes-line path")
    page.wait("writes are drawn", lambda: (line.get_attribute("d") or "").count(",") > 3)
    rows = page.browser.find_elements(By.CSS_SELECTOR, "#latency tr")
    assert [row.text.split()[0] for row in rows] == ["request", "get", "write", "sync", "merge"]
    request("POST", "/v1/merge", b'{"force": true}', **{"Content-Type": "application/json"})
    page.wait("the merge is counted", lambda: page.text("merges") != "0")
    if PICTURES:
        busy(40)
    page.picture("dashboard")


def docs(page):
    page.browser.get(URL + "/docs")
    page.wait("the operations appear", lambda: "/v1/keys/{key}" in page.text("operations"))
    page.picture("docs")


def redoc(page):
    page.browser.get(URL + "/redoc")
    page.wait("the description appears", lambda: "/v1/batch" in page.text("main"))
    page.picture("redoc")


def main():
    fill(20_000)
    failed = 0
    for check in (dashboard, docs, redoc):
        browser = start()
        page = Page(browser)
        try:
            check(page)
            assert not page.elsewhere(), "the page has asked other servers"
            assert not page.complaints(), page.complaints()
            print(f"ok {check.__name__}")
        except Exception as error:
            failed += 1
            print(f"FAILED {check.__name__}: {type(error).__name__}: {error}")
        finally:
            browser.quit()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
