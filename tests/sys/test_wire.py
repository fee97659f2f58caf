#!/usr/bin/env python3
"""test_wire.py: the booted image as its neighbours on the Ethernet see it, with both cards: frames
are injected beside QEMU's user network, the answers read from a copy of what the guest sends."""
import json
import os
import socket
import struct
import sys
import time

from machine import Machine, closing_line, image, run_cases

OUR_MAC = bytes.fromhex("020000000077")
OUR_IP4, GUEST_IP4 = (bytes([10, 0, 2, n]) for n in (77, 15))
OUR_IP6 = bytes.fromhex("fe80000000000000000000000000" "0077")
GUEST_MAC = bytes.fromhex("525400123456")
GUEST_IP6 = bytes.fromhex("fe80000000000000" "505400fffe123456")  # RFC 4291, appendix A
BROADCAST = b"\xff" * 6


def checksum(data, start=0):
    total = start + sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(to, kind, payload):
    return to + OUR_MAC + struct.pack("!H", kind) + payload


def ip4(protocol, payload):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    head += OUR_IP4 + GUEST_IP4
    return ethernet(GUEST_MAC, 0x0800, head[:10] + struct.pack("!H", checksum(head)) + head[12:]
                    + payload)


def ip6(protocol, payload, at, to_mac=GUEST_MAC, to=GUEST_IP6):
    """`payload` gets its checksum at offset `at`."""
    pseudo = OUR_IP6 + to + struct.pack("!II", len(payload), protocol)
    payload = payload[:at] + struct.pack("!H", checksum(pseudo + payload)) + payload[at + 2:]
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    return ethernet(to_mac, 0x86DD, head + OUR_IP6 + to + payload)


