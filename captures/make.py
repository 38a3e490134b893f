#!/usr/bin/python3
"""Makes the golden captures: for each case what enters a switch (in.pcapng) and what has to leave it (out.pcapng).

What has to leave is worked out here, by scapy, and never by switchd. An interface block is a port of the
switch; a packet's interface is the port by which it enters or leaves. A superframe or a frame with an open
checksum says so in its comment: `gso=tcp4 size=1000 csum=34+16`. The switch that each case wants is built
in tests/golden. Run: captures/make.py, after a change here (Debian package python3-scapy).
"""
import os, struct
from scapy.all import Ether, IP, IPv6, TCP, UDP, ICMP, ARP, Dot1Q, Raw, raw

HERE = os.path.dirname(os.path.abspath(__file__))
A, B, C, D = ("02:00:00:00:00:0%d" % n for n in (1, 2, 3, 4))
ALL = "ff:ff:ff:ff:ff:ff"
START = 1_700_000_000_000_000_000


def options(pairs):
    out = b""
    for code, value in pairs:
        out += struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)
    return out + struct.pack("<HH", 0, 0)


def block(kind, body):
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def write(path, ports, packets):
    """packets: (port, bytes, comment)"""
    with open(path, "wb") as file:
        file.write(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
        for name in ports:
            body = struct.pack("<HHI", 1, 0, 0) + options([(2, name.encode()), (9, b"\x09")])
            file.write(block(1, body))
        for number, (port, data, comment) in enumerate(packets):
            time = START + number * 1_000_000
            body = struct.pack("<IIIII", ports.index(port), time >> 32, time & 0xFFFFFFFF, len(data), len(data))
            body += data + b"\0" * (-len(data) % 4)
            if comment:
                body += options([(1, comment.encode())])
            file.write(block(6, body))


def case(name, ports, steps, told):
    """steps: (port, frame[, comment], {port: [frames]})"""
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    into, out = [], []
    for step in steps:
        port, frame, *comment, leaves = step
        into.append((port, bytes(frame), comment[0] if comment else None))
        for target in ports:
            for item in leaves.get(target, []):
                data, note = item if isinstance(item, tuple) else (item, None)
                out.append((target, bytes(data), note))
    write(os.path.join(folder, "in.pcapng"), ports, into)
    write(os.path.join(folder, "out.pcapng"), ports, out)
    with open(os.path.join(folder, "README"), "w") as file:
        file.write(told + " Made by captures/make.py with scapy; nothing in it was ever on a real network.\n")


def pad(frame):
    data = raw(frame)
    return data + b"\0" * max(0, 60 - len(data))


def payload(count):
    return bytes((7 * n + n // 251) & 0xFF for n in range(count))


# --- untagged -------------------------------------------------------------------------------------------
request = pad(Ether(dst=ALL, src=A) / ARP(op=1, hwsrc=A, psrc="10.0.0.1", pdst="10.0.0.2"))
answer = pad(Ether(dst=A, src=B) / ARP(op=2, hwsrc=B, psrc="10.0.0.2", hwdst=A, pdst="10.0.0.1"))
echo = raw(Ether(dst=B, src=A) / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(id=7, seq=1) / payload(1472))
multicast = pad(Ether(dst="01:00:5e:00:00:fb", src=A) / IP(src="10.0.0.1", dst="224.0.0.251") / UDP(sport=5353, dport=5353) / b"x")
tagged = pad(Ether(dst=B, src=A) / Dot1Q(vlan=77, prio=5) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / b"tagged")
service = pad(Ether(dst=B, src=A, type=0x88A8) / Raw(struct.pack("!HH", 100, 0x8100) + struct.pack("!HH", 5, 0x88B5) + b"q in q"))
priority = pad(Ether(dst=B, src=A) / Dot1Q(vlan=0, prio=6) / Raw(b"\x88\xb5priority"))
moved = pad(Ether(dst=B, src=A, type=0x88B5) / b"moved")
back = pad(Ether(dst=A, src=B, type=0x88B5) / b"where are you")
case("untagged", ["a", "b", "c"], [
    ("a", request, {"b": [request], "c": [request]}),
    ("b", answer, {"a": [answer]}),
    ("a", echo, {"b": [echo]}),
    ("a", multicast, {"b": [multicast], "c": [multicast]}),
    ("a", tagged, {"b": [tagged]}),
    ("a", service, {"b": [service]}),
    ("a", priority, {"b": [priority]}),
    ("c", moved, {"b": [moved]}),
    ("b", back, {"c": [back]}),
], "Three transparent ports: flooding, learning, a move, tags that pass unchanged (802.1Q, 802.1ad, VID 0).")

# --- access, trunk, native ------------------------------------------------------------------------------
def vlan(vid, to, source, text, prio=0):
    inner = struct.pack("!H", 0x88B5) + text
    if vid is None:
        return pad(Ether(dst=to, src=source, type=0x88B5) / text)
    return pad(Ether(dst=to, src=source) / Dot1Q(vlan=vid, prio=prio, type=0x88B5) / text)

# A tag comes and goes behind the addresses; the rest, padding included, stays as it is.
def push(frame, vid, prio=0):
    return frame[:12] + struct.pack("!HH", 0x8100, prio << 13 | vid) + frame[12:]

def pop(frame):
    return frame[:12] + frame[16:]

ten = vlan(None, ALL, A, b"from ten")
trunk20 = vlan(20, ALL, C, b"to twenty", 3)
trunk10 = vlan(10, A, C, b"to A in ten", 5)
native = vlan(None, ALL, C, b"native one")
twenty = vlan(None, C, B, b"twenty to trunk")
foreign = vlan(30, ALL, C, b"thirty is not mine")
wrong = vlan(20, ALL, A, b"tag at an access port")
prio0 = vlan(0, C, A, b"priority only", 6)
open10 = vlan(10, ALL, D, b"ten from transparent")
case("access-trunk", ["ten", "twenty", "trunk", "open"], [
    ("ten", ten, {"trunk": [push(ten, 10)], "open": [push(ten, 10)]}),
    ("trunk", trunk20, {"twenty": [pop(trunk20)], "open": [trunk20]}),
    ("trunk", trunk10, {"ten": [pop(trunk10)]}),
    ("trunk", native, {"open": [push(native, 1)]}),
    ("twenty", twenty, {"trunk": [push(twenty, 20)]}),
    ("trunk", foreign, {}),
    ("ten", wrong, {}),
    ("ten", prio0, {"trunk": [push(pop(prio0), 10, 6)]}),
    ("open", open10, {"ten": [pop(open10)], "trunk": [open10]}),
], "Ports ten (access=10), twenty (access=20), trunk (trunk=10,20,native=1) and open (transparent).")

# --- an uplink that three networks share ----------------------------------------------------------------
red1 = vlan(None, ALL, A, b"red goes out")
blue_in = vlan(200, ALL, C, b"blue comes in", 4)
plain1 = vlan(None, ALL, B, b"plain goes out")
plain_tag = vlan(300, ALL, B, b"an unclaimed tag")
plain_bad = vlan(100, ALL, B, b"a claimed tag")
red_in = vlan(100, A, D, b"red comes back")
red_inner = vlan(200, ALL, A, b"inner tag in red")
untagged_in = vlan(None, B, "02:00:00:00:00:09", b"plain comes in")
own = vlan(None, "02:00:00:00:00:ee", "02:00:00:00:00:09", b"for the host itself")
nobody = vlan(100, ALL, "01:00:00:00:00:09", b"group source")
case("uplink-vlan", ["red", "blue", "plain", "uplink"], [
    ("red", red1, {"uplink": [push(red1, 100)]}),
    ("uplink", blue_in, {"blue": [pop(blue_in)]}),
    ("plain", plain1, {"uplink": [plain1]}),
    ("plain", plain_tag, {"uplink": [plain_tag]}),
    ("plain", plain_bad, {}),
    ("uplink", red_in, {"red": [pop(red_in)]}),
    ("red", red_inner, {"uplink": [push(red_inner, 100)]}),
    ("uplink", untagged_in, {"plain": [untagged_in]}),
    ("uplink", own, {}),
    ("uplink", nobody, {}),
], "Networks red (VLAN 100), blue (VLAN 200) and plain (untagged) on one uplink whose interface has 02:00:00:00:00:ee.")

# --- what never passes ----------------------------------------------------------------------------------
bpdu = pad(Ether(dst="01:80:c2:00:00:00", src=A, type=0x0027) / Raw(b"\x42\x42\x03" + b"\0" * 36))
lldp = pad(Ether(dst="01:80:c2:00:00:0e", src=A, type=0x88CC) / b"lldp")
above = pad(Ether(dst="01:80:c2:00:00:10", src=A, type=0x88B5) / b"sixteen is an ordinary group")
case("refused", ["a", "b"], [
    ("a", b"", {}),
    ("a", b"\xff" * 13, {}),
    ("a", bytes.fromhex("ffffffffffff" + A.replace(":", "") + "88b5"), {"b": [bytes.fromhex("ffffffffffff" + A.replace(":", "") + "88b5")]}),
    ("a", bpdu, {}),
    ("a", lldp, {}),
    ("a", above, {"b": [above]}),
    ("a", vlan(None, ALL, "03:00:00:00:00:01", b"group source"), {}),
    ("a", vlan(None, ALL, "00:00:00:00:00:00", b"zero source"), {}),
    ("a", vlan(4095, ALL, A, b"reserved VID"), {}),
    ("a", raw(Ether(dst=ALL, src=A, type=0x88B5) / payload(1501)), {}),
    ("a", raw(Ether(dst=ALL, src=A, type=0x88B5) / payload(1500)), {"b": [raw(Ether(dst=ALL, src=A, type=0x88B5) / payload(1500))]}),
    ("a", vlan(None, A, B, b"its own way back"), {}),
], "What a bridge never forwards: runts, reserved groups, bad sources, VID 4095, too long, back where it came from.")


# --- offloads -------------------------------------------------------------------------------------------
def fold(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total

def open_checksum(frame):
    """The frame as a guest with checksum offload sends it: the field holds the pseudo-header sum."""
    ip = frame.getlayer(IP) or frame.getlayer(IPv6)
    layer = frame.getlayer(TCP) or frame.getlayer(UDP)
    data = bytearray(raw(frame))
    start = len(data) - len(raw(layer))
    offset = 16 if layer.haslayer(TCP) else 6
    length = len(data) - start
    number = 6 if offset == 16 else 17
    if ip.version == 4:
        pseudo = raw(ip)[12:20] + struct.pack("!BBH", 0, number, length)
    else:
        pseudo = raw(ip)[8:40] + struct.pack("!IHBB", length, 0, 0, number)
    data[start + offset:start + offset + 2] = struct.pack("!H", fold(pseudo))
    return bytes(data), start, offset

def finished(frame):
    """All checksums and lengths anew."""
    frame = frame.copy()
    for kind, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("chksum", "len"))):
        layer = frame.getlayer(kind)
        if layer:
            for field in fields:
                delattr(layer, field)
    return Ether(raw(frame))

def segments(frame, size):
    kind = TCP if frame.haslayer(TCP) else UDP
    body = raw(frame.getlayer(kind).payload)
    out = []
    for number, at in enumerate(range(0, len(body), size)):
        part = frame.copy()
        part.getlayer(kind).remove_payload()
        part = part / Raw(body[at:at + size])
        if part.haslayer(IP):
            part[IP].id = (frame[IP].id + number) & 0xFFFF
        if kind is TCP:
            part[TCP].seq = (frame[TCP].seq + at) & 0xFFFFFFFF
            if at + size < len(body):
                part[TCP].flags = str(part[TCP].flags).replace("P", "").replace("F", "")
            if number:
                part[TCP].flags = str(part[TCP].flags).replace("C", "")
        out.append(raw(finished(part)))
    return out

eth = lambda *tags: Ether(dst=ALL, src=A) / tags[0] if tags else Ether(dst=ALL, src=A)
v4 = dict(src="10.0.0.1", dst="10.0.0.2", id=0xFFFE)
v6 = dict(src="fd00::1", dst="fd00::2")
tcp = dict(sport=40000, dport=5201, seq=0xFFFFFA00, ack=77, options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))])
supers = [
    ("tcp4", 1000, eth() / IP(**v4) / TCP(flags="PA", **tcp) / payload(3500)),
    ("tcp4", 1000, eth() / IP(**v4) / TCP(flags="FPAC", **tcp) / payload(2000)),
    ("tcp6", 1428, eth() / IPv6(**v6) / TCP(flags="PA", **tcp) / payload(4000)),
    ("udp", 1200, eth() / IP(**v4) / UDP(sport=1, dport=2) / payload(2401)),
    ("udp", 1200, eth() / IPv6(**v6) / UDP(sport=1, dport=2) / payload(3601)),
    ("tcp4", 500, eth(Dot1Q(vlan=42, prio=1)) / IP(**v4) / TCP(flags="A", **tcp) / payload(1499)),
]
steps = []
for kind, size, frame in supers:
    frame = finished(frame)
    data, start, offset = open_checksum(frame)
    ecn = " ecn" if frame.haslayer(TCP) and "C" in str(frame[TCP].flags) else ""
    note = "gso=%s size=%d csum=%d+%d%s" % (kind, size, start, offset, ecn)
    steps.append(("a", data, note, {"plain": segments(frame, size), "able": [(data, note)]}))
