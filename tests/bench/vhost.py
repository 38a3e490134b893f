"""vhost-user ports: switchd against Open vSwitch with DPDK and testpmd as the switch.

The guests' NICs are two in one process on CPU 0, the switch is on CPU 1. Two such processes are used: DPDK's testpmd
(`vhost-ceiling`, `vhost-frames`), whose frames circle, and `bench-guest` (the other parts), which has flows,
superframes and one clock for both ends. Neither loses a frame unless the switch does: so many are under way at most
as the rings hold, and the slower of the two processors sets the rate.
"""
import json
import os
import pathlib
import statistics
import subprocess
import time

from common import BIN, Stage, sh, spread, table
from vhost_switches import BURSTS, Testpmd, hugepages, make


def circling(switch, size, both, seconds):
    """Million frames a second; busy cycles a frame of the switch, of the generator."""
    generator = switch.generator
    generator.circle(size, both)
    time.sleep(0.2)
    generator.say("clear fwd stats all")
    switch.mark()
    generator.rates()
    time.sleep(seconds)
    rate = sum(generator.rates()) / 1e6
    busy, own = switch.cycles(), generator.cycles()
    generator.say("stop")
    return rate, busy, own


def load(switch, seconds, **keys):
    """The same with bench-guest; then Gbit/s and the share of frames that were lost."""
    words = [BIN / "bench-guest", "load", *switch.sockets, f"seconds={seconds}", *[f"{k}={v}" for k, v in keys.items()]]
    guest = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        guest.stdout.readline()
        switch.mark()
        out, errors = guest.communicate(timeout=60)
    finally:
        guest.kill()
    if guest.returncode:
        raise RuntimeError(f"{switch.name}: bench-guest {keys}: {errors[:300]}")
    shown = json.loads(out)
    frames = sum(shown["frames"])
    return (frames / shown["seconds"] / 1e6, switch.cycles(), shown["cycles"], 8 * shown["bytes"] / shown["seconds"] / 1e9,
            100 * shown["lost"] / max(1, frames + shown["lost"]))


def latency(switch, count, gap):
    out = sh(BIN / "bench-guest", "latency", *switch.sockets, f"count={count}", f"gap={gap}")
    shown = json.loads(out)
    return shown["p50"], shown["p99"], shown["lost"]


def rounds_of(made, rounds, cases, measure):
    """Every switch once a round, each case in its turn: {case: {switch: [values]}}."""
    results = {case: {switch.name: [] for switch in made} for case in cases}
    for number in range(rounds):
        for switch in made if number % 2 == 0 else reversed(made):
            switch.thaw()
            for case in cases:
                results[case][switch.name].append(measure(switch, case))
            switch.freeze()
    return results


def ratio(ours, theirs, place):
    pairs = [a[place] / b[place] for a, b in zip(ours, theirs) if b[place]]
    return f"{statistics.median(pairs):.2f}" if pairs else "-"


def show(title, by_name, columns):
    """A row a switch; `columns`: (title, place in the values, digits, with a ratio)."""
    first, ours = next(iter(by_name.items()))
    header = ["switch"]
    for name, _, _, compared in columns:
        header += [f"{name}, median (range)"] + ([f"{first} ÷ it"] if compared else [])
    rows = []
    for name, values in by_name.items():
        row = [name]
        for _, place, digits, compared in columns:
            row.append(spread([value[place] for value in values], digits))
            if compared:
                row.append(ratio(ours, values, place))
        rows.append(row)
    table(title, header, rows)


FRAMES = [("million frames/s", 0, 2, True), ("busy cycles a frame", 1, 0, True), ("generator, cycles a frame", 2, 0, False)]
GIGABITS = [("Gbit/s", 3, 1, True), ("busy cycles a frame", 1, 0, True), ("lost, %", 4, 1, False)]


def ways(both):
    return "both ways" if both else "one way"


