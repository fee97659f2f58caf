"""test_e2e.py: the image as a user meets it: QEMU, the real `openai` client, wrong models.

Guards the whole route. Boots from a USB stick, from virtio and NVMe disks, with both cards, one CPU
and two. Timings go to build/boot.json for docs/BENCH.md.
"""
import json
import math
import os
import re
import socket
import subprocess
import threading
import time

import openai

from machine import KEY, MODEL, Machine, Skip, closing_line, image, run_cases

HELLO = [{"role": "user", "content": "Hello!"}]  # the chat that is timed
CHAT = [{"role": "system", "content": "Be brief."}, HELLO[0]]  # fewer tokens than without system
TOKENS = 8
MIB = 1 << 20
MEMORY_MIB = 1024  # of the machine that runs all cases


def client(machine, **options):
    return openai.OpenAI(base_url=machine.url + "/v1", api_key=KEY, max_retries=0, timeout=300,
                         **options)


def chat(machine, **options):
    return client(machine).chat.completions.create(
        **{"model": "any", "messages": CHAT, "max_tokens": TOKENS, "temperature": 0,
           **options})


# ---- a good model, two CPUs, USB stick, virtio network ----

def boots_and_says_how_far_it_is(machine):
    """503 with a reason before 200: the network is up before the model."""
    seen = {"t503": machine.wait_health(503, 200)}
    body = json.loads(machine.ask("/health")[2])  # may be ready by now
    assert body["status"] in ("loading", "ok") and (body["status"] == "ok" or body["reason"]), body
    seen["t200"] = machine.wait_health(200)
    start = time.monotonic()
    stream = client(machine).chat.completions.create(model="any", messages=HELLO, temperature=0,
                                                     max_tokens=24, stream=True)
    stamps = [time.monotonic() for part in stream if part.choices and part.choices[0].delta.content]
    seen["t_first_token"] = stamps[0] - machine.start
    seen["chat_first_token"] = stamps[0] - start
    seen["tok_s"] = (len(stamps) - 1) / (stamps[-1] - stamps[0])
    resident = re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{machine.pid}/status").read())
    seen["qemu_rss_mib"] = int(resident.group(1)) // 1024
    for name in ("weights", "kv", "program"):
        seen[f"{name}_bytes"] = machine.metric(f"nohost_{name}_bytes")
    print("    " + ", ".join(f"{name} {value:.2f}" for name, value in seen.items()))
    with open("build/boot.json", "w") as out:
        json.dump(seen, out, indent=1)


def answers_a_question(machine):
    reply = chat(machine)
    assert len(reply.choices[0].message.content) > 5, reply
    assert reply.choices[0].finish_reason in ("length", "stop"), reply
    assert reply.usage.completion_tokens <= TOKENS and reply.usage.prompt_tokens > 5, reply
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def streams_the_same_text(machine):
    whole = chat(machine).choices[0].message.content
    parts = list(chat(machine, stream=True, stream_options={"include_usage": True}))
    text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
    assert text == whole, (text, whole)
    assert parts[0].choices[0].delta.role == "assistant", parts[0]
    assert [p.choices[0].finish_reason for p in parts if p.choices][-1] in ("stop", "length")
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens > 0, parts[-1]
    assert all(p.usage is None for p in parts[:-1])


def completes_plain_text(machine):
    models = client(machine).models
    name = models.list().data[0].id
    assert models.retrieve(name).owned_by == "nohost"
    reply = client(machine).completions.create(model=name, max_tokens=4, temperature=0,
                                               prompt="The capital of France is")
    assert "Paris" in reply.choices[0].text, reply


def repeats_itself_with_a_seed(machine):
    first, again, other = (client(machine).completions.create(
        model="any", prompt="Once", temperature=1.5, seed=seed, max_tokens=6).choices[0].text
        for seed in (7, 7, 8))
    assert first == again and first != other, (first, again, other)


def stops_where_it_is_told(machine):
    whole = chat(machine).choices[0].message.content
    stop = whole[3:7]
    reply = chat(machine, stop=[stop])
    assert reply.choices[0].message.content == whole[:whole.index(stop)], reply
    assert reply.choices[0].finish_reason == "stop"


def gives_logprobs(machine):
    reply = chat(machine, logprobs=True, top_logprobs=3, max_tokens=2)
    for token in reply.choices[0].logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
        assert bytes(token.bytes).decode(errors="replace")


