# Exact frames through a packet socket: `send IF [GAP]` reads lines of hex, `listen IF` prints them, with the tag
# that the kernel stripped put back. Only what others sent is printed. One line "ready" comes first.
import socket, struct, sys, time
mode, name = sys.argv[1], sys.argv[2]
if mode == "send":
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind((name, 0))
    gap = float(sys.argv[3]) if len(sys.argv) > 3 else 0
    frames = [bytes.fromhex(line.strip()) for line in sys.stdin]
    due = time.monotonic()
    for frame in frames:
        s.send(frame)
        # By a schedule, so that the rate is the same on every machine; what is late by more than 20 ms stays late.
        now = time.monotonic()
        due = max(due + gap, now - 0.02)
        if due > now:
            time.sleep(due - now)
else:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(263, 8, 1)           # PACKET_AUXDATA
    s.setsockopt(263, 23, 1)          # PACKET_IGNORE_OUTGOING
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 1 << 26)
    s.bind((name, 3))                 # ETH_P_ALL
    print("ready", flush=True)
    while True:
        try:
            data, control, _, address = s.recvmsg(1 << 17, 256)
        except OSError as error:
            if error.errno == 100:    # ENETDOWN, said once; it goes on when the link is back
                continue
            break
        if address[2] == 4:           # PACKET_OUTGOING
            continue
        for level, kind, aux in control:
            if level == 263 and kind == 8:
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", aux[:20])
                if status & 0x10:     # TP_STATUS_VLAN_VALID
                    tpid = tpid if status & 0x40 else 0x8100
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        print(data.hex(), flush=True)