def ceiling(folder, rounds, seconds, sizes):
    """testpmd's NICs back to back, in one process: a virtio-user NIC whose other end is a vhost port."""
    place = folder / "vh-ceiling"
    place.mkdir()
    socket = place / "vh"
    alone = Testpmd(place, "alone", [0], [f"net_vhost0,iface={socket}"], "--no-flush-rx")
    try:
        # It connects as soon as it is made, so the other end must run before it.
        alone.say(f"port attach net_virtio_user0,path={socket},queue_size=1024,server=0")
        alone.say("port start 1")
        rows = []
        for size in sizes:
            values = []
            for _ in range(rounds):
                alone.say("stop")
                alone.say(f"set txpkts {size}")
                alone.say(f"start tx_first {BURSTS}")
                time.sleep(0.2)
                alone.say("clear fwd stats all")
                alone.rates()
                time.sleep(seconds)
                rate = sum(alone.rates()) / 1e6
                values.append((rate, alone.cycles()))
            rows.append([size, spread([v[0] for v in values]), spread([v[1] for v in values], 0)])
        table("The generator alone: its NIC back to back with a vhost port in the same process",
              ["frame, B", "million frames/s received by both", "cycles a frame, both ends"], rows)
    finally:
        alone.process.terminate()
        alone.process.wait()


def frames(folder, rounds, seconds, sizes, names, packed=False):
    made = make(folder, names, circling=True, packed=packed)
    cases = [(size, both) for size in sizes for both in (False, True)]
    results = rounds_of(made, rounds, cases, lambda switch, case: circling(switch, *case, seconds))
    for (size, both), by_name in results.items():
        show(f"vhost-user{', packed rings' if packed else ''}, {size} B, {ways(both)}", by_name, FRAMES)
    Stage.close_all()


def superframes(folder, rounds, seconds):
    made = make(folder, ["switchd", "ovs-tso", "testpmd-tso"])
    cases = [(both, touch) for touch in (0, 1) for both in (0, 1)]
    measure = lambda switch, case: load(switch, seconds, size=65000, mss=1448, window=32, both=case[0], touch=case[1])
    for (both, touch), by_name in rounds_of(made, rounds, cases, measure).items():
        touched = "written and read by the guests" if touch else "not touched by the guests"
        show(f"vhost-user, TCP superframes of 65,000 B, {touched}, {ways(both)}", by_name, GIGABITS)
    Stage.close_all()


