#!/usr/bin/env python3
"""Holds products with many rows, which a card makes of half floats by its matrix instruction,
against numpy: odd shapes, every weight format, what stands behind the product.

Both x and the decoded weight are rounded to half floats once (2^-11 of their size); products are
added in float32.

    matrix_numpy.py --nohost build/host/nohost [--count 22] [--seed N] [--device lir,sim]
"""
import argparse, os, subprocess, sys, tempfile, time
import numpy as np
from gguf import GGMLQuantizationType as Q, quants

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from eval_numpy import FORMATS, halves, random_blocks  # noqa: E402

EPS = 2.0 ** -24
LARGE = (100, 128, 12280, 64)  # fills a card with the larger kind of tiles
BEHIND = {
    "": lambda y, r: y,
    "add": lambda y, r: y + r,
    "silu": lambda y, r: y / (1 + np.exp(-y)) * r,
}


def shape_of(rng, kind):
    """Tokens, their bound, rows and columns of the weight: rarely whole tiles or units."""
    tokens = int(rng.choice([24, 25, 33, 64, 65, 97, 128, 130]))
    bound = tokens if rng.random() < 0.3 else int(rng.choice([192, 256, 512]))
    rows = int(rng.choice([1, 7, 31, 64, 100, 128, 129, 200, 257]))
    steps = 8 if kind.endswith("_k") else rng.choice([1, 2, 5, 7, 9, 11, 13, 18])
    return tokens, bound, rows, 32 * int(steps) * (1 + int(rng.integers(2)))


def write(folder, name, data):
    data.tofile(os.path.join(folder, name + ".bin"))


def make(rng, folder, kind, behind, shape):
    """The graph's files; what numpy says and how far off a result may be."""
    tokens, bound, rows, columns = shape
    x = rng.standard_normal((tokens, columns)).astype(np.float32)
    dense = (rng.standard_normal((rows, columns)) * 0.05).astype(np.float32)
    raw = random_blocks(rng, kind, dense)
    w = quants.dequantize(raw, Q[kind.upper()]).reshape(rows, columns).astype(np.float64)
    r = rng.standard_normal((tokens, rows)).astype(np.float32)
    for name, data in (("x", x), ("w", raw), ("r", r)):
        write(folder, name, data)
    extent = "T" if bound != tokens else str(tokens)
    text = [f"sym T {bound}"] * (extent == "T") + [
        f"input x f32 [{extent}, {columns}]", f"weight w {kind} [{rows}, {columns}]",
        f"input r f32 [{extent}, {rows}]", "y = linear x w"]
    text += {"": ["z = mul y 1.0"], "add": ["z = add y r"],
             "silu": ["s = silu y", "z = mul s r"]}[behind]
    with open(os.path.join(folder, "graph.txt"), "w") as file:
        file.write("\n".join(text + ["output z", ""]))
    y = x.astype(np.float64) @ w.T
    err = halves(x.astype(np.float64), w) + abs(x).astype(np.float64) @ abs(w.T) * EPS * columns
    return BEHIND[behind](y, r), err * (np.maximum(1, 1.2 * abs(r)) if behind == "silu" else 1)


def run(nohost, folder, device, want):
    done = subprocess.run(
        [nohost, "eval", "--graph", os.path.join(folder, "graph.txt"), "--inputs", folder,
         "--out", folder, "--device", device, "--int8"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-1000:])
    return np.fromfile(os.path.join(folder, "z.bin"), np.float32).reshape(want.shape)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--nohost", required=True)
    args.add_argument("--model", help="not used: every witness is called alike")
    args.add_argument("--count", type=int, default=22)
    args.add_argument("--seed", type=int, default=int(time.time()))
    args.add_argument("--device", default="lir,sim")
    args = args.parse_args()
    rng, worst = np.random.default_rng(args.seed), 0
    print(f"seed {args.seed}")
    np.seterr(over="ignore")
    for n in range(args.count):
        kind, behind = FORMATS[n % len(FORMATS)], list(BEHIND)[int(rng.integers(3))]
        shape = shape_of(rng, kind) if n else LARGE
        with tempfile.TemporaryDirectory(prefix="nohost-matrix-") as folder:
            want, allowed = make(rng, folder, kind, behind, shape)
            for device in args.device.split(","):
                off = abs(run(args.nohost, folder, device, want) - want) / (allowed + 1e-30)
                worst = max(worst, off.max())
                if not off.max() <= 1:
                    print(f"FAILED {kind} {shape} {behind} on {device}: {off.max():.2f} of the "
                          f"bound at {np.unravel_index(off.argmax(), off.shape)}")
                    return 1
    print(f"{args.count} products; largest error {worst:.2f} of the bound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