class Wire:
    """Both chardevs carry frames behind a 32-bit length (QEMU, net/filter-mirror.c)."""

    def __init__(self, machine):
        self.sockets = []
        for name in "in", "out":
            self.sockets.append(socket.socket(socket.AF_UNIX))
            self.sockets[-1].connect(path(machine, name))
        self.sockets[1].settimeout(5)
        self.bytes = b""

    def send(self, frame):
        self.sockets[0].sendall(struct.pack("!I", len(frame)) + frame)

    def read(self):
        while len(self.bytes) < 4 or len(self.bytes) < 4 + struct.unpack("!I", self.bytes[:4])[0]:
            more = self.sockets[1].recv(65536)
            assert more, "QEMU closed the wire"
            self.bytes += more
        length = struct.unpack("!I", self.bytes[:4])[0]
        frame, self.bytes = self.bytes[4:4 + length], self.bytes[4 + length:]
        return frame

    def await_frame(self, wanted, seconds=5):
        """The first frame to us for which wanted(frame) is true; answers neighbour questions."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frame = self.read()
            if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 135 \
                    and frame[62:78] == OUR_IP6:
                advert = b"\x88\0\0\0\x60\0\0\0" + OUR_IP6 + b"\x02\x01" + OUR_MAC
                self.send(ip6(58, advert, 2))
            if frame[:6] in (OUR_MAC, BROADCAST) and wanted(frame):
                return frame
        raise AssertionError("no such frame")


def path(machine, name):
    return f"build/sys/wire-{machine.variables['NIC']}-{name}.sock"


def qmp(machine, *commands):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path(machine, "qmp"))
        lines = s.makefile("rw")
        lines.readline()
        for command in ({"execute": "qmp_capabilities"},) + commands:
            lines.write(json.dumps(command) + "\n")
            lines.flush()
            answer = json.loads(lines.readline())
            assert "return" in answer, answer


def said(machine, text):
    return machine.wait(text, lambda: text in machine.console(), 15)


# ---- cases ----

def is_bound_within_a_second_of_link(machine):
    said(machine, "net: address 10.0.2.15")
    line = next(line for line in machine.console().split("\n") if "address 10.0.2.15" in line)
    assert int(line.split(", ")[1].split()[0]) < 1000, line


def answers_arp_and_ping(machine):
    wire = Wire(machine)
    wire.send(ethernet(BROADCAST, 0x0806, b"\0\1\10\0\6\4\0\1" + OUR_MAC + OUR_IP4 + bytes(6)
                       + GUEST_IP4))
    reply = wire.await_frame(lambda f: f[12:14] == b"\x08\x06" and f[21] == 2)
    assert reply[22:32] == GUEST_MAC + GUEST_IP4
    for size in 0, 1, 56, 1472:
        data = b"\0\7\0\1" + os.urandom(size)
        echo = b"\x08\0" + struct.pack("!H", checksum(b"\x08\0\0\0" + data)) + data
        wire.send(ip4(1, echo))
        reply = wire.await_frame(lambda f: f[12:14] == b"\x08\0" and f[23] == 1)
        length = struct.unpack("!H", reply[16:18])[0]
        assert reply[38:14 + length] == data and checksum(reply[34:14 + length]) == 0


def serves_over_ipv6(machine):
    said(machine, "net: address FE80::")
    wire, port, sequence = Wire(machine), 40000 + os.getpid() % 20000, 1000
    expected = 0

    def segment(flags, data=b"", options=b""):
        head = struct.pack("!HHIIBBHHH", port, 80, sequence, expected, (20 + len(options)) * 4,
                           flags, 65535, 0, 0)
        wire.send(ip6(6, head + options + data, 16))

    def answer():
        frame = wire.await_frame(lambda f: f[12:14] == b"\x86\xdd" and f[20] == 6
                                 and f[56:58] == struct.pack("!H", port))
        length = struct.unpack("!H", frame[18:20])[0]
        tcp = frame[54:54 + length]
        assert checksum(frame[22:54] + struct.pack("!II", length, 6) + tcp) == 0
        return tcp

    segment(2, options=b"\2\4\5\xa0")
    tcp = answer()
    assert tcp[13] == 0x12, tcp
    sequence, expected = sequence + 1, struct.unpack("!I", tcp[4:8])[0] + 1
    request = b"GET /health HTTP/1.1\r\nHost: nohost.local\r\nConnection: close\r\n\r\n"
    segment(0x18, request)
    sequence += len(request)
    text, done = b"", False
    while not done:
        tcp = answer()
        if struct.unpack("!I", tcp[4:8])[0] != expected:
            continue
        data = tcp[tcp[12] // 16 * 4:]
        text, expected, done = text + data, expected + len(data), tcp[13] & 1
        if data or done:
            expected += done
            segment(0x10)
    segment(0x11)
    assert text.startswith(b"HTTP/1.1 503"), text


def resolves_its_name_by_mdns(machine):
    time.sleep(3)  # it probes for its name before it owns it (RFC 6762, 8.1)
    wire = Wire(machine)
    question = b"\0\0\0\0\0\1\0\0\0\0\0\0\6nohost\5local\0\0\1\x80\1"  # answer to us alone, please
    udp = struct.pack("!HHHH", 5353, 5353, 8 + len(question), 0) + question
    frame = ip4(17, udp)
    group = b"\x01\0\x5e\0\0\xfb"
    head = frame[14:30] + bytes([224, 0, 0, 251])
    head = head[:10] + struct.pack("!H", checksum(head[:10] + b"\0\0" + head[12:])) + head[12:]
    wire.send(group + frame[6:14] + head + udp)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        frame = wire.read()
        if frame[12:14] == b"\x08\0" and frame[23] == 17 and frame[34:36] == b"\x14\xe9" \
                and b"\6nohost\5local\0\0\1" in frame and GUEST_IP4 in frame[54:]:
            return
    raise AssertionError("nohost.local has no address")


def survives_link_flaps(machine):
    for flap in range(1, 4):
        for up, word in (False, "link is down"), (True, "link is up"):
            qmp(machine, {"execute": "set_link", "arguments": {"name": "net", "up": up}})
            machine.wait(f"{word} {flap}",
                         lambda: machine.console().count(word) == flap + up, 5)
    machine.wait_health(503)


def loses_no_frame_to_a_flood(machine):
    wire = Wire(machine)
    for n in range(3000):
        kind = (0x0800, 0x0806, 0x86DD, 0x88CC)[n % 4]
        wire.send(ethernet(GUEST_MAC, kind, os.urandom(n % 1400)))
    machine.wait_health(503)
    _, _, text = machine.ask("/metrics")
    numbers = dict(line.rsplit(" ", 1) for line in text.split("\n") if line.startswith("nohost"))
    assert int(numbers["nohost_net_rx_frames_total"]) >= 3000
    assert int(numbers['nohost_net_pool_used{pool="frame"}']) < 20


CASES = [is_bound_within_a_second_of_link, answers_arp_and_ping, serves_over_ipv6,
         resolves_its_name_by_mdns, survives_link_flaps, loses_no_frame_to_a_flood]


def main():
    disk = os.environ.get("WIRE_IMAGE") or image("wire", model="none")
    results = []
    for nic in "virtio", "e1000e":
        machine = Machine(disk, NIC=nic, DISK="virtio", MEM="512M")
        machine.variables["QEMU_ARGS"] = " ".join(
            [f"-chardev socket,id={name},path={path(machine, name)},server=on,wait=off"
             for name in ("in", "out")]
            + ["-object filter-redirector,id=inject,netdev=net,queue=tx,indev=in",
               "-object filter-mirror,id=copy,netdev=net,queue=rx,outdev=out",
               "-set netdev.net.ipv6=off",  # it resets connections that it does not know
               f"-qmp unix:{path(machine, 'qmp')},server=on,wait=off"])
        with machine:
            print(f"-- {nic}")
            machine.wait_health(503)
            results.append(run_cases(CASES, machine))
    return closing_line(results)


if __name__ == "__main__":
    sys.exit(main())
