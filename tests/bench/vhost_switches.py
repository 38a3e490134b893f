"""Switches with vhost-user sockets, each a process on CPU 1, and testpmd as the guests' NICs on CPU 0.

    guests ── socket 0 ── the switch ── socket 1 ── guests

Switches that are not being measured are stopped (SIGSTOP), because each but ours spins on CPU 1. Cycles are those
of the time stamp counter, counted by each switch itself and only where it found frames.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from common import BIN, Stage, TAG, inside, sh

HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
# Of 2 MiB: Open vSwitch takes about 1.2 GiB, each testpmd 256 MiB.
HUGEPAGES_WANTED = 2048
# Of the files that DPDK leaves behind.
PREFIX = f"switchd-bench-{os.getpid()}-"
# Bursts of 32 frames that circle, a direction.
BURSTS = 8


@contextlib.contextmanager
def hugepages():
    before = HUGEPAGES.read_text().strip()
    HUGEPAGES.write_text(str(max(HUGEPAGES_WANTED, int(before))))
    if int(HUGEPAGES.read_text()) < HUGEPAGES_WANTED:
        HUGEPAGES.write_text(before)
        raise RuntimeError(f"there is no room for {HUGEPAGES_WANTED} huge pages")
    if not os.path.ismount("/dev/hugepages"):
        pathlib.Path("/dev/hugepages").mkdir(exist_ok=True)
        sh("mount", "-t", "hugetlbfs", "none", "/dev/hugepages")
    try:
        yield
    finally:
        Stage.close_all()
        for left in pathlib.Path("/dev/hugepages").glob(f"{PREFIX}*"):
            left.unlink()
        HUGEPAGES.write_text(before)


class Testpmd:
    """One testpmd that is told what to do line by line."""

    count = 0

    def __init__(self, folder, name, cpus, vdevs, *options, netns=None):
        """One forwarding thread a processor of `cpus`; the one that listens to us is on the first of them too."""
        Testpmd.count += 1
        lcores = ",".join(f"{number}@{cpu}" for number, cpu in enumerate([cpus[0], *cpus]))
        words = ["stdbuf", "-oL", "dpdk-testpmd", f"--lcores={lcores}", "--main-lcore=0",
                 f"--file-prefix={PREFIX}{name}{Testpmd.count}", "--no-pci", "--no-telemetry", "--socket-mem", "256",
                 "--single-file-segments", *[f"--vdev={vdev}" for vdev in vdevs], "--", f"--nb-cores={len(cpus)}",
                 "--forward-mode=io", "-i",
                 "--no-lsc-interrupt", "--total-num-mbufs=16384", "--txd=1024", "--rxd=1024", "--burst=32",
                 "--record-core-cycles", *options]
        if netns:
            words = inside(netns, *words)
        self.text, self.log = "", open(folder / f"{name}.log", "a")
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self.read, daemon=True).start()
        try:
            self.prompt(0, 30)
        except RuntimeError:
            self.process.kill()
            raise

    def read(self):
        # A prompt has no end of line.
        while piece := os.read(self.process.stdout.fileno(), 65536).decode(errors="replace"):
            self.text += piece
            self.log.write(piece)
            self.log.flush()

    def prompt(self, since, patience=10):
        """Waits for the prompt after a command; returns what it said."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if "testpmd> " in self.text[since:]:
                return self.text[since:]
            if self.process.poll() is not None:
                break
            time.sleep(0.002)
        raise RuntimeError(f"testpmd: no prompt\n{self.text[-3000:]}")

    def say(self, line):
        since = len(self.text)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.prompt(since)

    def rates(self):
        """Frames a second received by each port since this was asked last."""
        return [int(number) for number in re.findall(r"Rx-pps:\s+(\d+)", self.say("show port stats all"))]

    def received(self):
        return [int(number) for number in re.findall(r"RX-packets: (\d+)", self.say("show port stats all"))]

    def cycles(self):
        """Busy cycles a frame since `clear fwd stats all`, only reported while stopped."""
        found = re.findall(r"CPU cycles/packet=([\d.]+)", self.say("show fwd stats all"))
        return float(found[-1]) if found else None


