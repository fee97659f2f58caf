"""test_page.py: the chat page in headless Chromium, by its developer protocol, on the booted image.

Guards what a person sees: it becomes ready by itself, streams, stops, shows its speed, asks for a
key, loads nothing from elsewhere and logs no error. Leaves build/sys/page.png.
"""
import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time

import websocket

from machine import KEY, Machine, closing_line, image, run_cases

CHROMIUM = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=900,760",
            "about:blank"]


class Browser:
    def __init__(self, profile="build/sys/chromium"):
        shutil.rmtree(profile, ignore_errors=True)
        os.makedirs(profile)
        self.log = open(profile + ".log", "w")
        self.process = subprocess.Popen([*CHROMIUM, f"--user-data-dir={os.path.abspath(profile)}"],
                                        stdout=self.log, stderr=self.log)
        port_file = f"{profile}/DevToolsActivePort"
        end = time.monotonic() + 60
        while not os.path.exists(port_file) or not open(port_file).read().count("\n"):
            assert time.monotonic() < end, "Chromium did not start: see " + profile + ".log"
            time.sleep(0.1)
        port, path = open(port_file).read().split()
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=60)
        self.ids = itertools.count(1)
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def call(self, method, **parameters):
        number = next(self.ids)
        message = {"id": number, "method": method, "params": parameters}
        if method.partition(".")[0] != "Target":
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            reply = json.loads(self.socket.recv())
            if reply.get("id") == number:
                assert "error" not in reply, (method, reply)
                return reply["result"]
            self.events.append(reply)

    def eval(self, code):
        reply = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def wait(self, code, seconds):
        end = time.monotonic() + seconds
        while not self.eval(code):
            assert time.monotonic() < end, f"not within {seconds} s: {code}; page says " + repr(
                self.eval("document.body.innerText"))
            time.sleep(0.05)

    def type(self, text):
        self.eval("document.getElementById('text').focus()")
        self.call("Input.insertText", text=text)

    def press_enter(self):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                      windowsVirtualKeyCode=13)

    def screenshot(self, path):
        with open(path, "wb") as out:
            out.write(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


LAST = "[...document.querySelectorAll('.assistant')].pop()"
STATE = "document.getElementById('state')?.textContent"


def becomes_ready_by_itself(machine, browser):
    machine.wait("the page", lambda: machine.ask("/", timeout=2)[0] == 200, 30)
    browser.call("Page.navigate", url=machine.url + "/")
    browser.wait(STATE + " == 'ready'", 60)


def asks_for_the_key(machine, browser):
    browser.type("Hello")
    browser.press_enter()
    browser.wait("!document.getElementById('keys').hidden", 20)
    browser.eval(f"document.getElementById('key').value = {KEY!r};"
                 "document.getElementById('keys').requestSubmit()")
    browser.wait(f"{LAST} && {LAST}.textContent.length > 0", 30)
    browser.eval("document.getElementById('fresh').click()")
    browser.wait("!document.getElementById('send').hidden", 10)


def streams_an_answer(machine, browser):
    browser.type("Say hello in one short sentence.")
    browser.press_enter()
    browser.wait(f"{LAST} && {LAST}.textContent.length > 3", 30)
    first = browser.eval(LAST + ".textContent")
    # A sampled answer of a small model may be of any length: some growth is enough.
    browser.wait(f"!{LAST}.classList.contains('live') || {LAST}.textContent.length > 120", 120)
    browser.eval("document.getElementById('stop').click()")
    browser.wait(f"!{LAST}.classList.contains('live')", 10)
    whole = browser.eval(LAST + ".textContent")
    assert whole.startswith(first) and len(whole) > len(first), (first, whole)
    note = browser.eval("[...document.querySelectorAll('.note')].pop().textContent")
    assert re.match(r"\d+ tokens, \d+\.\d tok/s$", note), note
    browser.screenshot("build/sys/page.png")


def stops_when_told(machine, browser):
    browser.type("Write a long story about a lighthouse.")
    browser.press_enter()
    browser.wait(f"{LAST}.classList.contains('live') && {LAST}.textContent.length > 3", 30)
    browser.eval("document.getElementById('stop').click()")
    browser.wait(f"!{LAST}.classList.contains('live')", 5)
    machine.wait("free slot", lambda: machine.metric("nohost_slots_busy") == 0, 60)
    text = browser.eval(LAST + ".textContent")
    time.sleep(1)
    assert browser.eval(LAST + ".textContent") == text


def loads_nothing_from_elsewhere(machine, browser):
    urls = {event["params"]["request"]["url"] for event in browser.events
            if event["method"] == "Network.requestWillBeSent"}
    here = (machine.url + "/", "about:", "data:")
    assert urls and all(url.startswith(here) for url in urls), urls


def logs_no_error(machine, browser):
    bad = [event for event in browser.events
           if event["method"] == "Runtime.exceptionThrown" or event["method"] == "Log.entryAdded"
           and event["params"]["entry"]["level"] == "error"
           and "401" not in event["params"]["entry"]["text"]
           and "503" not in event["params"]["entry"]["text"]]
    assert not bad, bad


CASES = [becomes_ready_by_itself, asks_for_the_key, streams_an_answer, stops_when_told,
         loads_nothing_from_elsewhere, logs_no_error]


def main():
    browser = Browser()
    try:
        with Machine(image("good", conf=f"api_key = {KEY}\n")) as machine:
            return closing_line([run_cases(CASES, machine, browser)])
    finally:
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main())
