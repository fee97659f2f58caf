#!/usr/bin/env python3
"""predictions.py: the table of docs/PREDICTIONS.md: tokens a second that a real RX 7900 XTX should
decode at, out of the timing model's parameters, a model's shapes and 5 launches a layer. Modelled.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import timing  # noqa: E402

GAPS_US = (1.0, 2.2, 4.5)  # fast, middle, slow
LAUNCHES_A_LAYER, LAUNCHES_MORE, TRAFFIC, CONTEXT = 5, 3, 1.03, 1024
# billions of weights that a token goes through, layers, heads of k and v x their width
MODELS = {"Llama 3.2 1B": (1.236, 16, 8 * 64), "Llama 3.2 3B": (3.213, 28, 8 * 128),
          "Llama 2 7B": (6.607, 32, 32 * 128), "Llama 3.1 8B": (7.505, 32, 8 * 128),
          "Qwen2.5 14B": (13.99, 48, 8 * 128), "Qwen2.5 32B": (31.98, 64, 8 * 128)}
BITS = {"Q4_0": 4.5, "Q4_1": 5.0, "Q4_K_M": 4.85, "Q8_0": 8.5}
VRAM_GB = 23.0  # what is left for weights


def speed(model, bits, n):
    weights, layers, kv_width = model
    p = timing.column(n)
    moved = weights * 1e9 * bits / 8 * TRAFFIC + layers * kv_width * 2 * 2 * CONTEXT
    launches = layers * LAUNCHES_A_LAYER + LAUNCHES_MORE
    first_ns = (p["scalar_load"] + p["vector_load"]) / p["clock_ghz"]
    return 1e9 / (launches * (GAPS_US[n] * 1e3 + first_ns)
                  + moved / (timing.ROOF_GB_S * p["stream_share"]))


def main():
    print("| model | " + " | ".join(BITS) + " |\n|" + "---|" * (1 + len(BITS)))
    for name, model in MODELS.items():
        cells = []
        for bits in BITS.values():
            fast, middle, slow = (speed(model, bits, n) for n in range(3))
            cells.append(f"{slow:.0f} .. **{middle:.0f}** .. {fast:.0f}"
                         if model[0] * bits / 8 < VRAM_GB else "two cards")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
