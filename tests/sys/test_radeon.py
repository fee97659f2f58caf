"""test_radeon.py: QEMU finds the simulated card. `radeon serve --socket` is a process of its own;
QEMU's vfio-user-pci puts each card behind a PCIe root port; the firmware's own enumeration must see
what it is: ids, BARs, link, and again after a reset of the machine.

Guards sim/serve*.c and the card's PCI personality.
"""
import glob
import json
import os
import re
import signal
import subprocess

from machine import KEY, MODEL, Machine, closing_line, image, run_cases

CARD = r"(\d\d:00\.0): VGA display 1002:744c .*BAR0 (\w+) at \w+, BAR2 2M at \w+, BAR5 1M at \w+"


class Cards:
    """`count` cards in one server, and the machine's options for them."""

    def __init__(self, count, *options):
        self.sockets = [f"build/sys/radeon{i}.sock" for i in range(count)]
        listen = [word for path in self.sockets for word in ("--socket", path)]
        self.process = subprocess.Popen(["build/host/radeon", "serve", *listen, *options],
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for path in self.sockets:
            assert json.loads(self.process.stdout.readline())["socket"] == path

    def variables(self):
        words = ["-object memory-backend-memfd,id=m0,size=1024M,share=on",
                 "-machine memory-backend=m0"]
        for i, path in enumerate(self.sockets):
            device = {"driver": "vfio-user-pci", "bus": f"port{i}",
                      "socket": {"path": path, "type": "unix"}}
            words += [f"-device pcie-root-port,id=port{i},slot={i + 1},chassis={i + 1}",
                      "-device " + json.dumps(device, separators=(",", ":"))]
        return {"MEM": "1024M", "QEMU_ARGS": " ".join(words)}

    def end(self):
        """Its exit status and what it said; QEMU has to be gone before."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=30)[1]
        return self.process.returncode, said


def boot(cards, name, looks):
    with Machine(image(name, "none", "api_key = a-key-for-the-tests\n"),
                 **cards.variables()) as machine:
        machine.wait("cards in the boot log", lambda: len(
            re.findall(CARD, machine.console())) >= len(cards.sockets), 60)
        looks(machine)
    status, said = cards.end()
    assert status == 0, f"the card found fault, {status}:\n{said}"


def one_card_with_its_whole_memory():
    def looks(machine):
        assert re.findall(CARD, machine.console())[0][1] == "32G", machine.console()
        assert "link gen4 x16 of gen4 x16" in machine.console()
        machine.wait_health(503)
    boot(Cards(1), "radeon-one", looks)


def a_small_bar_as_after_power_on():
    def looks(machine):
        assert re.findall(CARD, machine.console())[0][1] == "256M", machine.console()
    boot(Cards(1, "--bar0", "256"), "radeon-small", looks)


def two_cards_behind_two_ports():
    def looks(machine):
        seen = dict(re.findall(CARD, machine.console()))
        assert len(seen) == 2, machine.console()
    boot(Cards(2, "--bar0", "16384"), "radeon-two", looks)


def the_server_outlives_a_client_that_talks_nonsense():
    """Then it serves QEMU all the same."""
    import socket
    cards = Cards(1)
    for nonsense in (os.urandom(4096), b"\0" * 64, b"\1\0\1\0\x10\0\0\0" + b"\xff" * 200,
                     b"\1\0\2\0\x30\0\0\0" + b"\0" * 8 + b"\xff" * 32):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(cards.sockets[0])
            client.sendall(nonsense)
            client.settimeout(0.3)
            try:
                client.recv(4096)
            except (TimeoutError, ConnectionError):
                pass
    boot(cards, "radeon-nonsense", lambda machine: None)


def our_driver_brings_it_up_behind_a_switch():
    """As `make run`: READY within 3 s of the driver's first line, then it computes two tokens;
    again after a reset of the machine; no finding of the strict card."""
    machine = Machine(image("radeon-driver", conf=f"api_key = {KEY}\n",
                            firmware=glob.glob("build/firmware/*.bin")),
                      GPU="sim", MEM="1024M", RADEON_ARGS="")

    def ready():
        status, _, text = machine.ask("/health", timeout=2)
        return status == 200 and json.loads(text).get("gpu") == "ready"
    with machine:
        machine.wait("a model and a card", ready, 120)
        lines = re.findall(r"\[ *(\d+\.\d+)\] 03:00\.0: (waiting|ready)", machine.console())
        took = float(lines[-1][0]) - float(lines[0][0])
        print(f"    ready {took:.2f} s after the driver's first line")
        assert [word for _, word in lines] == ["waiting", "ready"] and took < 3, lines
        status, _, text = machine.ask("/debug/gpu")
        assert status == 200 and json.loads(text)["gpus"], text[:300]
        assert machine.ask("/debug/gpu", key=None)[0] == 401
        reply = machine.ask("/v1/completions", timeout=300, body={
            "model": os.path.basename(MODEL)[:-5], "max_tokens": 2, "prompt": "Hi"})
        assert reply[0] == 200, reply
        assert machine.ask("/v1/nohost/reset", body={})[0] == 200
        machine.wait("away", lambda: not ready(), 10)
        machine.wait("the second life", ready, 120)
    said = open(f"build/run/{machine.port}.gpu.log").read().strip().split("\n")
    assert len(said) == 1, said


def two_cards_of_make_run():
    """`GPU=sim GPUS=2`: both come up side by side and do each their own work."""
    machine = Machine(image("radeon-two-ready", "none", f"api_key = {KEY}\n",
                            firmware=glob.glob("build/firmware/*.bin")),
                      GPU="sim", GPUS="2", MEM="1024M", RADEON_ARGS="")
    with machine:
        machine.wait("two cards", lambda: len(
            re.findall(r"0[36]:00\.0: ready", machine.console())) == 2, 60)
        status, _, text = machine.ask("/health", key=None)
        assert status == 503 and json.loads(text)["gpu"] == "ready; ready", text
        cards = json.loads(machine.ask("/debug/gpu")[2])["gpus"]
        assert [card["name"] for card in cards] == ["03:00.0", "06:00.0"], cards
        assert all(card["bars"][0] == 32 << 30 for card in cards), cards
    said = open(f"build/run/{machine.port}.gpu.log").read().strip().split("\n")
    assert len(said) == 2, said


def a_card_that_falls_off_the_bus():
    """It is dead with that reason; the other card and the machine go on."""
    machine = Machine(image("radeon-two-ready", "none", f"api_key = {KEY}\n",
                            firmware=glob.glob("build/firmware/*.bin")),
                      GPU="sim", GPUS="2", MEM="1024M", RADEON_ARGS="--gone 5000")

    def dead():
        machine.ask("/debug/gpu")  # 250 registers
        return "dead" in json.loads(machine.ask("/health", key=None)[2])["gpu"]
    with machine:
        machine.wait("two cards", lambda: len(
            re.findall(r"0[36]:00\.0: ready", machine.console())) == 2, 60)
        machine.wait("one dead", dead, 60)
        card = json.loads(machine.ask("/health", key=None)[2])["gpu"]
        assert re.fullmatch("ready; dead: .*off the bus.*", card), card
        cards = json.loads(machine.ask("/debug/gpu")[2])["gpus"]
        assert cards[0]["registers"] and not cards[1]["registers"], cards


def what_make_run_refuses():
    for variables, words in (({"GPU": "radeon"}, "no such PCI function here; want none, sim"),
                             ({"GPU": "sim", "GPUS": "9"}, "GPUS=9: want 1 to 8"),
                             ({"GPU": "none", "GPUS": "2"}, "GPUS=2 is for GPU=sim")):
        done = subprocess.run(["tools/run"], text=True, stderr=subprocess.PIPE,
                              env={**os.environ, "IMAGE": "README.md", **variables})
        assert done.returncode == 1 and words in done.stderr, done.stderr


if __name__ == "__main__":
    raise SystemExit(closing_line([run_cases([
        one_card_with_its_whole_memory, a_small_bar_as_after_power_on, two_cards_behind_two_ports,
        the_server_outlives_a_client_that_talks_nonsense,
        our_driver_brings_it_up_behind_a_switch, two_cards_of_make_run,
        a_card_that_falls_off_the_bus, what_make_run_refuses])]))
