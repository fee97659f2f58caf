"""machine.py: one nohost image in QEMU for a test: boot, watch, ask, stop. Also the small case
runner of the tests beside it: functions of one Machine, each passes, fails or is skipped."""
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.environ.get("MODEL") or "build/model/SmolLM2-135M-Instruct.Q4_1.gguf"
KEY = "a-key-for-the-tests"
os.chdir(ROOT)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def image(name, model=MODEL, conf="", files=(), firmware=()):
    """build/sys/NAME.img with this configuration text; `firmware`: files for drivers."""
    os.makedirs("build/sys", exist_ok=True)
    path = f"build/sys/{name}"
    try:
        old = open(path + ".conf").read()
    except FileNotFoundError:
        old = None
    if old != conf:
        with open(path + ".conf", "w") as out:
            out.write(conf)
    subprocess.run(["tools/mkimage", path + ".img", path + ".conf", "build/image/BOOTX64.EFI",
                    "build/image/nohost.elf", model, *files], check=True,
                   env={**os.environ, "FIRMWARE": " ".join(firmware)})
    return path + ".img"


class Machine:
    """Variables are those of tools/run: SMP=, NIC=, DISK=, MEM=, QEMU_ARGS=."""

    def __init__(self, image_path, **variables):
        self.port = free_port()
        self.variables = {"IMAGE": image_path, "PORT": str(self.port), "DETACH": "1",
                          "GPU": "none", **variables}
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = f"build/run/{self.port}.log"

    def __enter__(self):
        self.start = time.monotonic()
        subprocess.run(["tools/run"], env={**os.environ, **self.variables}, check=True,
                       stdout=subprocess.DEVNULL)
        self.pid = int(open(f"build/run/{self.port}.pid").read())
        return self

    def __exit__(self, *_):
        subprocess.run(["tools/run", "stop"], env={**os.environ, **self.variables}, check=True,
                       stdout=subprocess.DEVNULL)

    def console(self):
        with open(self.log, errors="replace") as file:
            return re.sub(r"\x1b\[[0-9;=?]*[A-Za-z]", "", file.read())

    def alive(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def ask(self, path, body=None, key=KEY, timeout=120, method=None, raw=None):
        """(status, headers, text); status 0 while nobody answers."""
        data = json.dumps(body).encode() if body is not None else raw
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if key:
            headers["Authorization"] = "Bearer " + key
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, dict(reply.headers), reply.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode(errors="replace")
        except (OSError, EOFError):
            return 0, {}, ""

    def metric(self, name):
        for line in self.ask("/metrics")[2].split("\n"):
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(f"/metrics has no {name}")

    def wait(self, what, test, seconds):
        """Seconds since start until test() is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = test()
            if value:
                return time.monotonic() - self.start
            if not self.alive():
                raise AssertionError(f"{what}: QEMU ended; console:\n" + self.console()[-3000:])
            time.sleep(0.02)
        raise AssertionError(f"{what}: not within {seconds} s; console:\n" + self.console()[-3000:])

    def wait_health(self, *statuses, seconds=180):
        """QEMU accepts connections before the guest listens, so most attempts are short."""
        timeouts = itertools.cycle((0.1, 0.1, 0.2, 0.5))
        return self.wait(f"/health {statuses}", lambda: self.ask(
            "/health", timeout=next(timeouts))[0] in statuses, seconds)


class Skip(Exception):
    pass


def run_cases(cases, *arguments):
    """Each case is a function; prints the closing line and returns the exit code."""
    passed = failed = skipped = 0
    for case in cases:
        start = time.monotonic()
        try:
            case(*arguments)
            passed += 1
            word = "passed"
        except Skip as why:
            skipped += 1
            word = f"skipped: {why}"
        except Exception:
            failed += 1
            word = "FAILED"
            traceback.print_exc(file=sys.stdout)
        print(f"{case.__name__:44} {time.monotonic() - start:6.1f} s  {word}", flush=True)
    return passed, failed, skipped


def closing_line(results):
    total = [sum(column) for column in zip(*results)]
    print("{} passed, {} failed, {} skipped".format(*total))
    return total[1] != 0
