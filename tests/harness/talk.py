# A peer for tests of address translation, over TCP and UDP of either family.
#   serve ADDRESS PORT          both protocols; prints "ready"; see `answer` for what it does with a line
#   who ADDRESS PORT [FROM]     prints the address and port that the server sees
#   udp ADDRESS PORT COUNT [FROM]  prints each answer, or "silence"; the server answers what it sees and what was said
#   put ADDRESS PORT BYTES      sends, shuts its side, reads to the end; prints the server's digest and its own
#   get ADDRESS PORT BYTES      asks for bytes and reads to the end; prints the number and the digest
#   slow ADDRESS PORT BYTES     the same, but does not read for a while
#   connect ADDRESS PORT        prints "open" or the name of the error, and the time it took
#   refused ADDRESS PORT        sends a datagram; prints the name of the error that comes back, or "silence"
#   reset ADDRESS PORT          prints what a read says after the server has reset the connection
#   many ADDRESS PORT COUNT     that many connections at once, each asks and is answered; prints how many did,
#                               keeps them until standard input ends, asks once more, prints how many did
#   flood ADDRESS PORT COUNT    that many datagrams, each from a socket of its own
import errno, hashlib, resource, select, socket, struct, sys, threading, time

def descriptors(wanted):
    limit = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET

def pattern(count):
    block = bytes((index * 7 + (index >> 8)) & 255 for index in range(65536))
    while count > 0:
        yield block[:count]
        count -= len(block)

def answer(stream, peer, words):
    if words[0] == "who":
        stream.sendall(f"{peer[0]} {peer[1]}\n".encode())
        # Until the client closes.
        while stream.recv(4096):
            pass
    elif words[0] == "put":
        digest = hashlib.sha256()
        while True:
            data = stream.recv(1 << 20)
            if not data:
                break
            digest.update(data)
        # The other half is still open.
        stream.sendall(digest.hexdigest().encode())
    elif words[0] == "get":
        for block in pattern(int(words[1])):
            stream.sendall(block)
    elif words[0] == "reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

def handle(stream, peer, words):
    with stream:
        try:
            answer(stream, peer, words)
        except OSError:
            pass

class Caller:
    # A connection that has not said what it wants, or only asks: thousands of them take no thread each.
    def __init__(self, stream, peer):
        self.stream, self.peer, self.line, self.asks = stream, peer, b"", False

    def hear(self):
        # "stays", "gone", or what a thread is to do.
        try:
            while not self.asks:
                more = self.stream.recv(1)
                if not more:
                    return "gone"
                self.line += more
                if self.line == b"ask\n":
                    self.asks = True
                    self.stream.send(b"here")
                elif more == b"\n":
                    return self.line.decode().split()
            if not self.stream.recv(4):
                return "gone"
            self.stream.send(b"here")
        except BlockingIOError:
            pass
        except OSError:
            return "gone"
        return "stays"

