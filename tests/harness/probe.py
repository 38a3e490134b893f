# Numbered datagrams at a steady rate, and their echoes: what is lost, doubled or overtaken.
#   echo ADDRESS PORT                 answers; prints "ready"
#   probe ADDRESS PORT RATE FLOWS     until standard input ends; prints "ready", then at the end one line:
#                                     sent lost doubled reordered longest-gap-in-ms; lines typed in meanwhile
#                                     print the same for the time since the last one (with 0.3 s to settle)
import socket, sys, threading, time
mode, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if mode == "echo":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)
    s.bind((address, port))
    print("ready", flush=True)
    while True:
        try:
            data, peer = s.recvfrom(2048)
            s.sendto(data, peer)
        except OSError:
            pass
rate, flows = float(sys.argv[4]), int(sys.argv[5])
socks = []
for _ in range(flows):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((address, port))
    socks.append(s)
lock = threading.Lock()
sent, seen, doubled, reordered, gap = 0, set(), 0, 0, 0.0
begun_at, done = 0, False
def listen(s):
    global doubled, reordered, gap
    last, when = -1, None
    while not done:
        try:
            data = s.recv(2048)
        except OSError:
            continue
        number, now = int(data), time.monotonic()
        with lock:
            if number in seen:
                doubled += 1
            seen.add(number)
            if number < last:
                reordered += 1
            last = max(last, number)
            if when is not None:
                gap = max(gap, now - when)
            when = now
def send():
    global sent
    begun = time.monotonic()
    while not done:
        due = int((time.monotonic() - begun) * rate)
        while sent < due:
            try:
                socks[sent % flows].send(b"%d" % sent)
            except OSError:
                pass
            sent += 1
        time.sleep(0.0005)
for s in socks:
    threading.Thread(target=listen, args=(s,), daemon=True).start()
sender = threading.Thread(target=send, daemon=True)
sender.start()
print("ready", flush=True)
def tell():
    global begun_at, doubled, reordered, gap
    upto = sent
    time.sleep(0.3)
    with lock:
        lost = sum(1 for number in range(begun_at, upto) if number not in seen)
        print(upto - begun_at, lost, doubled, reordered, round(gap * 1000), flush=True)
        begun_at, doubled, reordered, gap = upto, 0, 0, 0.0
for line in sys.stdin:
    tell()
tell()
done = True
