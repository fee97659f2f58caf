"""engine_batch.py: an answer must not depend on who else is being served.

The same seeded request alone, among three others that come and go, and with its prompt beside a
running stream: text and every log-probability must be the same, bit for bit as JSON shows them.
"""
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

NOHOST = os.environ.get("NOHOST", "build/host/nohost")
MODEL = os.environ.get("MODEL") or "build/model/SmolLM2-135M-Instruct.Q4_1.gguf"
START_S, ANSWER_S = 60, 120
LONG = "Once there was a machine that had no operating system, and it was happy. " * 12
ASKED = [
    {"prompt": "The sea is", "temperature": 0},
    {"prompt": LONG, "temperature": 0.8, "seed": 1, "top_p": 0.9},
    {"prompt": "A list of fruit:", "temperature": 1.5, "seed": 2, "top_k": 40},
]
OTHERS = ["Hello", LONG + " And then", "1 2 3 4 5", "def main():"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port, body):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    link.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = json.loads(link.getresponse().read())
    link.close()
    return reply


def ask(port, asked, max_tokens=24):
    reply = post(port, {**asked, "max_tokens": max_tokens, "logprobs": 3})
    choice = reply["choices"][0]
    return choice["text"], choice["finish_reason"], choice["logprobs"]


def among_others(port, asked):
    """The answer while three others stream, one of which ends early and one begins late."""
    def other(prompt, delay_s, tokens):
        time.sleep(delay_s)
        post(port, {"prompt": prompt, "max_tokens": tokens, "temperature": 1})
    threads = [threading.Thread(target=other, args=spec)
               for spec in zip(OTHERS, (0, 0, 0, 0.2), (40, 12, 3, 20))]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    answer = ask(port, asked)
    for thread in threads:
        thread.join()
    return answer


def wait_ready(port):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            link.request("GET", "/health")
            if link.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("nohost serve does not become ready")


def main():
    port = free_port()
    server = subprocess.Popen([NOHOST, "serve", "--model", MODEL, "--port", str(port)],
                              stdout=subprocess.DEVNULL)
    passed = failed = 0
    try:
        wait_ready(port)
        for asked in ASKED:
            alone = ask(port, asked)
            for name, answer in (("again", ask(port, asked)),
                                 ("among others", among_others(port, asked))):
                same = answer == alone
                passed, failed = passed + same, failed + (not same)
                if not same:
                    print(f"{asked['prompt'][:20]!r} {name}: {answer[:2]} is not {alone[:2]}")
    finally:
        server.terminate()
        server.wait()
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
