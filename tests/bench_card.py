#!/usr/bin/env python3
"""bench_card.py: the card's part of docs/BENCH.md: what a token and a prompt cost on the simulated
card and what the timing model makes of it, for SmolLM2 and for 7B shapes with weights at random
(one and two layers, scaled to 32); our products beside clang's. Modelled, never measured. With
PREFILL=1 a prompt of 512 too, a quarter of an hour on a busy machine.
"""
import os
import sys
import tempfile

sys.path.insert(0, "tests")
sys.path.insert(0, "tests/witness")
import ledger  # noqa: E402
import rdna_clang  # noqa: E402
import synthetic  # noqa: E402
import timing  # noqa: E402

MODEL = "build/model/SmolLM2-135M-Instruct.Q4_1.gguf"
POSITION, PROMPT, LAYERS_7B = 8, 512, 32
PREFILL = bool(os.environ.get("PREFILL"))
KINDS_7B = ("q4_0", "q4_k", "q8_0")


def made(folder, kind, layers):
    path = f"{folder}/7b-{kind}-{layers}.gguf"
    if not os.path.exists(path):
        synthetic.write(path, MODEL, kind, synthetic.SHAPES["7b"], layers)
    return path


def measure():
    """name -> a row of ledger.py"""
    rows = {"SmolLM2 135M Q4_1": ledger.measure(MODEL, POSITION)}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS_7B:
            scale = (LAYERS_7B, made(folder, kind, 2))
            rows[f"7B shapes {kind.upper()}"] = ledger.measure(made(folder, kind, 1), 1, scale)
            if kind == "q4_0" and PREFILL:
                rows[f"7B shapes {kind.upper()}, prompt of {PROMPT}"] = ledger.measure_prompt(
                    made(folder, kind, 1), PROMPT, scale)
            for layers in (1, 2):
                os.remove(made(folder, kind, layers))
    return rows


def compare():
    with tempfile.TemporaryDirectory() as folder:
        return {name: {"clang": theirs["per_weight"], "ours": ours["per_weight"],
                       "ratio": ours["per_weight"] / theirs["per_weight"]}
                for name, theirs, ours in rdna_clang.compared(folder)}


def ledger_table(rows):
    yield ("| simulated card | launches | VRAM / model | sectors a request | bytes in flight a SIMD"
           " | lane instructions a weight | WMMA of issue |\n"
           "|---|---|---|---|---|---|---|\n")
    for name, row in rows.items():
        flight, wmma = row.get("flight_per_simd"), row.get("wmma_share")
        yield (f"| {name} | {row['launches']} |"
               f" {'' if flight is None else '{:.3f}'.format(row['vram_ratio'])} |"
               f" {row['sectors_a_request']:.1f} | {'' if flight is None else f'{flight:.0f}'} |"
               f" {row['instructions_a_weight'] / row.get('tokens', 1):.3f} |"
               f" {'' if wmma is None else f'{wmma:.0%}'} |\n")


def time_table(rows):
    yield "\n| modelled tok/s, slow .. middle .. fast |"
    yield "".join(f" gap {gap} us |" for gap in ledger.GAPS_US) + " of the roof at 2.2 us |\n"
    yield "|---|" + "---|" * (len(ledger.GAPS_US) + 1) + "\n"
    for name, row in rows.items():
        tokens = row.get("tokens", 1)
        yield f"| {name} |"
        for gap in ledger.GAPS_US:
            fast, middle, slow = (tokens * 1e9 / ns for ns in row[f"ns_{gap}"])
            yield f" {slow:.0f} .. **{middle:.0f}** .. {fast:.0f} |"
        if tokens == 1:
            share = row["model_bytes"] / timing.ROOF_GB_S / row["ns_2.2"][1]
        else:
            share = 2 * row["weights"] * tokens / row["ns_2.2"][1] / 123e3
        yield f" {share:.0%} of {'960 GB/s' if tokens == 1 else '123 TFLOPS'} |\n"


def clang_table(rows):
    yield ("\n| product, executed a weight and lane | clang-19 | ours | ratio | wanted |\n"
           "|---|---|---|---|---|\n")
    for name, row in rows.items():
        yield (f"| {name.upper()} | {row['clang']:.3f} | {row['ours']:.3f} | {row['ratio']:.2f} |"
               f" {rdna_clang.TARGETS.get(name) or ''} |\n")


def table(result):
    yield from ledger_table(result["ledger"])
    yield from time_table(result["ledger"])
    yield from clang_table(result["clang"])


def everything():
    return {"ledger": measure(), "clang": compare()}


if __name__ == "__main__":
    print("".join(table(everything())))
