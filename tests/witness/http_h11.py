"""http_h11.py: the request parser against h11, over real sockets, on thousands of bent requests.

Guards against request smuggling: what our server takes for requests, h11 must take for the same
number of requests (it may be stricter than h11, never looser), and every byte that our server
answers must be HTTP to h11. The server runs without a model: /health answers all the same.
"""
import argparse
import collections
import json
import random
import socket
import subprocess
import sys
import threading

import h11

CASES = 3000
THREADS = 8
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"
GOOD = [
    HEAD + b"\r\n",
    HEAD + b"Content-Length: 5\r\n\r\nhello",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;a=b\r\n"
    b"0123456789abcdef\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"HEAD /health?x=y HTTP/1.1\r\nhOST: x\r\nA:\tb \r\nC:\r\nUser-Agent: t\r\n\r\n",
    b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
]
BITS = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b",", b"\0", b"\x0b", b"\xff", b"0", b"1",
        b"-", b"+", b"a", b"X", b"\r\n ", b"\r\n\r\n", b"chunked", b"HTTP/1.1",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: y\r\n",
        b"Connection: close\r\n", b"0\r\n\r\n", b"GET /health HTTP/1.1\r\n"]


def bent(rng):
    """One to three good requests behind each other, with zero to three small changes."""
    data = bytearray(b"".join(rng.choice(GOOD) for _ in range(rng.randint(1, 3))))
    for _ in range(rng.randint(0, 3)):
        at, bit = rng.randrange(len(data) + 1), rng.choice(BITS)
        end = at if rng.random() < 0.5 else min(len(data), at + rng.randint(1, len(bit)))
        data[at:end] = bit if rng.random() < 0.8 else b""
    return bytes(data)


def h11_requests(data):
    """How many whole requests h11 sees before it refuses or the bytes end."""
    for count in range(len(data)):
        if data.startswith(b"\r\n"):
            data = data[2:]  # RFC 9112, 2.2: one empty line is forgiven; h11 does not
        judge = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        judge.receive_data(data)
        judge.receive_data(b"")
        head = event = None
        try:
            while type(event) is not h11.EndOfMessage:
                event = judge.next_event()
                head = head or event
                if type(event) is h11.ConnectionClosed or event is h11.NEED_DATA:
                    return count
        except h11.RemoteProtocolError:
            return count
        # h11 has no keep-alive in HTTP/1.0, so every request gets a judge of its own.
        options = {word.strip().lower() for name, value in head.headers if name == b"connection"
                   for word in value.split(b",")}
        if b"close" in options or (head.http_version < b"1.1" and b"keep-alive" not in options):
            return count + 1
        data = judge.trailing_data[0]
    return 0


def exchange(port, data, pieces):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = b""
        try:
            for at in range(0, len(data), pieces):
                sock.sendall(data[at:at + pieces])
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def our_requests(answer, data):
    """How many requests our server accepted; the answers must be HTTP to h11."""
    count, reasons = 0, []
    while answer:
        judge = h11.Connection(h11.CLIENT)
        method = b"HEAD" if is_head(answer) else b"GET"
        judge.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        judge.send(h11.EndOfMessage())
        judge.receive_data(answer)
        judge.receive_data(b"")
        body, status = b"", None
        while True:
            event = judge.next_event()
            if type(event) is h11.Response:
                status = event.status_code
            elif type(event) is h11.Data:
                body += bytes(event.data)
            elif type(event) is h11.EndOfMessage:
                break
            elif type(event) is h11.ConnectionClosed or event is h11.NEED_DATA:
                raise AssertionError(f"cut off: {answer!r} for {data!r}")
        ended = b"\r\nConnection: close\r\n" in answer.partition(b"\r\n\r\n")[0]
        if status not in (200, 204, 503) and ended:  # of the parser, or before the body was read
            return count, json.loads(body)["error"]["message"] if body else str(status)
        count += 1
        answer = judge.trailing_data[0]
    return count, None


def is_head(answer):
    """An answer to HEAD announces a body and does not send it."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    return b"Content-Length: 0" not in head and (
        not rest if b"text/html" in head else b"Content-Length" in head and rest[:1] != b"{")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nohost", default="build/host/nohost")
    parser.add_argument("--model", help="not used: a server without a model will do")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print("seed", options.seed)
    server = subprocess.Popen([options.nohost, "serve", "--port", "0"], stdout=subprocess.PIPE,
                              text=True)
    port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
    rng = random.Random(options.seed)
    cases = [(good + more, 1 << 20) for good in GOOD for more in (b"", GOOD[0])]
    plain = len(cases)
    cases += [(bent(rng), rng.choice([1, 7, 1 << 20])) for _ in range(CASES)]
    failed, stricter = [], collections.Counter()

    def work(first):
        for number in range(first, len(cases), THREADS):
            data, pieces = cases[number]
            try:
                ours, reason = our_requests(exchange(port, data, pieces), data)
                theirs = h11_requests(data)
                assert ours <= theirs, f"we accept {ours}, h11 {theirs}"
                assert number >= plain or ours == theirs >= 1, f"good, but {ours} of {theirs}"
                if ours < theirs:
                    assert reason, f"{theirs - ours} requests lost without an answer"
                    stricter[reason.partition(": GET")[0]] += 1
            except Exception as problem:
                failed.append(f"{problem!r}: {data!r}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alive = server.poll() is None
    server.terminate()
    for reason, count in stricter.most_common():
        print(f"stricter than h11 {count:5} times: {reason}")
    for line in failed[:10]:
        print(line)
    if not alive:
        print("the server died")
    print(f"{len(cases) - len(failed)} passed, {len(failed) + (not alive)} failed")
    return bool(failed) or not alive


if __name__ == "__main__":
    sys.exit(main())
