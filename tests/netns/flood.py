# A guest that sends as fast as it can, from its own interface eth0 (10.7.0.20): `flood.py KIND`.
#   dns       questions that the server outside does not answer, each another name
#   discover  DHCPDISCOVER and DHCPREQUEST, each from another MAC address
#   rubbish   DHCP, DNS and ICMP that is cut short or contradicts itself
#   flows     datagrams from ever new ports, each from another MAC address and one of a hundred addresses
#   ping      echo requests to the server outside
#   scan      datagrams to every address of the uplink's subnet
# Prints "ready" when the first are on their way.
import random, socket, struct, subprocess, sys, time

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def ip(source, destination, protocol, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(destination))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload

def udp(source, destination, sport, dport, payload):
    return ip(source, destination, 17, struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload)

def mac(number):
    return b"\x06" + struct.pack("!Q", number)[3:]

subprocess.run(["ping", "-c", "1", "-W", "2", "10.7.0.1"], stdout=subprocess.DEVNULL)
neighbours = subprocess.run(["ip", "neighbor", "show", "10.7.0.1"], capture_output=True, text=True).stdout.split()
gateway = bytes.fromhex(neighbours[neighbours.index("lladdr") + 1].replace(":", ""))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
own = wire.getsockname()[4]
chance = random.Random(1)

def dns(number):
    name = b"\x04dead" + bytes([len("n%d" % number)]) + b"n%d" % number + b"\x07example\0"
    question = struct.pack("!HHHHHH", number & 0xffff, 0x100, 1, 0, 0, 0) + name + b"\0\x01\0\x01"
    return gateway + own + b"\x08\0" + udp("10.7.0.20", "10.7.0.1", 1024 + number % 60000, 53, question)

def dhcp(number, kind, more=b""):
    source = mac(number)
    message = struct.pack("!BBBBIHH", 1, 1, 6, 0, number, 0, 0) + bytes(16) + source + bytes(10 + 192) + b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + more + b"\xff"
    return b"\xff" * 6 + source + b"\x08\0" + udp("0.0.0.0", "255.255.255.255", 68, 67, message)

def discover(number):
    if number % 2:
        return dhcp(number // 2, 3, b"\x32\x04\x0a\x07\0" + bytes([30 + number % 200]) + b"\x36\x04\x0a\x07\0\x01")
    return dhcp(number // 2, 1)

def rubbish(number):
    noise = chance.randbytes(chance.randrange(0, 400))
    whole = [dhcp(number, chance.randrange(0, 20), noise), dns(number),
        gateway + own + b"\x08\0" + ip("10.7.0.20", "10.7.0.1", 1, noise),
        gateway + own + b"\x08\0" + udp("10.7.0.20", "10.7.0.1", 1000, 53, noise),
        gateway + own + b"\x08\0" + udp("10.7.0.20", "10.7.0.1", 68, 67, noise)][number % 5]
    if number % 3 == 0:
        at = chance.randrange(42, max(43, len(whole)))
        whole = whole[:at] + noise[:8] + whole[at + 8:]
    return whole[:chance.randrange(14, len(whole) + 1)] if number % 4 == 0 else whole

def flows(number):
    source = "10.7.0.%d" % (100 + number % 100)
    return gateway + mac(number) + b"\x08\0" + udp(source, "198.51.100.1", 1024 + number // 100 % 60000, 9, b"x")

def ping(number):
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, number & 0xffff) + bytes(1000)
    return gateway + own + b"\x08\0" + ip("10.7.0.20", "198.51.100.1", 1, echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:])

def scan(number):
    return gateway + own + b"\x08\0" + udp("10.7.0.20", "192.0.2.%d" % (2 + number % 218), 1024 + number % 60000, 9, bytes(1400))

make = {"dns": dns, "discover": discover, "rubbish": rubbish, "flows": flows, "ping": ping, "scan": scan}[sys.argv[1]]
number = 0
while True:
    try:
        wire.send(make(number))
    except OSError:
        time.sleep(0.001)
    number += 1
    if number == 100:
        print("ready", flush=True)