class Guests(Testpmd):
    """The generator: two virtio-user NICs. Port N's frames are addressed to 02:…:0N, hence the swapped MACs."""

    def __init__(self, folder, sockets, packed=False):
        rings = ",packed_vq=1" if packed else ""
        vdevs = [f"net_virtio_user{n},path={socket},mac=02:00:00:00:00:0{1 - n},queue_size=1024,server=0{rings}"
                 for n, socket in enumerate(sockets)]
        super().__init__(folder, "guests", [0], vdevs, "--no-flush-rx")

    def circle(self, size, both):
        """Lets frames of this size circle (no frame check sequence is on this wire)."""
        self.say("stop")
        self.say(f"set txpkts {size}")
        # Each NIC is heard once, so that the switch knows both; whatever was on the road ends here.
        self.say("set portlist 0,1")
        self.say("set fwd rxonly")
        self.say("start tx_first 1")
        time.sleep(0.1)
        self.say("stop")
        self.say("set fwd io")
        if not both:
            # What one NIC sends comes back by the other and goes out by the first again.
            self.say("set portlist 0")
            self.say(f"start tx_first {BURSTS}")
            self.say("stop")
            self.say("set portlist 0,1")
            self.say("start")
        else:
            self.say(f"start tx_first {BURSTS}")


class Switch:
    """A switch with two vhost-user sockets. `freeze` and `thaw` take it off the processor and give it back."""

    count = 0

    def __init__(self, name, folder):
        self.name, self.processes, self.generator, self.netns = name, [], None, None
        # Each part of the benchmark has switches of its own.
        Switch.count += 1
        self.folder = folder / f"vh{Switch.count}-{''.join(c for c in name if c.isalnum())}"
        self.folder.mkdir(parents=True)
        self.sockets = [self.folder / f"vh{n}" for n in (0, 1)]
        Stage.opened.append(self)

    def start(self, *words, env=None, cpu="0,1"):
        log = open(self.folder / "log", "ab")
        if self.netns:
            words = inside(self.netns, *words)
        self.processes.append(subprocess.Popen(["taskset", "-c", cpu, *map(str, words)], stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log, env=env))

    def ready(self):
        for _ in range(200):
            if all(socket.exists() for socket in self.sockets):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name}: no sockets\n{(self.folder / 'log').read_text()[-3000:]}")

    def attach_generator(self, packed=False):
        self.generator = Guests(self.folder, self.sockets, packed)

    def pids(self):
        return [process.pid for process in self.processes]

    def signal(self, number):
        for pid in self.pids() + ([self.generator.process.pid] if self.generator else []):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)
        time.sleep(0.05)

    def mark(self):
        """From here on cycles are counted."""

    def cycles(self):
        """Busy cycles a frame since `mark`."""

    def close(self):
        Stage.opened.remove(self)
        self.thaw()
        processes = ([self.generator.process] if self.generator else []) + list(reversed(self.processes))
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if hasattr(self, "captures"):
            shutil.rmtree(self.captures, ignore_errors=True)
        if self.netns:
            sh("ip", "netns", "del", self.netns, check=False)


class Switchd(Switch):
    def __init__(self, name, folder, poll="adaptive"):
        super().__init__(name, folder)
        self.socket = self.folder / "s"
        self.surroundings()
        # On tmpfs.
        self.captures = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm", prefix="switchd-bench-"))
        self.start(BIN / "switchd", "--state-dir", self.folder / "state", "--socket", self.socket,
                   "--capture-dir", self.captures, "--workers", 1, "--cpus", 1, "--poll", poll)
        self.ctl("--wait", "10s", "status")
        for network, number in self.networks():
            self.ctl("port", "attach", network, f"vm{number}", "--vhost-user", self.sockets[number], "--server")
        self.ready()

    def surroundings(self):
        """What must be there before the switch starts."""

    def networks(self):
        """Makes the networks; says which of them each guest is on."""
        self.ctl("network", "create", "lab", "--kind", "isolated", "--mac-limit", 65536)
        return ("lab", 0), ("lab", 1)

    def ctl(self, *words):
        return sh(BIN / "switchctl", "--socket", self.socket, *words)

    def pids(self):
        if not hasattr(self, "dataplane"):
            status = json.loads(self.ctl("status", "-o", "json"))
            self.dataplane = [status["pid"], status["dataplane_pid"]]
        return self.dataplane

    def spent(self):
        metrics = sh("curl", "-sf", "--unix-socket", self.socket, "http://switchd/metrics")
        return [sum(map(float, re.findall(rf"^switchd_worker_{name}_total{{.*}} (\S+)", metrics, re.M)))
                for name in ("busy_cycles", "frames")]

    def mark(self):
        self.begun = self.spent()

    def cycles(self):
        now = self.spent()
        return (now[0] - self.begun[0]) / max(1, now[1] - self.begun[1])