def is_as_exact_as_the_host_tool(machine):
    """Log-probabilities through the API against `nohost logits` on the same instruction set."""
    prompt = "The capital of France is"
    translated = os.environ.get("ACCEL") == "tcg" or open("build/run/accel").read(3) == "tcg"
    env = {**os.environ, **({"NOHOST_CPU": "translated"} if translated else {})}
    tool = ["build/host/nohost"]
    tokens = json.loads(subprocess.run([*tool, "tokenize", "--model", MODEL, "--text", prompt],
                                       check=True, capture_output=True, env=env).stdout)["tokens"]
    subprocess.run([*tool, "logits", "--model", MODEL, "--tokens", ",".join(map(str, tokens)),
                    "--out", "build/sys/logits"], check=True, capture_output=True, env=env)
    import numpy
    logits = numpy.fromfile("build/sys/logits", "<f4").reshape(len(tokens), -1)[-1].astype(float)
    expected = logits - logits.max() - math.log(numpy.exp(logits - logits.max()).sum())
    reply = client(machine).completions.create(model="any", prompt=prompt, max_tokens=1, logprobs=5,
                                               temperature=0)
    seen = sorted(reply.choices[0].logprobs.top_logprobs[0].values(), reverse=True)
    best = sorted(expected, reverse=True)[:len(seen)]
    assert max(abs(a - b) for a, b in zip(seen, best)) < 1e-3, (seen, best)


def refuses_in_the_clients_words(machine):
    for options, status, word in [
            ({"temperature": 3}, 400, "temperature"), ({"top_p": 0}, 400, "top_p"),
            ({"n": 2}, 400, "n"), ({"messages": []}, 400, "messages"),
            ({"model": "no-such-model"}, 404, "model"), ({"max_tokens": -1}, 400, "max_tokens"),
            ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400, "context")]:
        try:
            chat(machine, **options)
        except openai.APIStatusError as error:
            assert error.status_code == status, (options, error)
            body = error.response.json()["error"]
            assert set(body) >= {"message", "type", "param", "code"}, body
            assert word in json.dumps(body), (word, body)
        else:
            raise AssertionError(f"{str(options)[:80]} was accepted")
    for raw, status in ((b"{", 400), (b"[]", 400), (b'{"model":1}', 400)):
        assert machine.ask("/v1/chat/completions", raw=raw)[0] == status, raw
    assert machine.ask("/nothing")[0] == 404
    assert machine.ask("/v1/chat/completions", method="GET")[0] == 405
    assert machine.ask("/v1/models", key="wrong-key-wrong")[0] == 401
    assert machine.ask("/v1/models", key=None)[0] == 401


def serves_several_at_once(machine):
    def ask():
        seen.append(client(machine).completions.create(
            model="any", prompt="Once upon a", max_tokens=12, temperature=0).choices[0].text)
    seen = []
    ask()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    busiest = 0
    while any(thread.is_alive() for thread in threads):
        busiest = max(busiest, machine.metric("nohost_slots_busy"))
        time.sleep(0.2)
    assert seen == seen[:1] * 5, seen
    assert busiest >= 2, "requests ran one after another"


def frees_the_slot_of_who_leaves(machine):
    stream = chat(machine, stream=True, max_tokens=200)
    next(iter(stream))
    assert machine.metric("nohost_slots_busy") == 1
    stream.close()
    machine.wait("free slot", lambda: machine.metric("nohost_slots_busy") == 0, 10)


def takes_little_memory_beyond_the_model(machine):
    """All that the machine has and is not free: firmware's tables, kernel, pools, compiler."""
    weights, kv = machine.metric("nohost_weights_bytes"), machine.metric("nohost_kv_bytes")
    used = MEMORY_MIB * MIB - machine.metric("nohost_memory_free_bytes")
    rest = (used - weights - kv) / MIB
    print(f"    {rest:.1f} MiB beside {weights / MIB:.0f} of weights and {kv / MIB:.0f} of KV")
    assert rest <= 64, rest


