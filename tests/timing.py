#!/usr/bin/env python3
"""timing.py LEDGER.json [--gap-us US]: the timing model of docs/TIMING.md: what the simulated card
counted, as a range of time on an RX 7900 XTX. Modelled, never measured.

A ledger is what `radeon run` prints, a list of those, or what the card answers (its "last"). An
entry may say how often it is launched ("count").
"""
import argparse
import json
import math

LINE, UNITS, SIMDS, ROOF_GB_S = 128, 96, 192, 960.0
# name: (fast, middle, slow); docs/TIMING.md says where each is from
PARAMETERS = {
    "clock_ghz": (2.5, 2.4, 2.3), "stream_share": (0.95, 0.92, 0.88),
    "scalar_load": (831, 1118, 1404), "vector_load": (785, 1187, 1588),
    "loaded_ns": (700, 800, 900), "wave_start": (9, 16, 24), "branch": (1, 1, 9),
    "dependent": (0, 0, 5), "pipes": (True, False, False)}
HIP_GAP_US = (3.5, 4.5, 5.5)
COLUMNS = ("fast", "middle", "slow")
TRANS, WMMA, BARRIER = 4, 32, 16
BESIDE = ("salu", "smem", "lds", "vmem_loads", "vmem_stores", "atomics", "waits", "other")


def column(n):
    return {name: values[n] for name, values in PARAMETERS.items()}


def issue_cycles(entry, p, resident):
    """Of one SIMD's issue, for the whole dispatch."""
    vector = entry["valu"] + entry["vopd"] + entry["dot"]
    if resident < p["dependent"]:
        vector *= p["dependent"] / resident
    vector += TRANS * entry["trans"] + WMMA * entry["wmma"]
    beside = sum(entry[name] for name in BESIDE) + p["branch"] * entry["branches"]
    whole = max(vector, beside) if p["pipes"] else vector + beside
    return whole + BARRIER * entry["barriers"]


def parts_ns(entry, n):
    """The parts of a dispatch's time by name, in column n."""
    p = column(n)
    waves, groups = entry["waves"], entry["groups"]
    on_unit = math.ceil(groups / UNITS)
    at_once = min(on_unit, max(1, entry["wgp_groups"] // 2))
    group_waves = waves / groups
    resident = max(1, at_once * group_waves / (SIMDS / UNITS))  # waves on a busy unit's SIMD
    bytes_moved = entry["lines_loaded"] * LINE + entry["store_bytes"]
    flight = max(1, entry["flight_bytes_max"])
    turns = math.ceil(entry["load_bytes"] / waves / flight)
    rounds = math.ceil(on_unit / at_once)
    busiest = on_unit * UNITS / groups  # how much more the busiest unit has than the average
    counted = entry["flight_bytes_max"] > 0  # not in fast mode: then issue is all there is
    return {
        "first": (p["scalar_load"] + p["vector_load"]) / p["clock_ghz"],
        "vram": bytes_moved / (ROOF_GB_S * p["stream_share"]),
        "flight": bytes_moved / groups * on_unit * p["loaded_ns"] / (
            at_once * group_waves * flight) if counted else 0,
        "chain": max(0, rounds * turns - 1) * p["vector_load"] / p["clock_ghz"] if counted else 0,
        "issue": issue_cycles(entry, p, resident) / SIMDS * busiest / p["clock_ghz"],
        "start": waves / SIMDS * busiest * p["wave_start"] / p["clock_ghz"]}


def dispatch_ns(entry, n, gap_us):
    parts = parts_ns(entry, n)
    first = parts.pop("first")
    return gap_us * 1e3 + first + max(parts.values())


def bound_by(entry, n=1):
    parts = parts_ns(entry, n)
    parts.pop("first")
    return max(parts, key=parts.get)


def total_ns(entries, gaps_us):
    """(fast, middle, slow) of a list; gaps_us: one for each column."""
    return tuple(sum(entry.get("count", 1) * dispatch_ns(entry, n, gaps_us[n])
                     for entry in entries) for n in range(3))


def entries_of(ledger):
    if isinstance(ledger, dict):
        return ledger.get("last", [ledger])
    return ledger


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("ledger")
    options.add_argument("--gap-us", type=float, default=2.2)
    options = options.parse_args()
    with open(options.ledger) as file:
        entries = entries_of(json.load(file))
    for entry in entries:
        parts = ", ".join(f"{name} {ns / 1e3:.2f}" for name, ns in parts_ns(entry, 1).items())
        name, each_us = entry.get("kernel", entry.get("code")), dispatch_ns(
            entry, 1, options.gap_us) / 1e3
        print(f"{name[:60]} x{entry.get('count', 1)}: modelled {each_us:.2f} us, by "
              f"{bound_by(entry)} ({parts})")
    whole = total_ns(entries, (options.gap_us,) * 3)
    print("modelled us, " + ", ".join(f"{name} {ns / 1e3:.1f}"
                                      for name, ns in zip(COLUMNS, whole)))


if __name__ == "__main__":
    main()