def serve(address, port):
    # `many` asks a lot of us.
    descriptors(40000)
    datagrams = socket.socket(family(address), socket.SOCK_DGRAM)
    datagrams.bind((address, port))
    listener = socket.socket(family(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(4096)
    def echo():
        while True:
            try:
                data, peer = datagrams.recvfrom(65535)
                datagrams.sendto(f"{peer[0]} {peer[1]} ".encode() + data, peer)
            except OSError:
                pass
    threading.Thread(target=echo, daemon=True).start()
    listener.setblocking(False)
    poller, callers = select.epoll(), {}
    poller.register(listener, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        for number, _ in poller.poll():
            if number == listener.fileno():
                try:
                    stream, peer = listener.accept()
                except OSError:
                    continue
                stream.setblocking(False)
                callers[stream.fileno()] = Caller(stream, peer)
                poller.register(stream, select.EPOLLIN)
                continue
            caller = callers[number]
            said = caller.hear()
            if said == "stays":
                continue
            poller.unregister(number)
            del callers[number]
            if said == "gone":
                caller.stream.close()
            else:
                caller.stream.setblocking(True)
                threading.Thread(target=handle, args=(caller.stream, caller.peer, said), daemon=True).start()

def opened(address, port, source=None, limit=8):
    stream = socket.socket(family(address))
    stream.settimeout(limit)
    if source:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind(("", source))
    stream.connect((address, port))
    return stream

def rest(stream):
    count, digest = 0, hashlib.sha256()
    while True:
        data = stream.recv(1 << 20)
        if not data:
            return count, digest.hexdigest()
        count += len(data)
        digest.update(data)

def many(address, port, count):
    descriptors(40000)
    streams, waiting, failed = [], {}, {}
    poller = select.epoll()
    for _ in range(count):
        stream = socket.socket(family(address))
        stream.setblocking(False)
        stream.connect_ex((address, port))
        waiting[stream.fileno()] = stream
        poller.register(stream, select.EPOLLOUT)
        # Not faster than what a listener's queue can hold.
        if len(waiting) % 200 == 0:
            time.sleep(0.02)
    end = time.time() + 60
    asked = 0
    while waiting and time.time() < end:
        for number, event in poller.poll(0.5):
            stream = waiting.get(number)
            if stream is None:
                continue
            try:
                code = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, "")
                if event & select.EPOLLIN:
                    if stream.recv(4) == b"here":
                        streams.append(stream)
                    else:
                        raise OSError(errno.ECONNRESET, "")
                    poller.unregister(stream)
                    del waiting[number]
                else:
                    stream.send(b"ask\n")
                    asked += 1
                    poller.modify(stream, select.EPOLLIN)
            except OSError as error:
                name = errno.errorcode[error.errno]
                failed[name] = failed.get(name, 0) + 1
                poller.unregister(stream)
                del waiting[number]
    print(len(streams), len(waiting), *(f"{name}={number}" for name, number in sorted(failed.items())), flush=True)
    sys.stdin.read()
    good = 0
    for stream in streams:
        stream.setblocking(True)
        stream.settimeout(5)
        try:
            stream.send(b"more")
            good += stream.recv(4) == b"here"
        except OSError:
            pass
    print(good, flush=True)

mode, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
number = int(sys.argv[4]) if len(sys.argv) > 4 else 0
if mode == "serve":
    serve(address, port)
elif mode == "who":
    stream = opened(address, port, number)
    stream.sendall(b"who\n")
    print(stream.recv(100).decode().strip())
elif mode == "udp":
    sender = socket.socket(family(address), socket.SOCK_DGRAM)
    sender.settimeout(1.5)
    if len(sys.argv) > 5:
        sender.bind(("", int(sys.argv[5])))
    for index in range(number):
        try:
            sender.sendto(f"hello {index}".encode(), (address, port))
            print(sender.recv(65535).decode())
        except OSError as error:
            print("silence" if isinstance(error, socket.timeout) else errno.errorcode[error.errno])
elif mode == "refused":
    sender = socket.socket(family(address), socket.SOCK_DGRAM)
    sender.settimeout(3)
    sender.connect((address, port))
    try:
        sender.send(b"x")
        sender.recv(10)
        print("data")
    except socket.timeout:
        print("silence")
    except OSError as error:
        print(errno.errorcode[error.errno])
elif mode == "put":
    stream = opened(address, port)
    stream.sendall(b"put\n")
    digest = hashlib.sha256()
    for block in pattern(number):
        digest.update(block)
        stream.sendall(block)
    stream.shutdown(socket.SHUT_WR)
    said = b""
    while True:
        data = stream.recv(4096)
        if not data:
            break
        said += data
    print(said.decode(), digest.hexdigest())
elif mode in ("get", "slow"):
    stream = opened(address, port)
    stream.sendall(f"get {number}\n".encode())
    if mode == "slow":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        print("waiting", flush=True)
        sys.stdin.read()
    print(*rest(stream))
elif mode == "connect":
    begun = time.time()
    try:
        opened(address, port, None, 6)
        print("open")
    except socket.timeout:
        print("silence")
    except OSError as error:
        print(errno.errorcode[error.errno], f"{time.time() - begun:.2f}")
elif mode == "reset":
    stream = opened(address, port)
    stream.sendall(b"reset\n")
    try:
        print("end" if not stream.recv(10) else "data")
    except OSError as error:
        print(errno.errorcode[error.errno])
elif mode == "many":
    many(address, port, number)
elif mode == "flood":
    for index in range(number):
        sender = socket.socket(family(address), socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.sendto(b"flood", (address, port + index // 28000))
        sender.close()
        if index % 64 == 0:
            time.sleep(0.001)
