"""A headless Chromium, by the WebDriver protocol over HTTP, for looking at pages: no library needed."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path


def chromedriver():
    """Path of chromedriver if it and a Chromium are here, else None."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    return shutil.which("chromedriver") if any(map(shutil.which, browsers)) else None


class Browser:
    """One browser window of a phone's or a desk's width, in light or dark."""

    def __init__(self, width=360, height=740, dark=False):
        # port 0 would be chosen by chromedriver, but told only in its output
        self._driver = subprocess.Popen(
            [chromedriver(), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._url = f"http://127.0.0.1:{self._port()}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {
            "args": arguments,
            "mobileEmulation": {
                "deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0, "mobile": False}
            },
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self._session = ""
        answer = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", {"features": [scheme]})

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(30)
            self._driver.stdout.close()

    def open(self, path):
        """Open a file and wait until it is loaded."""
        self._post("/url", {"url": Path(path).resolve().as_uri()})

    def run(self, script):
        """What a script returns."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def messages(self):
        """What the console was told of since the last time: errors, policy violations, failed requests."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def cdp(self, command, parameters):
        """A command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path, whole=True):
        """A PNG of the page."""
        shot = self.cdp("Page.captureScreenshot", {"captureBeyondViewport": whole, "format": "png"})
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def _port(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            line = self._driver.stdout.readline()
            if "started successfully on port" in line:
                return int(line.rsplit(" ", 1)[1].strip(" .\n"))
        raise RuntimeError("chromedriver did not start")

    def _post(self, path, content):
        return self._call("POST", path, content)

    def _call(self, method, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._url + self._session + path, data, {"Content-Type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]
