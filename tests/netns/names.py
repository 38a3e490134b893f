# A name server outside, over UDP and TCP: `names.py ADDRESS`. Prints "ready", then every name it is asked for.
#   big.*      TXT of 3000 bytes: truncated over UDP
#   spoofed.*  before the answer come forged ones: another id, source port, source address, question, no question
#   whoami.*   TXT: its own address
#   slow.*     answers late
#   dead.*     says nothing
#   none.*     there is no such name
#   others     A 203.0.113.7
import socket, struct, sys, threading, time

own = sys.argv[1]
FORGED = socket.inet_aton("6.6.6.6")

def parse(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    kind = struct.unpack("!H", query[at + 1:at + 3])[0]
    return ".".join(labels), kind, query[12:at + 5]

def message(query, question, records, flags=0x8580):
    head = query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
    return head + question + b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for kind, data in records)

def text(words):
    return b"".join(bytes([len(part)]) + part for part in (words[at:at + 200] for at in range(0, len(words), 200)))

def reply(query, stream):
    name, kind, question = parse(query)
    print(name, "tcp" if stream else "udp", flush=True)
    first = name.split(".")[0].lower()
    if first == "dead":
        return None
    if first == "none":
        return message(query, question, [], 0x8583)
    if first == "slow":
        time.sleep(1)
    if first == "big":
        return message(query, question, [(16, text(b"x" * 3000))]) if stream else message(query, question, [], 0x8780)
    if first == "whoami":
        return message(query, question, [(16, text(own.encode()))])
    return message(query, question, [(1, socket.inet_aton("203.0.113.7"))] if kind == 1 else [])

def forge(server, query, peer):
    name, kind, question = parse(query)
    other = bytes([query[0] ^ 1, query[1]]) + query[2:]
    server.sendto(message(other, question, [(1, FORGED)]), peer)
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind((own, 0))
    stranger.sendto(message(query, question, [(1, FORGED)]), peer)
    stranger.close()
    elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elsewhere.bind(("192.0.2.1", 53))
    elsewhere.sendto(message(query, question, [(1, FORGED)]), peer)
    elsewhere.close()
    wrong = b"\x04evil\x00" + question[-4:]
    server.sendto(message(query, wrong, [(1, FORGED)]), peer)
    server.sendto(query[:2] + struct.pack("!HHHHH", 0x8580, 0, 1, 0, 0) + b"\0" + struct.pack("!HHIH", 1, 1, 60, 4) + FORGED, peer)
    time.sleep(0.3)

def datagram(server, query, peer):
    if parse(query)[0].lower().startswith("spoofed."):
        forge(server, query, peer)
    answer = reply(query, False)
    if answer:
        server.sendto(answer, peer)

def connection(stream):
    with stream:
        try:
            while True:
                length = stream.recv(2, socket.MSG_WAITALL)
                if len(length) < 2:
                    return
                query = stream.recv(struct.unpack("!H", length)[0], socket.MSG_WAITALL)
                answer = reply(query, True)
                if answer:
                    stream.sendall(struct.pack("!H", len(answer)) + answer)
        except OSError:
            pass

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((own, 53))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((own, 53))
listener.listen(64)

def accept():
    while True:
        threading.Thread(target=connection, args=(listener.accept()[0],), daemon=True).start()

threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
while True:
    query, peer = server.recvfrom(4096)
    first = parse(query)[0].lower().split(".")[0]
    if first in ("slow", "spoofed"):
        threading.Thread(target=datagram, args=(server, query, peer), daemon=True).start()
    else:
        datagram(server, query, peer)
