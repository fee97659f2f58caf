"""test_gpu.py: the image drives the simulated card in QEMU, from cold silicon to READY with the
genuine firmware files of its boot partition, and says so on the console, in /health and in the
report of /debug/gpu. Without the files it says which one it misses, and serves all the same.

Guards the way of the firmware files, amdgpu/ on the target, the routes.
"""
import json
import os
import re

from machine import Machine, closing_line, image, run_cases
from test_radeon import Cards

FILES = [f"build/firmware/{name}.bin" for name in (
    "psp_13_0_0_sos", "smu_13_0_0", "sdma_6_0_0", "gc_11_0_0_mec", "gc_11_0_0_imu",
    "gc_11_0_0_rlc")]
CONF = "api_key = a-key-for-the-tests\n"


def boot(cards, name, firmware, looks):
    path = image(name, "none", CONF, firmware=firmware)
    with Machine(path, **cards.variables()) as machine:
        looks(machine)
    status, said = cards.end()
    assert status == 0, f"the card found fault, {status}:\n{said}"


def console_ms(console, words):
    return float(re.search(r"\[ *(\d+\.\d+)\] \S+: [^\n]*" + words, console).group(1)) * 1000


def cold_start_to_ready():
    def looks(machine):
        machine.wait("READY", lambda: "MiB of VRAM free" in machine.console(), 60)
        console = machine.console()
        took = console_ms(console, "MiB of VRAM free") - console_ms(console, "waiting for the card")
        print(f"    {took:.0f} ms from the card's first line to READY")
        assert took < 3000
        status, _, text = machine.ask("/health", key=None)
        assert status == 503 and json.loads(text)["gpu"] == "ready", text
        status, _, text = machine.ask("/debug/gpu")
        assert status == 200, text
        card = json.loads(text)["gpus"][0]
        assert card["chip"] == "gfx1100" and card["link"]["width"] == 16, text
        assert card["blocks"]["gc"]["version"] == "11.0.0", text
        assert bytes.fromhex(card["discovery"])[:4] == b"\x07\x14\x21\x28", text
        assert len(card["firmware"]) == 18 and card["registers"]["SCRATCH_REG6"] == 1, text
        assert machine.ask("/debug/gpu", key=None)[0] == 401
    boot(Cards(1), "gpu-cold", FILES, looks)


def a_small_bar():
    """QEMU's root port has no room for more: VRAM beyond 256 MB by index pair and copy engine."""
    boot(Cards(1, "--bar0", "256"), "gpu-small", FILES, lambda machine: machine.wait(
        "READY", lambda: "MiB of VRAM free" in machine.console(), 60))


def two_cards_and_a_missing_file():
    def looks(machine):
        machine.wait("dead", lambda: machine.console().count("dead: firmware files") == 2, 60)
        assert "want the file gc_11_0_0_rlc.bin, saw none" in machine.console()
        status, _, text = machine.ask("/health", key=None)
        assert status == 503 and "firmware files" in json.loads(text)["gpu"], text
    boot(Cards(2), "gpu-missing", FILES[:-1], looks)


def selftest():
    """`selftest = gpu` prints each of its rows with a value, then the machine serves."""
    def looks(machine):
        machine.wait("selftest", lambda: "card 1 of 1: " in machine.console(), 120)
        rows = re.findall(r"selftest: (.+): (\d+) (\S+), (?:not )?predicted", machine.console())
        print("    " + "; ".join(" ".join(row) for row in rows))
        assert len(rows) == 9 and all(int(row[1]) > 0 for row in rows), machine.console()
        assert "card 1 of 1: ok" in machine.console(), machine.console()
        machine.wait_health(503)
    path = image("gpu-selftest", "none", CONF + "selftest = gpu\n", firmware=FILES)
    cards = Cards(1)
    with Machine(path, **cards.variables()) as machine:
        looks(machine)
    status, said = cards.end()
    assert status == 0, f"the card found fault, {status}:\n{said}"


if __name__ == "__main__":
    os.makedirs("build/sys", exist_ok=True)
    raise SystemExit(closing_line([run_cases([cold_start_to_ready, a_small_bar,
                                              two_cards_and_a_missing_file, selftest])]))
