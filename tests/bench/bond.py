"""Bonds: two switches of a kind with two links between them, and cables that are pulled.

    A ── the switch that is measured ══ m0, m1 ══ its partner ── B
"""
import json
import os
import re
import statistics
import subprocess
import time

from common import BIN, ROOT, Stage, compare, inside, sh, table

PROBES = 1500


class Daemon:
    """switchd with a bond, or with one of its links as a plain uplink."""

    def __init__(self, stage, side, netns, guest, one):
        self.folder = stage.folder / f"d{side}"
        self.folder.mkdir()
        self.socket, self.one = self.folder / "s", one
        stage.start(BIN / "switchd", "--state-dir", self.folder / "state", "--socket", self.socket,
                    "--workers", 1, "--cpus", 0, netns=netns)
        self.ctl("--wait", "10s", "status")
        if not one:
            self.ctl("bond", "create", "bond0", "--members", "m0,m1", "--mode", "lacp", "--rate", "fast",
                     "--hash", "layer3+4")
        self.ctl("network", "create", "lab", "--kind", "bridged", "--uplink", "m0" if one else "bond0")
        self.ctl("port", "attach", "lab", "vm", "--tap", "eth0", "--netns", guest)

    def ctl(self, *words):
        return sh(BIN / "switchctl", "--socket", self.socket, *words)

    def members(self):
        """How many members carry frames."""
        shown = json.loads(self.ctl("bond", "show", "bond0", "-o", "json"))
        return sum(link["distributing"] for link in shown["links"])


class Vswitch:
    """Open vSwitch in userspace, with segmentation offload."""

    def __init__(self, stage, side, netns, guest, one):
        run = self.run = stage.folder / f"o{side}"
        run.mkdir()
        self.env = {**os.environ, "OVS_RUNDIR": str(run), "OVS_LOGDIR": str(run), "OVS_DBDIR": str(run)}
        sh("ovsdb-tool", "create", run / "conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        sh("ovsdb-server", run / "conf.db", f"--remote=punix:{run}/db.sock", f"--pidfile={stage.folder}/{side}db.pid",
           "--detach", "--log-file", env=self.env)
        self.vsctl("--no-wait", "init")
        self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        sh(*inside(netns, "taskset", "-c", "0", "ovs-vswitchd", f"unix:{run}/db.sock", f"--unixctl={run}/ctl",
                   f"--pidfile={stage.folder}/{side}vs.pid", "--detach", "--log-file"), env=self.env)
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        if one:
            self.vsctl("add-port", "br0", "m0")
        else:
            self.vsctl("add-bond", "br0", "bond0", "m0", "m1", "lacp=active", "bond_mode=balance-tcp",
                       "other_config:lacp-time=fast")
        tap = f"{guest[:12]}p"
        self.vsctl("add-port", "br0", tap, "--", "set", "interface", tap, "type=internal")
        sh("ip", "-n", netns, "link", "set", tap, "netns", guest, "name", "eth0")

    def vsctl(self, *words):
        return sh("ovs-vsctl", "--timeout=20", f"--db=unix:{self.run}/db.sock", *words, env=self.env)

    def members(self):
        shown = sh("ovs-appctl", "--timeout=10", "-t", self.run / "ctl", "bond/show", "bond0", env=self.env)
        return len(re.findall(r"^(?:member|slave) \S+: enabled", shown, re.MULTILINE))


class Pair(Stage):
    def __init__(self, name, folder, kinds, one=False):
        super().__init__(name, folder)
        self.partner = f"{self.host}2"
        sh("ip", "netns", "add", self.partner)
        for number in range(2):
            sh("ip", "link", "add", f"m{number}", "netns", self.host, "type", "veth",
               "peer", f"m{number}", "netns", self.partner)
            for netns in (self.host, self.partner):
                sh("ip", "-n", netns, "link", "set", f"m{number}", "up")
        sides = zip(kinds, "AB", (self.host, self.partner), self.guests)
        self.switches = [kind(self, side, netns, guest, one) for kind, side, netns, guest in sides]
        self.addresses()
        if not one:
            self.complete()

    def complete(self):
        """Waits until all members carry frames, on both ends."""
        for _ in range(150):
            if all(switch.members() == 2 for switch in self.switches):
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: the members do not come back\n{(self.folder / 'log').read_text()}")

    def sent(self):
        shown = json.loads(sh("ip", "-j", "-s", "-n", self.host, "link", "show"))
        return {row["ifname"]: row["stats64"]["tx"]["packets"] for row in shown if row["ifname"] in ("m0", "m1")}

    def pull(self):
        """Lost, duplicated and reordered probes when the cable that carries them is pulled."""
        counter = subprocess.Popen([str(w) for w in inside(self.guests[1], BIN / "bench-probe", "count", "0.0.0.0:9",
                                                           PROBES)], stdout=subprocess.PIPE, text=True)
        time.sleep(0.1)
        sender = subprocess.Popen([str(w) for w in inside(self.guests[0], BIN / "bench-probe", "pulse",
                                                          f"{self.target}:9", PROBES, 1000)])
        try:
            before = self.sent()
            time.sleep(0.4)
            after = self.sent()
            member = max(after, key=lambda name: after[name] - before[name])
            sh("ip", "-n", self.partner, "link", "set", member, "down")
            sender.wait(20)
            words = counter.communicate(timeout=20)[0].split()
        finally:
            for process in (sender, counter):
                if process.poll() is None:
                    process.kill()
                process.wait()
        sh("ip", "-n", self.partner, "link", "set", member, "up")
        self.complete()
        return [int(word) for word in words]

    def close(self):
        super().close()
        sh("ip", "netns", "del", f"{self.host}2", check=False)


def throughput(folder, rounds, seconds):
    stages = [("bond of switchd", (Daemon, Daemon), False), ("single switchd", (Daemon, Daemon), True),
              ("OVS bond, TSO", (Vswitch, Vswitch), False), ("1 OVS TSO", (Vswitch, Vswitch), True)]
    made = [Pair(name, folder, kinds, one) for name, kinds, one in stages]
    for title, options in (("one way", ()), ("the other way", ("-R",))):
        compare(f"TCP between two switches over a bond of two links, four connections, {title}", "Gbit/s",
                made, rounds, lambda s: s.tcp(seconds, "-P", "4", *options))
    Stage.close_all()


def failover(folder, pulls):
    made = [Pair(name, folder, (kind, Vswitch)) for name, kind in (("f switchd", Daemon), ("g OVS", Vswitch))]
    results = {stage.name: [] for stage in made}
    for number in range(pulls):
        order = made if number % 2 == 0 else made[::-1]
        for stage in order:
            results[stage.name].append(stage.pull())
            if os.environ.get("BENCH_VERBOSE"):
                print(stage.name, results[stage.name][-1], flush=True)
    rows = []
    for name, seen in results.items():
        lost, twice, late = zip(*seen)
        rows.append([name.split(" ", 1)[1], f"{statistics.median(lost):g}", max(lost), sum(twice), sum(late)])
    table(f"The cable that carries the flow is pulled {pulls} times, 1,000 probes a second, partner OVS",
          ["switch", "lost, median", "lost, most", "duplicated", "reordered"], rows)
    Stage.close_all()


def distributor():
    print("\n### The distributor alone, on ports in memory\n\n```")
    print(sh("cargo", "run", "--release", "-q", "-p", "switchd-dataplane", "--example", "bond", cwd=ROOT) + "```")
