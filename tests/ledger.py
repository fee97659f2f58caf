#!/usr/bin/env python3
"""ledger.py --model FILE [--prompt N] [--position N] [--scale-to LAYERS MODEL2] [--json]
[--kernels]: what one token (or one prompt) costs on the simulated card, counted in strict mode, and
what the timing model makes of it. Modelled, never measured.

--scale-to 32 FILE2: FILE2 is the same model with one layer more; what that layer adds is added
until there are 32. --kernels: which kernels the time goes into, and why.
"""
import argparse
import json
import os
import subprocess
import sys

import gguf

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import timing  # noqa: E402

NOHOST = os.environ.get("NOHOST", "build/host/nohost")
GAPS_US = (1.0, 2.2, 4.5)
CLASSES = ("valu", "vopd", "dot", "trans", "wmma", "salu", "smem", "lds", "vmem_loads",
           "vmem_stores", "atomics", "branches", "waits", "other")
SUMS = CLASSES + ("waves", "groups", "barriers", "lanes", "load_bytes", "store_bytes", "requests",
                  "sectors_loaded", "lines_loaded", "lds_bytes", "lds_conflicts")
BIG_BYTES = 1 << 20  # a dispatch that streams at least so much counts for bytes in flight


# ---- counting ----

def bench(model, *options):
    done = subprocess.run([NOHOST, "bench", "--model", model, "--device", "sim", "--reps", "0",
                           *map(str, options)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{model}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)["card"]


def step(model, position):
    """The dispatches of the token at `position`, after those before it."""
    fewer, more = (bench(model, "--prompt", 0, "--gen", n) for n in (position, position + 1))
    launches = more["dispatches"] - fewer["dispatches"]
    if launches > len(more["last"]):
        raise RuntimeError(f"{launches} launches a token, the card remembers {len(more['last'])}")
    return more["last"][-launches:]


def prompt(model, tokens):
    """The dispatches of a prompt in one go. In fast mode: what limits them is issue."""
    card = bench(model, "--prompt", tokens, "--gen", 0, "--fast")
    if card["dispatches"] > len(card["last"]):
        raise RuntimeError(f"{card['dispatches']} launches, the card remembers {len(card['last'])}")
    return card["last"]


# ---- the model's bytes ----

def matrix_bytes(model):
    """(bytes, weights) of all matrices that a token goes through."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(model).tensors}
    if "output.weight" in tensors:
        del tensors["token_embd.weight"]
    return (sum(int(tensor.n_bytes) for tensor in tensors.values()),
            sum(int(tensor.n_elements) for tensor in tensors.values() if len(tensor.shape) > 1))


def vocabulary_weights(model):
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(model).tensors}
    return int(tensors.get("output.weight", tensors["token_embd.weight"]).n_elements)


# ---- sums ----

def flight_per_simd(entries):
    """Bytes of loads in flight on a SIMD, over the dispatches that stream, by their bytes."""
    big = [entry for entry in entries if entry["lines_loaded"] * timing.LINE >= BIG_BYTES]
    weight = sum(entry["lines_loaded"] for entry in big)

    def flight(entry):
        on_unit = -(-entry["groups"] // timing.UNITS)
        at_once = min(on_unit, max(1, entry["wgp_groups"] // 2))
        return at_once * entry["waves"] / entry["groups"] / 2 * entry["flight_bytes_max"]
    return sum(flight(entry) * entry["lines_loaded"] for entry in big) / weight if weight else 0


def wmma_share(entries):
    """Of the vector unit's issue and of all issue, in middle terms."""
    cycles = sum(timing.issue_cycles(entry, timing.column(1), 16) for entry in entries)
    return sum(timing.WMMA * entry["wmma"] for entry in entries) / cycles if cycles else 0


def summary(entries):
    row = {name: sum(entry[name] for entry in entries) for name in SUMS}
    row["launches"] = len(entries)
    row["vram_bytes"] = row["lines_loaded"] * timing.LINE + row["store_bytes"]
    row["instructions"] = sum(row[name] for name in CLASSES)
    for gap in GAPS_US:
        row[f"ns_{gap}"] = list(timing.total_ns(entries, (gap,) * 3))
    return row


def scaled(one, two, layers, begin):
    """A summary of `layers` layers out of those of `begin` and of one layer more."""
    def more(a, b):
        if isinstance(a, list):
            return [more(x, y) for x, y in zip(a, b)]
        return a + (layers - begin) * (b - a)
    return {name: more(value, two[name]) for name, value in one.items()}


def finish(row, model_bytes, weights):
    row["vram_ratio"] = row["vram_bytes"] / model_bytes
    row["sectors_a_request"] = row["sectors_loaded"] / max(1, row["requests"])
    row["instructions_a_weight"] = row["instructions"] * 32 / weights
    row["model_bytes"], row["weights"] = model_bytes, weights
    return row


def counted(model, run, scale):
    """(entries, sums, bytes and weights of the matrices) of run(model); scale: see measure."""
    entries = run(model)
    row, (size, weights) = summary(entries), matrix_bytes(model)
    if scale:
        layers, larger = scale
        begin = gguf.GGUFReader(model).fields["llama.block_count"].contents()
        row = scaled(row, summary(run(larger)), layers, begin)
        size_more, weights_more = matrix_bytes(larger)
        size += (layers - begin) * (size_more - size)
        weights += (layers - begin) * (weights_more - weights)
    return entries, row, size, weights


def measure(model, position, scale=None):
    """The ledger of a token; scale: (layers, the model with one layer more)."""
    entries, row, *matrices = counted(model, lambda m: step(m, position), scale)
    row["flight_per_simd"] = flight_per_simd(entries)
    return finish(row, *matrices)


def measure_prompt(model, tokens, scale=None):
    entries, row, size, weights = counted(model, lambda m: prompt(m, tokens), scale)
    row["wmma_share"] = wmma_share(entries)
    weights -= vocabulary_weights(model)  # only the last token goes through it
    return finish(row, size, weights) | {"tokens": tokens}


def lines(name, row):
    """For people."""
    tokens = row.get("tokens", 1)
    yield (f"{name}: {row['launches']} launches, {row['barriers']} barriers, VRAM "
           f"{row['vram_bytes'] / 1e6:.2f} MB = {row['vram_ratio']:.3f} x model, "
           f"{row['sectors_a_request']:.1f} sectors a request")
    yield (f"  {row['instructions']} wave instructions, {row['instructions_a_weight'] / tokens:.3f}"
           " lane instructions a weight and token: " + ", ".join(
               f"{kind} {row[kind]}" for kind in CLASSES if row[kind]))
    if "flight_per_simd" in row:
        yield f"  {row['flight_per_simd']:.0f} bytes in flight a SIMD where it streams"
    if "wmma_share" in row:
        yield f"  WMMA is {row['wmma_share']:.1%} of issue"
    for gap in GAPS_US:
        fast, middle, slow = (tokens * 1e9 / ns for ns in row[f"ns_{gap}"])
        roof = row["model_bytes"] / timing.ROOF_GB_S / row[f"ns_{gap}"][1]
        yield (f"  modelled at a gap of {gap} us: {slow:.0f} to {fast:.0f}, middle {middle:.1f} "
               f"tok/s" + (f", {roof:.1%} of 960 GB/s" if tokens == 1 else ""))


def kernels(entries):
    """For people: dispatches of the same code together, the most expensive first."""
    same = {}
    for entry in entries:
        same.setdefault(entry["code"], []).append(entry)
    cost = {code: sum(timing.dispatch_ns(entry, 1, 0) for entry in of) for code, of in same.items()}
    for code in sorted(cost, key=cost.get, reverse=True):
        first, count = same[code][0], len(same[code])
        parts = ", ".join(f"{name} {ns / 1e3:.1f}"
                          for name, ns in timing.parts_ns(first, 1).items())
        counts = ", ".join(f"{kind} {first[kind]}" for kind in CLASSES if first[kind])
        yield (f"{cost[code] / 1e3:8.1f} us, {cost[code] / sum(cost.values()):5.1%}: {count} x "
               f"{code}, {first['groups']} groups, {first['waves']} waves, "
               f"{first['lines_loaded'] * timing.LINE / 1e3:.0f} kB, {first['flight_bytes_max']} "
               f"bytes in flight a wave\n             by {timing.bound_by(first)} of ({parts}) us"
               f"\n             {counts}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", required=True)
    options.add_argument("--prompt", type=int, help="tokens in one go, instead of one token")
    options.add_argument("--position", type=int, default=4)
    options.add_argument("--scale-to", nargs=2, metavar=("LAYERS", "MODEL2"))
    options.add_argument("--json", action="store_true")
    options.add_argument("--kernels", action="store_true")
    options = options.parse_args()
    if options.kernels:
        print("\n".join(kernels(prompt(options.model, options.prompt) if options.prompt
                                else step(options.model, options.position))))
        return
    scale = options.scale_to and (int(options.scale_to[0]), options.scale_to[1])
    row = (measure_prompt(options.model, options.prompt, scale) if options.prompt
           else measure(options.model, options.position, scale))
    if options.json:
        print(json.dumps(row, indent=1))
    else:
        print("\n".join(lines(os.path.basename(options.model), row)))


if __name__ == "__main__":
    main()