def delays(folder, rounds, quick):
    made = make(folder, ["switchd", "busy", "ovs-dpdk", "testpmd"])
    cases = (0, 100, 10_000)
    counts = {0: 20_000, 100: 5_000, 10_000: 100}
    measure = lambda switch, gap: latency(switch, counts[gap] // (10 if quick else 1), gap)
    for gap, by_name in rounds_of(made, rounds, cases, measure).items():
        show(f"vhost-user, from one guest's ring to the other's, one frame of 64 B at a time, {gap} µs of silence before it",
             by_name, [("p50 µs", 0, 2, True), ("p99 µs", 1, 2, True), ("lost", 2, 0, False)])
    Stage.close_all()


FLOWS = (1, 100, 10_000)


def by_flows(title, results, made):
    """A row a number of flows: cost against one flow's, and against the others."""
    header = ["flows"]
    for switch in made:
        header += [f"{switch.name}: million frames/s", "cycles a frame", "÷ one flow's"]
    rows = []
    for flows, by_name in results.items():
        row = [f"{flows:,}"]
        for switch in made:
            values, one = by_name[switch.name], results[FLOWS[0]][switch.name]
            row += [spread([v[0] for v in values]), spread([v[1] for v in values], 0), ratio(values, one, 1)]
        rows.append(row)
    table(title, header, rows)


def many_flows(folder, rounds, seconds, names):
    made = make(folder, [name for name in names if name != "testpmd"])
    for vary, what in (("ports", "UDP ports"), ("addresses", "MAC addresses of both ends and UDP ports")):
        results = rounds_of(made, rounds, FLOWS, lambda switch, flows: load(switch, seconds, flows=flows, vary=vary, both=1))
        by_flows(f"vhost-user, 64 B both ways, flows that differ in {what}", results, made)
    Stage.close_all()


def nat(folder, rounds, seconds):
    made = make(folder, ["nat", "ovs-nat"])
    measure = lambda switch, flows: load(switch, seconds, flows=flows, gateway=switch.gateway)
    results = rounds_of(made, rounds, FLOWS, measure)
    by_flows("vhost-user, 64 B from a guest behind NAT to one outside", results, made)
    Stage.close_all()


SNAPLENS = (None, 128, 262_144)


def mirrored(folder, rounds, seconds, sizes):
    (switch,) = make(folder, ["switchd"])
    switch.thaw()
    for size in sizes:
        results, totals = {snaplen: [] for snaplen in SNAPLENS}, {}
        for number in range(rounds):
            for snaplen in SNAPLENS if number % 2 == 0 else reversed(SNAPLENS):
                if snaplen:
                    switch.ctl("mirror", "create", "m", "--source", "network:lab", "--to", f"pcap:m{number}.pcapng",
                               "--snaplen", snaplen)
                results[snaplen].append(load(switch, seconds, size=size, both=1))
                if snaplen:
                    counters = json.loads(switch.ctl("mirror", "show", "m", "-o", "json"))["counters"]
                    for key in ("seen", "copied"):
                        totals[snaplen, key] = totals.get((snaplen, key), 0) + counters[key]
                    switch.ctl("mirror", "delete", "m")
                    for file in switch.captures.glob("*.pcapng"):
                        file.unlink()
        rows = []
        for snaplen, values in results.items():
            copied = f"{100 * totals[snaplen, 'copied'] / max(1, totals[snaplen, 'seen']):.0f}%" if snaplen else "-"
            rows.append([f"snaplen {snaplen}" if snaplen else "none", spread([v[0] for v in values]),
                         ratio(values, results[None], 0), spread([v[1] for v in values], 0), copied])
        table(f"vhost-user, {size} B both ways, a mirror of everything to pcapng on tmpfs",
              ["mirror", "million frames/s", "÷ none", "busy cycles a frame", "copied"], rows)
    Stage.close_all()


def kernel_taps(folder, rounds, seconds, sizes):
    made = make(folder, ["switchd", "bridge"], circling=True)
    cases = [(size, both) for size in sizes for both in (False, True)]
    results = rounds_of(made, rounds, cases, lambda switch, case: circling(switch, *case, seconds))
    for (size, both), by_name in results.items():
        show(f"Two guests over vhost-user, or over taps and a bridge, {size} B, {ways(both)}", by_name, FRAMES[:1])
    Stage.close_all()


def idle(folder, seconds):
    made = make(folder, ["switchd", "ovs-dpdk"], circling=True)
    rows = []
    for switch in made:
        switch.thaw()
        switch.generator.circle(64, True)
        time.sleep(0.5)
        switch.generator.say("stop")
        time.sleep(1.5)

        def ticks():
            fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in switch.pids()]
            return sum(int(f[11]) + int(f[12]) for f in fields)

        before = ticks()
        time.sleep(seconds)
        rows.append([switch.name, f"{(ticks() - before) / os.sysconf('SC_CLK_TCK') / seconds * 100:.2f}"])
        switch.freeze()
    table("vhost-user, two guests that are silent", ["switch", "CPU, % of a core"], rows)
    Stage.close_all()


PARTS = ("vhost-ceiling", "vhost-frames", "vhost-packed", "vhost-gso", "vhost-latency", "vhost-flows", "vhost-nat", "vhost-mirror",
         "vhost-taps", "vhost-idle")


def run(folder, parts, rounds, seconds, sizes, names, quick):
    with hugepages():
        if "vhost-ceiling" in parts:
            ceiling(folder, rounds, seconds, sizes)
        if "vhost-frames" in parts:
            frames(folder, rounds, seconds, sizes, names)
        if "vhost-packed" in parts:
            frames(folder, rounds, seconds, sizes, names, packed=True)
        if "vhost-gso" in parts:
            superframes(folder, rounds, seconds)
        if "vhost-latency" in parts:
            delays(folder, rounds, quick)
        if "vhost-flows" in parts:
            many_flows(folder, rounds, seconds, names)
        if "vhost-nat" in parts:
            nat(folder, rounds, seconds)
        if "vhost-mirror" in parts:
            mirrored(folder, rounds, seconds, [size for size in sizes if size in (64, 1514)])
        if "vhost-taps" in parts:
            kernel_taps(folder, rounds, seconds, sizes)
        if "vhost-idle" in parts:
            idle(folder, 2 if quick else 10)