def loses_no_memory_to_nonsense(machine):
    """Malformed requests while another stream runs: each answered or closed, pools as before."""
    pools = re.compile(r'nohost_pool_blocks\{pool="(\w+)",is="used"\} (\d+)')
    before = pools.findall(machine.ask("/metrics")[2])
    stream = iter(chat(machine, stream=True, max_tokens=20))
    next(stream)
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: "
    bad = [b"GET\r\n\r\n", post + b"-1\r\n\r\n", post + b"2\r\n\r\n{]", b"\0" * 64 + b"\r\n\r\n",
           b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n"]
    for i in range(200):
        with socket.create_connection(("127.0.0.1", machine.port), timeout=20) as s:
            try:
                s.sendall(bad[i % len(bad)])
                reply = s.recv(4096)
                assert not reply or re.match(rb"HTTP/1.1 (4\d\d|505) ", reply), reply
            except ConnectionError:
                pass
    assert list(stream)[-1].choices[0].finish_reason in ("stop", "length")
    machine.wait("pools as before", lambda: pools.findall(machine.ask("/metrics")[2]) == before, 10)


def shows_its_log_to_key_holders(machine):
    status, _, text = machine.ask("/debug/log")
    assert status == 200 and "pci" in text, text[:500]
    assert machine.ask("/debug/log", key=None)[0] == 401


def resets_and_powers_off(machine):
    assert machine.ask("/v1/nohost/reset", body={})[0] == 200
    machine.wait("away", lambda: machine.ask("/health", timeout=1)[0] != 200, 10)
    machine.wait_health(200)
    assert machine.ask("/v1/nohost/power-off", body={})[0] == 200
    end = time.monotonic() + 10
    while machine.alive() and time.monotonic() < end:
        time.sleep(0.1)
    assert not machine.alive(), "still running:\n" + machine.console()[-2000:]


FULL = [boots_and_says_how_far_it_is, answers_a_question, streams_the_same_text,
        completes_plain_text, repeats_itself_with_a_seed, stops_where_it_is_told, gives_logprobs,
        is_as_exact_as_the_host_tool, refuses_in_the_clients_words, serves_several_at_once,
        frees_the_slot_of_who_leaves, takes_little_memory_beyond_the_model,
        loses_no_memory_to_nonsense, shows_its_log_to_key_holders, resets_and_powers_off]


# ---- other machines, shortly ----

def answers_here_too(machine):
    machine.wait_health(200)
    reply = chat(machine, max_tokens=3)
    assert reply.usage.completion_tokens > 0, reply


def says_what_is_wrong_with_the_model(machine):
    """No model or a broken one: reachable, 503 with the reason, and the console says it too."""
    def failed():
        return "failed" in machine.ask("/health", timeout=2)[2]
    machine.wait("status failed", failed, 90)
    status, _, text = machine.ask("/health")
    body = json.loads(text)
    assert status == 503 and body["reason"], body
    assert machine.ask("/v1/chat/completions", body={"model": "a", "messages": CHAT})[0] == 503
    assert machine.ask("/")[0] == 200
    print("    reason: " + body["reason"])


def is_reachable_with_a_wrong_configuration(machine):
    machine.wait_health(200)
    assert "nohost.conf" in machine.console()


def short_model(name, change):
    """A broken copy of the model, made by change(bytearray)."""
    os.makedirs("build/sys", exist_ok=True)
    path = f"build/sys/{name}.gguf"
    data = bytearray(open(MODEL, "rb").read())
    data = change(data)
    with open(path, "wb") as out:
        out.write(data)
    return path


def corrupt(data):
    data[8:16] = b"\xff" * 8  # tensor count
    return data


def main():
    conf = f"api_key = {KEY}\n"
    good = image("good", conf=conf)
    truncated = short_model("truncated", lambda data: data[:len(data) // 2])
    corrupted = short_model("corrupt", corrupt)
    machines = [
        (Machine(good, SMP="2", DISK="usb", NIC="virtio", MEM=f"{MEMORY_MIB}M"), FULL),
        (Machine(good, SMP="1", DISK="virtio", NIC="e1000e"), [answers_here_too]),
        (Machine(good, SMP="4", DISK="nvme", NIC="virtio"), [answers_here_too]),
        (Machine(image("none", "none", conf)), [says_what_is_wrong_with_the_model]),
        (Machine(image("short", truncated, conf)), [says_what_is_wrong_with_the_model]),
        (Machine(image("corrupt", corrupted, conf)), [says_what_is_wrong_with_the_model]),
        (Machine(image("conf", conf="nonsense\nport = x\n" + conf)),
         [is_reachable_with_a_wrong_configuration]),
    ]
    results = []
    for machine, cases in machines:
        print({k: v for k, v in machine.variables.items() if k not in ("PORT", "DETACH")})
        with machine:
            results.append(run_cases(cases, machine))
    return closing_line(results)


if __name__ == "__main__":
    raise SystemExit(main())
