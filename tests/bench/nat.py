"""NAT networks: egress IF against nftables masquerade, egress host against pasta and slirp4netns.

    A (10.7.0.20) ── the switch in the host's namespace ── up0 ═══ eth0 (192.0.2.1) B
"""
import json
import os
import pathlib
import statistics
import subprocess
import time

from common import BIN, ROOT, Stage, collect, inside, sh, spread, table

# Behind B, which drops in silence what is sent there.
NOWHERE = "198.51.100.9"
# Connection tracking of the host, shared by all namespaces: room for 500,000 flows, put back at the end.
CONNTRACK = {"nf_conntrack_max": 2_000_000, "nf_conntrack_buckets": 1_048_576}


class Nat(Stage):
    target = "192.0.2.1"
    mtu = 1500

    def __init__(self, name, folder, mtu=1500, flows=1):
        super().__init__(name, folder)
        self.mtu, self.live = mtu, flows
        sh("ip", "link", "add", "up0", "netns", self.host, "type", "veth", "peer", "eth0", "netns", self.guests[1])
        sh("ip", "-n", self.host, "addr", "add", "192.0.2.100/24", "dev", "up0")
        sh("ip", "-n", self.host, "link", "set", "up0", "up")
        # As a card that does not cut datagrams: each frame that is counted is one on the wire.
        sh(*inside(self.host, "ethtool", "-K", "up0", "tx-udp-segmentation", "off"))
        sh("ip", "-n", self.host, "route", "add", "default", "via", self.target)
        sh("ip", "-n", self.guests[1], "addr", "add", f"{self.target}/24", "dev", "eth0")
        sh("ip", "-n", self.guests[1], "link", "set", "eth0", "up")
        for netns in (self.host, self.guests[0]):
            sh(*inside(netns, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1", "net.ipv4.ping_group_range=0 65535"))

    def guest(self):
        """Gives the guest a static address where nobody has given it one, and starts the servers."""
        shown = json.loads(sh("ip", "-j", "-4", "-n", self.guests[0], "addr", "show", "eth0"))
        if not any(row.get("addr_info") for row in shown):
            sh("ip", "-n", self.guests[0], "addr", "add", "10.7.0.20/24", "dev", "eth0")
            sh("ip", "-n", self.guests[0], "link", "set", "eth0", "up")
            sh("ip", "-n", self.guests[0], "route", "add", "default", "via", "10.7.0.1")
        self.serve()
        if self.live > 1:
            self.open()

    def generate(self, seconds, rate):
        """Sends UDP frames of the live flows, each once or at random; says how long it took."""
        guest = self.guests[0]
        route = json.loads(sh("ip", "-j", "-n", guest, "route", "get", NOWHERE))[0]
        neighbours = json.loads(sh("ip", "-j", "-n", guest, "neigh", "show", route["gateway"]))
        gateway = next(row["lladdr"] for row in neighbours if "lladdr" in row)
        remotes = 20 if self.live > 20_000 else 1
        out = sh(*inside(guest, "taskset", "-c", "1", BIN / "bench-probe", "flows", "eth0", seconds, self.mac(0), gateway,
                   route["prefsrc"], NOWHERE, self.live // remotes, remotes, rate))
        return float(out.split()[-1])

    def open(self):
        # What the queues drop on the way is opened by the next passes.
        for _ in range(3):
            self.generate(0, 60_000)

    def frames(self, seconds):
        before = self.received()
        spent = self.generate(seconds, 0)
        time.sleep(0.05)
        return (self.received() - before) / spent / 1e6


class Switchd(Nat):
    def __init__(self, name, folder, *settings, mtu=1500, flows=1):
        super().__init__(name, folder, mtu, flows)
        self.socket = self.folder / "s"
        self.start(BIN / "switchd", "--state-dir", self.folder / "state", "--socket", self.socket,
                   "--workers", 1, "--cpus", 0, netns=self.host)
        self.ctl("--wait", "10s", "status")
        limits = [f"--set={key}={value}" for key, value in
                  (("flow-limit", max(65_536, 2 * flows)), ("flow-quota", max(65_536, 2 * flows)), ("udp-timeout", 7200))]
        self.ctl("network", "create", "lab", "--kind", "nat", "--subnet", "10.7.0.0/24", "--mtu", mtu, *settings, *limits)
        self.ctl("port", "attach", "lab", "vm0", "--tap", "eth0", "--netns", self.guests[0])
        self.guest()

    def ctl(self, *words):
        return sh(BIN / "switchctl", "--socket", self.socket, *words)

    def flows(self):
        return len(json.loads(self.ctl("flow", "list", "lab", "--limit", 100_000, "-o", "json")))


class Nftables(Nat):
    def __init__(self, name, folder, flows=1):
        super().__init__(name, folder, flows=flows)
        sh("ip", "link", "add", "r0", "netns", self.host, "type", "veth", "peer", "eth0", "netns", self.guests[0])
        sh("ip", "-n", self.host, "addr", "add", "10.7.0.1/24", "dev", "r0")
        sh("ip", "-n", self.host, "link", "set", "r0", "up")
        rules = "add table ip n; add chain ip n p { type nat hook postrouting priority 100; }; " \
                "add rule ip n p oifname up0 masquerade"
        sh(*inside(self.host, "nft", rules))
        sh(*inside(self.host, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.netfilter.nf_conntrack_udp_timeout=7200",
                   "net.netfilter.nf_conntrack_udp_timeout_stream=7200"))
        self.guest()

    def flows(self):
        return int(sh(*inside(self.host, "cat", "/proc/sys/net/netfilter/nf_conntrack_count")))


class Pasta(Nat):
    def __init__(self, name, folder, mtu=1500, flows=1):
        super().__init__(name, folder, mtu, flows)
        self.start("pasta", "-f", "--runas", 0, "--netns-only", "--config-net", "-t", "none", "-u", "none", "-T", "none",
                   "-U", "none", "-I", "eth0", "-i", "up0", "-a", "10.77.0.1", "-n", "255.255.255.0",
                   "-g", "10.77.0.254", "-m", mtu, "--netns", f"/run/netns/{self.guests[0]}", netns=self.host)
        self.appeared()
        self.guest()

    def appeared(self):
        for _ in range(100):
            out = sh("ip", "-4", "-n", self.guests[0], "route", "show", "default", check=False)
            if "eth0" in out:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: no interface\n{(self.folder / 'log').read_text()}")


class Slirp(Pasta):
    def __init__(self, name, folder, mtu=1500, flows=1):
        Nat.__init__(self, name, folder, mtu, flows)
        self.start("slirp4netns", "-c", "-m", mtu, "--netns-type=path", f"/run/netns/{self.guests[0]}", "eth0",
                   netns=self.host)
        self.appeared()
        self.guest()


def conntrack_room(wanted):
    """Sets the host's limits; returns those before."""
    before = {}
    for key, value in wanted.items():
        path = pathlib.Path("/proc/sys/net/netfilter") / key
        if path.exists():
            before[key] = int(path.read_text())
            path.write_text(str(value))
    return before


def measures(rounds, seconds, quick):
    """Title, unit, digits, what to do."""
    count = 200 if quick else 500
    rtt = {}

    def median(apart):
        def measure(stage):
            rtt.setdefault((stage.name, apart), []).append(stage.rtt(count, 2000, apart))
            return rtt[stage.name, apart][-1][0]
        return measure

    return [
        ("TCP out", "Gbit/s", 2, lambda s: s.tcp(seconds)),
        ("TCP in", "Gbit/s", 2, lambda s: s.tcp(seconds, "-R")),
        ("TCP connections", "1/s", 0, lambda s: s.connections(seconds)),
        ("UDP, 64-byte frames", "million/s delivered", 3, lambda s: s.frames(seconds)),
        ("RTT p50, a probe every 2 ms, both ends on CPU 1", "µs", 1, median(True)),
        # Of the same probes.
        ("RTT p99, both ends on CPU 1", "µs", 1, lambda s: rtt[s.name, True].pop(0)[1]),
        ("RTT p50, a probe every 2 ms, both ends where the scheduler puts them", "µs", 1, median(False)),
        ("RTT p99, both ends where the scheduler puts them", "µs", 1, lambda s: rtt[s.name, False].pop(0)[1]),
    ]


def ratio(ours, theirs):
    pairs = [a / b for a, b in zip(ours, theirs) if b]
    return f"{statistics.median(pairs):.2f}" if pairs else "-"


def egress_interface(folder, rounds, seconds, quick):
    egress = ("--egress", "up0", "--address", "192.0.2.50/24", "--gateway", "192.0.2.1")
    counts = (1, 10_000, 500_000)
    before = conntrack_room(CONNTRACK)
    made = []
    try:
        rows = []
        for flows in counts:
            for kind, make in (("switchd", lambda n, f: Switchd(n, folder, *egress, flows=f)),
                               ("nftables", lambda n, f: Nftables(n, folder, flows=f))):
                # Stage names are folders and namespaces: short and different.
                made.append(make(f"{kind[:3]}{flows // 1000}k", flows))
            rows.append((flows, made[-2], made[-1]))
        print("\nflows that are there: " + ", ".join(f"{s.name} {s.flows()}" for s in made) +
              " (switchd's list ends at 100,000)")
        for title, unit, digits, measure in measures(rounds, seconds, quick):
            results = collect(made, rounds, measure)
            one = results[rows[0][1].name]
            table(f"Egress IF: {title}, {unit}",
                  ["live flows", "switchd", "nftables masquerade", "switchd ÷ nftables", "switchd: one flow ÷ it"],
                  [[f"{flows:,}", spread(results[ours.name], digits), spread(results[theirs.name], digits),
                    ratio(results[ours.name], results[theirs.name]), ratio(one, results[ours.name])]
                   for flows, ours, theirs in rows])
    finally:
        Stage.close_all()
        conntrack_room(before)


def egress_host(folder, rounds, seconds, quick):
    made = []
    try:
        groups = [
            ("1500", [("sh15", "switchd", lambda n: Switchd(n, folder, "--egress", "host")),
                      ("pa15", "pasta", lambda n: Pasta(n, folder)),
                      ("sl15", "slirp4netns", lambda n: Slirp(n, folder))]),
            ("65520 (switchd: 9000)", [("sh90", "switchd", lambda n: Switchd(n, folder, "--egress", "host", mtu=9000)),
                                       ("pa65", "pasta", lambda n: Pasta(n, folder, mtu=65520)),
                                       ("sl65", "slirp4netns", lambda n: Slirp(n, folder, mtu=65520))]),
            ("1500, 10,000 live flows",
             [("sh10k", "switchd", lambda n: Switchd(n, folder, "--egress", "host", flows=10_000)),
              ("pa10k", "pasta", lambda n: Pasta(n, folder, flows=10_000))]),
        ]
        rows = []
        for mtu, stages in groups:
            ours = None
            for name, shown, make in stages:
                made.append(make(name))
                ours = ours or made[-1]
                rows.append((mtu, shown, made[-1], ours))
        for title, unit, digits, measure in measures(rounds, seconds, quick):
            results = collect(made, rounds, measure)
            table(f"Egress host: {title}, {unit}", ["MTU", "who", "median (range)", "switchd ÷ it"],
                  [[mtu, shown, spread(results[stage.name], digits),
                    ratio(results[ours.name], results[stage.name])] for mtu, shown, stage, ours in rows])
    finally:
        Stage.close_all()


def stage_alone():
    print("\n### The NAT stage alone, in memory\n\n```")
    # Large tables have huge pages in the daemon, too.
    env = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    sh("cargo", "build", "--release", "-q", "-p", "switchd-nat", "--example", "stage", cwd=ROOT)
    print(sh(ROOT / "target/release/examples/stage", env=env) + "```")