class OvsDpdk(Switch):
    def __init__(self, name, folder, tso=False):
        super().__init__(name, folder)
        run = self.folder
        self.env = {**os.environ, "OVS_RUNDIR": str(run), "OVS_LOGDIR": str(run), "OVS_DBDIR": str(run)}
        sh("ovsdb-tool", "create", run / "conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        self.start("ovsdb-server", run / "conf.db", f"--remote=punix:{run}/db.sock", f"--pidfile={run}/db.pid",
                   "--log-file", env=self.env, cpu="0")
        for _ in range(100):
            if (run / "db.sock").exists():
                break
            time.sleep(0.05)
        self.vsctl("--no-wait", "init")
        for setting in ("dpdk-init=true", "pmd-cpu-mask=0x2", "dpdk-lcore-mask=0x1", "dpdk-socket-mem=512",
                        f'dpdk-extra="--file-prefix={PREFIX}{run.name} --no-pci --no-telemetry"',
                        *(["userspace-tso-enable=true"] if tso else [])):
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", f"other_config:{setting}")
        self.start("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", f"unix:{run}/db.sock",
                   f"--pidfile={run}/vs.pid", f"--unixctl={run}/ctl", "--log-file", env=self.env)
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev",
                   "other-config:mac-table-size=65536")
        for number, socket in enumerate(self.sockets):
            # Superframes want buffers that only its client mode asks for.
            kind = ("type=dpdkvhostuserclient", f"options:vhost-server-path={socket}") if tso else ("type=dpdkvhostuser",)
            self.vsctl("add-port", "br0", f"vh{number}", "--", "set", "interface", f"vh{number}", *kind)
        if not tso:
            self.ready()

    def vsctl(self, *words):
        return sh("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", *words, env=self.env)

    def appctl(self, *words):
        return sh("ovs-appctl", "-t", self.folder / "ctl", *words)

    def mark(self):
        self.appctl("dpif-netdev/pmd-stats-clear")

    def cycles(self):
        found = re.findall(r"avg processing cycles per packet: ([\d.]+)", self.appctl("dpif-netdev/pmd-stats-show"))
        return float(found[0])


class TestpmdSwitch(Switch):
    """Forwards port to port without looking: the bound for anything that DPDK does."""

    def __init__(self, name, folder, more=""):
        super().__init__(name, folder)
        vdevs = [f"net_vhost{n},iface={socket}{more}" for n, socket in enumerate(self.sockets)]
        self.testpmd = Testpmd(self.folder, "switch", [1], vdevs)
        self.processes.append(self.testpmd.process)
        self.ready()
        self.testpmd.say("start")

    def mark(self):
        self.testpmd.say("clear fwd stats all")

    def cycles(self):
        return self.testpmd.cycles()


class SwitchdNat(Switchd):
    """The first guest on a NAT network, the second outside of it, on the segment of the egress interface."""

    gateway = "10.7.0.1"

    def surroundings(self):
        self.netns = f"{TAG}vhnat"
        sh("ip", "netns", "add", self.netns)
        sh("ip", "-n", self.netns, "link", "add", "up0", "type", "veth", "peer", "far0")
        for link in ("lo", "up0", "far0"):
            sh("ip", "-n", self.netns, "link", "set", link, "up")

    def networks(self):
        self.ctl("network", "create", "outside", "--kind", "bridged", "--uplink", "up0")
        self.ctl("network", "create", "lab", "--kind", "nat", "--subnet", "10.7.0.0/24", "--egress", "up0", "--address",
                 "192.0.2.50/24", "--gateway", "192.0.2.1", "--set=flow-limit=65536", "--set=flow-quota=65536",
                 "--set=udp-timeout=7200")
        return ("lab", 0), ("outside", 1)