case("gso", ["a", "plain", "able"], steps,
     "Superframes: port able takes them as they are, port plain (no offloads) gets the segments.")

# A checksum is completed in the frame itself, so a flood may hand the finished frame to able too: unicast.
hello = [vlan(None, ALL, B, b"plain is here"), vlan(None, ALL, C, b"able is here")]
steps = [("plain", hello[0], {"a": [hello[0]], "able": [hello[0]]}),
         ("able", hello[1], {"a": [hello[1]], "plain": [hello[1]]})]
for frame in [
    eth() / IP(**v4) / TCP(flags="S", **tcp),
    eth() / IP(**v4) / TCP(flags="PA", **tcp) / payload(1401),
    eth() / IP(**v4) / UDP(sport=1, dport=2) / payload(1),
    eth() / IPv6(**v6) / TCP(flags="PA", **tcp) / payload(999),
    eth() / IPv6(**v6) / UDP(sport=53, dport=53) / payload(301),
    eth(Dot1Q(vlan=42)) / IP(**v4) / UDP(sport=1, dport=2) / payload(800),
    # Sums up to zero: a UDP checksum of 0 would say "none".
    eth() / IP(**v4) / UDP(sport=0, dport=0) / struct.pack("!H", 0xFFFF - fold(raw(IP(**v4))[12:20] + struct.pack("!BBHHHHH", 0, 17, 10, 0, 0, 10, 0))),
]:
    frame = finished(frame)
    data, start, offset = open_checksum(frame)
    note = "csum=%d+%d" % (start, offset)
    to = lambda mac, data: bytes.fromhex(mac.replace(":", "")) + data[6:]
    steps.append(("a", to(B, data), note, {"plain": [to(B, raw(frame))]}))
    steps.append(("a", to(C, data), note, {"able": [(to(C, data), note)]}))
case("checksum", ["a", "plain", "able"], steps,
     "Frames with an open checksum: port able takes them so, port plain gets them completed.")
