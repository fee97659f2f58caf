"""test_kernel.py: the kernel's promises that only a machine can show: traps, crash report,
watchdog, cores, memory above 4 GiB, reset and power-off, a loader that says what it cannot load.

Guards boot/, kernel/ and pci/. Needs no model: /health says 503 and why.
"""
import os
import re
import socket
import subprocess
import time

from machine import Machine, closing_line, image, run_cases

NEVER_RESET = {"QEMU_ARGS": "-no-reboot"}


def booted(name, conf="", wait=r"boot: milliseconds", seconds=30, **variables):
    """A machine without a model whose console has said `wait`; caller: `with`."""
    return Waiting(image(name, "none", "api_key = a-key-for-the-tests\n" + conf), wait, seconds,
                   variables)


class Waiting(Machine):
    def __init__(self, path, wait, seconds, variables):
        super().__init__(path, **variables)
        self.awaited, self.seconds = wait, seconds

    def __enter__(self):
        super().__enter__()
        self.says(self.awaited, self.seconds)
        return self

    def says(self, pattern, seconds=30, count=1):
        self.wait(pattern, lambda: len(re.findall(pattern, self.console())) >= count, seconds)
        return re.findall(pattern, self.console())


def every_trap_is_caught():
    """W^X, NX, NULL, stack guard and the rest: each is provoked, caught, and the machine serves."""
    with booted("traps", "selftest = traps\n") as machine:
        caught, of = machine.says(r"selftest: (\d+) of (\d+) traps caught")[0]
        assert caught == of == "10", machine.console()
        machine.wait_health(503)


def a_crash_explains_itself_and_resets():
    with booted("crash", "selftest = crash\n", wait="this machine resets in") as machine:
        console = machine.console()
        for part in ("page fault (vector 14", "write of 0000000000000000: nothing is there",
                     "rax 0", "cr2 0 ", "called from ffffffff8", "| [", "cores compute"):
            assert part in console, f"no '{part}' in:\n{console}"
        machine.says("nohost loader", count=2)


def a_hang_is_ended_by_the_watchdog():
    conf = "selftest = hang\nwatchdog_s = 1\n"
    with booted("hang", conf, wait="this machine hangs now") as machine:
        machine.says("nohost loader", count=2)


def cores_start(count):
    def check():
        with booted("plain", SMP=str(count), wait=rf"smp: {count} cores compute") as machine:
            machine.wait_health(503)
    check.__name__ = f"{count}_cores_start"
    return check


def a_core_with_a_big_id_starts():
    """Ids from 255 on need x2APIC."""
    with booted("plain", SMP="1,sockets=2,cores=200,threads=1,maxcpus=400", wait="2 cores compute",
                QEMU_ARGS="-device max-x86_64-cpu,socket-id=1,die-id=0,module-id=0,core-id=0,"
                          "thread-id=0") as machine:
        machine.wait_health(503)


def devices_behind_switches_and_on_other_roots_are_found():
    """A second root without a bridge to it, a root port, a switch, a card."""
    chain = ("-device pxb-pcie,bus_nr=64,id=far -device pcie-root-port,bus=far,id=rp9,slot=9,"
             "chassis=9 -device x3130-upstream,bus=rp9,id=up -device xio3130-downstream,bus=up,"
             "id=down,chassis=10 -device e1000e,bus=down,romfile=")
    with booted("plain", QEMU_ARGS=chain) as machine:
        assert re.search(r"43:00\.0: Ethernet 8086:10d3 .*BAR0 128K at [0-9a-f]{6,}.*vectors",
                         machine.console()), machine.console()
        machine.wait_health(503)


def memory_above_4_gib_is_used():
    with booted("plain", MEM="6G") as machine:
        assert int(machine.says(r"(\d+) MiB free")[0]) > 5900, machine.console()


def reset_and_power_off_work():
    with booted("plain") as machine:
        machine.wait_health(503)
        assert machine.ask("/v1/nohost/reset", method="POST", key="no-such-key")[0] == 401
        assert machine.ask("/v1/nohost/reset", method="POST")[0] == 200
        machine.says("boot: milliseconds", count=2)
        machine.wait_health(503)
        assert machine.ask("/v1/nohost/power-off", method="POST")[0] == 200
        try:
            machine.wait("power-off", lambda: not machine.alive(), 10)
        except AssertionError:
            assert not machine.alive(), "still on:\n" + machine.console()


def the_screen_shows_the_log():
    picture = os.path.abspath("build/run/screen.ppm")
    with booted("plain", QEMU_ARGS="-vga std -monitor unix:build/run/screen.sock,server,nowait"):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect("build/run/screen.sock")
            monitor.sendall(f"screendump {picture}\n".encode())
            time.sleep(1)
        with open(picture, "rb") as file:
            pixels = file.read()
        lit = sum(1 for at in range(20, len(pixels) - 2, 3) if pixels[at] > 0x80)
        assert 1000 < lit < len(pixels) // 30, f"{lit} bright dots"


def a_bad_configuration_is_named_by_line():
    with booted("bad", "port = 0\nnonsense = 1\nhostname = box\n") as machine:
        console = machine.console()
        assert "line 2: port is out of range" in console, console
        assert "line 3: nonsense is no key" in console, console
        machine.wait_health(503)


def damaged_kernels_are_refused():
    """Cut short, and with one bit of a header turned: said in words, then a reset."""
    with open("build/image/nohost.elf", "rb") as file:
        kernel = file.read()
    turned = bytearray(kernel)
    turned[64 + 4] ^= 2  # the first segment, which is code, would be writable too
    for name, data in (("cut", kernel[:len(kernel) // 2]), ("turned", bytes(turned))):
        path = image("plain", "none", "api_key = a-key-for-the-tests\n")
        copy = f"build/sys/{name}.img"
        subprocess.run(["cp", path, copy], check=True)
        with open(f"build/sys/{name}.elf", "wb") as file:
            file.write(data)
        subprocess.run(["mcopy", "-o", "-i", f"{copy}@@1M", f"build/sys/{name}.elf",
                        "::nohost.elf"], check=True)
        with Waiting(copy, "the kernel file is damaged", 30, NEVER_RESET):
            pass


def main():
    cases = [every_trap_is_caught, a_crash_explains_itself_and_resets,
             a_hang_is_ended_by_the_watchdog, cores_start(1), cores_start(4),
             a_core_with_a_big_id_starts, devices_behind_switches_and_on_other_roots_are_found,
             memory_above_4_gib_is_used, reset_and_power_off_work,
             the_screen_shows_the_log, a_bad_configuration_is_named_by_line,
             damaged_kernels_are_refused]
    return closing_line([run_cases(cases)])


if __name__ == "__main__":
    raise SystemExit(main())