class OvsDpdkNat(OvsDpdk):
    """The same by connection tracking in userspace, with the next hop's address in the rules."""

    gateway = "02:00:00:00:00:fe"
    rules = """
table=0, in_port=vh0, udp, actions=ct(zone=1, nat, table=1)
table=0, in_port=vh1, udp, actions=ct(zone=1, nat, table=2)
table=1, ct_state=+trk+new, udp, actions=ct(commit, zone=1, nat(src=192.0.2.50:1024-65535)), resubmit(,3)
table=1, ct_state=+trk+est, udp, actions=resubmit(,3)
table=3, udp, actions=mod_dl_src:02:00:00:00:00:fd, mod_dl_dst:02:00:20:00:00:00, dec_ttl, output:vh1
table=2, ct_state=+trk+est, udp, actions=mod_dl_src:02:00:00:00:00:fe, mod_dl_dst:02:00:10:00:00:00, dec_ttl, output:vh0
"""

    def __init__(self, name, folder):
        super().__init__(name, folder)
        rules = self.folder / "rules"
        rules.write_text(self.rules.strip() + "\n")
        sh("ovs-ofctl", "-O", "OpenFlow13", "replace-flows", f"unix:{self.folder}/br0.mgmt", rules, env=self.env)
        self.appctl("dpctl/ct-set-maxconns", "netdev@ovs-netdev", "200000")


class TapGuests(Guests):
    """Two NICs that are taps, as QEMU's without vhost: a thread and a processor each."""

    def __init__(self, folder, netns):
        vdevs = [f"net_tap{n},iface=dt{n},mac=02:00:00:00:00:0{1 - n}" for n in (0, 1)]
        Testpmd.__init__(self, folder, "guests", [0, 1], vdevs, "--no-flush-rx", netns=netns)


class Bridge(Switch):
    """The Linux bridge, which forwards on the sender's processor."""

    def __init__(self, name, folder):
        super().__init__(name, folder)
        self.netns = f"{TAG}vhtap"
        sh("ip", "netns", "add", self.netns)

    def attach_generator(self, _packed=False):
        self.generator = TapGuests(self.folder, self.netns)
        sh("ip", "-n", self.netns, "link", "add", "br0", "type", "bridge")
        for table in ("iptables", "ip6tables", "arptables"):
            sh(*inside(self.netns, "sysctl", "-qw", f"net.bridge.bridge-nf-call-{table}=0"), check=False)
        for number, link in enumerate(("dt0", "dt1")):
            # The host's end has another address than the guest's, or the bridge would take the frames for its own.
            sh("ip", "-n", self.netns, "link", "set", link, "address", f"02:00:00:00:01:0{number}")
            sh("ip", "-n", self.netns, "link", "set", link, "master", "br0", "up")
        sh("ip", "-n", self.netns, "link", "set", "br0", "up")


PEERS = {
    "switchd": lambda folder: Switchd("switchd", folder),
    "ovs-dpdk": lambda folder: OvsDpdk("OVS-DPDK", folder),
    "testpmd": lambda folder: TestpmdSwitch("testpmd", folder),
    "busy": lambda folder: Switchd("switchd --poll busy", folder, poll="busy"),
    "ovs-tso": lambda folder: OvsDpdk("OVS-DPDK TSO", folder, tso=True),
    "testpmd-tso": lambda folder: TestpmdSwitch("testpmd TSO", folder, ",tso=1"),
    "nat": lambda folder: SwitchdNat("switchd NAT", folder),
    "bridge": lambda folder: Bridge("taps and Linux bridge", folder),
    "ovs-nat": lambda folder: OvsDpdkNat("OVS-DPDK conntrack", folder),
}


def make(folder, names, circling=False, packed=False):
    """The switches, all stopped; `circling`: with testpmd as their guests, `packed`: with packed rings."""
    made = []
    for name in names:
        made.append(PEERS[name](folder))
        if circling:
            made[-1].attach_generator(packed)
        made[-1].freeze()
    return made
