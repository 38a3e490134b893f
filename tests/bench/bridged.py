"""Two guests on one segment: switchd against the Linux bridge, Open vSwitch and vde_switch."""
import json
import os
import pathlib
import statistics
import tempfile
import time

from common import BIN, Stage, TAG, inside, sh, spread, table


class Switchd(Stage):
    def __init__(self, name, folder, poll="adaptive", vm_held=False, cpu=0, huge=False):
        super().__init__(name, folder)
        self.socket = self.folder / "s"
        self.captures = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm", prefix="switchd-bench-"))
        if huge:
            # Before the start: the daemon has a mount namespace of its own.
            (self.captures / "huge").mkdir()
            sh("mount", "-t", "tmpfs", "-o", "huge=always", "none", self.captures / "huge")
        self.daemon = self.start(BIN / "switchd", "--state-dir", self.folder / "state", "--socket", self.socket,
                                 "--capture-dir", self.captures,
                                 "--workers", 1, "--cpus", 0, "--poll", poll, netns=self.host, cpu=cpu)
        self.ctl("--wait", "10s", "status")
        self.ctl("network", "create", "lab", "--kind", "isolated")
        for number, netns in enumerate(self.guests):
            if vm_held:
                # As a VM's host-side tap: the far end is another interface, ours is its device.
                sh("ip", "link", "add", f"v{number}", "netns", self.host, "type", "veth", "peer", "eth0", "netns", netns)
                sh("ip", "-n", self.host, "link", "set", f"v{number}", "up")
                self.ctl("port", "attach", "lab", f"vm{number}", "--netdev", f"v{number}")
            else:
                self.ctl("port", "attach", "lab", f"vm{number}", "--tap", "eth0", "--netns", netns)
        self.addresses()

    def ctl(self, *words):
        return sh(BIN / "switchctl", "--socket", self.socket, *words)


class Bridge(Stage):
    def __init__(self, name, folder):
        super().__init__(name, folder)
        sh("ip", "-n", self.host, "link", "add", "br0", "type", "bridge")
        for table in ("iptables", "ip6tables", "arptables"):
            sh(*inside(self.host, "sysctl", "-qw", f"net.bridge.bridge-nf-call-{table}=0"), check=False)
        sh("ip", "-n", self.host, "link", "set", "br0", "up")
        for number, netns in enumerate(self.guests):
            sh("ip", "link", "add", f"v{number}", "netns", self.host, "type", "veth", "peer", "eth0", "netns", netns)
            sh("ip", "-n", self.host, "link", "set", f"v{number}", "master", "br0", "up")
        self.addresses()


class Ovs(Stage):
    def __init__(self, name, folder, tso):
        super().__init__(name, folder)
        run = self.folder
        self.env = {**os.environ, "OVS_RUNDIR": str(run), "OVS_LOGDIR": str(run), "OVS_DBDIR": str(run)}
        sh("ovsdb-tool", "create", run / "conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        sh("ovsdb-server", run / "conf.db", f"--remote=punix:{run}/db.sock", f"--pidfile={run}/db.pid", "--detach",
           "--log-file", env=self.env)
        self.vsctl("--no-wait", "init")
        if tso:
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        sh(*inside(self.host, "taskset", "-c", "0", "ovs-vswitchd", f"unix:{run}/db.sock", f"--pidfile={run}/vs.pid",
                   "--detach", "--log-file"), env=self.env)
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for number, netns in enumerate(self.guests):
            port = f"{TAG}o{int(tso)}{number}"
            self.vsctl("add-port", "br0", port, "--", "set", "interface", port, "type=internal")
            sh("ip", "-n", self.host, "link", "set", port, "netns", netns, "name", "eth0")
        self.addresses()

    def vsctl(self, *words):
        return sh("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", *words, env=self.env)


