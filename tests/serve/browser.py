"""Chromium by its DevTools protocol, over a pipe: what a person would do on a page, and what the page did."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--no-first-run", "--hide-scrollbars", "--disable-background-networking", "--mute-audio",
]  # fmt: skip
AS_3_AND_4 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
CODES = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
PATIENCE = 20.0
"""Seconds that anything may take."""


def pipe():
    """Its ends, neither of which is 3 or 4."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
    for end in ends:
        os.close(end)
    return high


class Browser:
    """A browser process; `tab` opens a page in it."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        commands, self.commands = pipe()
        self.answers, answers = pipe()
        command = [sys.executable, "-c", AS_3_AND_4, str(commands), str(answers), CHROMIUM, *ARGUMENTS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.last, self.found, self.tabs = 0, {}, {}
        self.arrived = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        rest = b""
        while data := os.read(self.answers, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                with self.arrived:
                    if "id" in message:
                        self.found[message["id"]] = message
                    elif message.get("sessionId") in self.tabs:
                        self.tabs[message["sessionId"]].note(message["method"], message["params"])
                    self.arrived.notify_all()

    def call(self, method, session=None, **params):
        """The result of a command of the protocol."""
        with self.arrived:
            self.last += 1
            mine = self.last
            about = {"sessionId": session} if session else {}
            command = json.dumps({"id": mine, "method": method, "params": params, **about}).encode() + b"\0"
            while command:
                command = command[os.write(self.commands, command) :]
            assert self.arrived.wait_for(lambda: mine in self.found, PATIENCE), f"{method} was not answered"
            message = self.found.pop(mine)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def tab(self, width=1280, height=900, dark=False):
        """A new page of this size, in a light or a dark theme."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session, target)
        for domain in ("Runtime", "Log", "Network", "Page"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height, dark)
        return tab

    def close(self):
        """End the process, and remove what it kept."""
        self.process.terminate()
        self.process.wait()
        os.close(self.commands)
        shutil.rmtree(self.profile, ignore_errors=True)


class Tab:
    """A page. `problems` are what its console says and what it throws, `addresses` what it asked for."""

    def __init__(self, browser, session, target):
        self.browser, self.session, self.target = browser, session, target
        self.problems, self.addresses, self.dialogs = [], [], []

    def note(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Network.requestWillBeSent":
            self.addresses.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def resize(self, width, height=900, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, url):
        self.call("Page.navigate", url=url)

    def run(self, script):
        """The value of an expression on the page; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, seconds=PATIENCE):
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.run(f"Boolean({script})"):
                return
            time.sleep(0.05)
        text = self.run("document.body.innerText")
        raise AssertionError(f"never true: {script}; problems: {self.problems}; the page says: {text[:2000]}")

    def click(self, selector):
        """With the mouse, in the middle of the first element that a selector finds."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        x, y = self.middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def middle(self, selector):
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return self.run(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")

    def mouse(self, kind, x, y):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        held = {"buttons": 1} if kind == "mouseDragged" else {}
        kind = "mouseMoved" if kind == "mouseDragged" else kind
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button, **held)

    def press(self, *keys):
        """Keys by name, such as Tab or ArrowRight, or a character each."""
        for key in keys:
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            about = {"key": key, "windowsVirtualKeyCode": CODES.get(key, ord(key[0]) if len(key) == 1 else 0)}
            self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def picture(self, path):
        """A PNG of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