class Vde(Stage):
    def __init__(self, name, folder):
        super().__init__(name, folder)
        self.start("vde_switch", "-s", self.folder / "ctl", "-tap", "vt0", "-tap", "vt1", netns=self.host)
        time.sleep(0.5)
        for number, netns in enumerate(self.guests):
            sh("ip", "-n", self.host, "link", "set", f"vt{number}", "netns", netns, "name", "eth0")
        self.addresses()


PEERS = {
    "switchd": lambda folder: Switchd("switchd", folder),
    "bridge": lambda folder: Bridge("Linux bridge", folder),
    "ovs": lambda folder: Ovs("OVS", folder, tso=False),
    "ovs-tso": lambda folder: Ovs("OVS TSO", folder, tso=True),
    "vde": lambda folder: Vde("vde_switch", folder),
    "busy": lambda folder: Switchd("switchd busy", folder, poll="busy"),
    "vmtap": lambda folder: Switchd("switchd netdev", folder, vm_held=True),
}


# What a capture is to cost: the frames' bytes that are kept, and the folder under the capture directory.
MIRRORS = {"snaplen 128": (128, "."), "whole frames": (262144, "."), "whole frames, huge pages": (262144, "huge")}


def touch(folder, size):
    """Makes the memory of a file of `size` bytes and frees it again. Under a hypervisor that takes freed memory
    back, its first use would cost several times what the write costs, and more on one round than on the next."""
    piece = bytes(1 << 23)
    path = folder / "touched"
    with open(path, "wb", buffering=0) as file:
        for _ in range(int(size) // len(piece)):
            file.write(piece)
    path.unlink()


def mirror(others, rounds, seconds):
    # The worker is pinned to CPU 0; the capture's writer is left to the scheduler, as the guests are.
    stage = Switchd("switchd mirrored", others.folder.parent, cpu="0,1", huge=True)
    stage.tcp(1)
    plain, cost, shown = [], {name: [] for name in MIRRORS}, {}
    try:
        for number in range(rounds):
            plain.append(stage.tcp(seconds))
            for name, (snaplen, below) in MIRRORS.items():
                folder = stage.captures / below
                if snaplen > 128:
                    # iperf3 sends for a while before it counts.
                    touch(folder, plain[-1] * 1e9 / 8 * (seconds + 0.5) * 0.8)
                stage.ctl("mirror", "create", "m", "--source", "network:lab", "--to", f"pcap:{below}/m-{number}.pcapng",
                          "--snaplen", snaplen)
                cost[name].append(stage.tcp(seconds))
                counters = json.loads(stage.ctl("mirror", "show", "m", "-o", "json"))["counters"]
                seen = shown.setdefault(name, {"copied": 0, "seen": 0, "lost": 0})
                for key in seen:
                    seen[key] += counters[key]
                stage.ctl("mirror", "delete", "m")
                for file in folder.glob("*.pcapng"):
                    file.unlink()
    finally:
        stage.close()
    rows = [["no mirror", spread(plain), "1.00", "-", "-"]]
    for name, values in cost.items():
        ratio = statistics.median(b / a for a, b in zip(plain, values))
        rows.append([name, spread(values), f"{ratio:.2f}", f"{shown[name]['copied']} of {shown[name]['seen']}",
                     shown[name]["lost"]])
    table("A mirror of everything to pcapng on tmpfs", ["mirror", "TCP Gbit/s", "ratio", "copied", "lost"], rows)


def idle(stage, seconds):
    status = json.loads(stage.ctl("status", "-o", "json"))
    pids = [status["pid"], status["dataplane_pid"]]

    def ticks():
        fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
        return sum(int(f[11]) + int(f[12]) for f in fields)

    time.sleep(1)
    before = ticks()
    time.sleep(seconds)
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds * 100
    memory = [int(l.split()[1]) / 1024 for pid in pids
              for l in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if l.startswith("VmRSS")]
    table("Idle", ["what", "value"], [["CPU, % of a core", f"{share:.2f}"],
                                      ["resident, MB (broker + dataplane)", " + ".join(f"{m:.1f}" for m in memory)]])
