"""vhost-user: two guests' NICs in one process (DPDK's testpmd, on CPU 0) and a switch between them (on CPU 1).

    testpmd: virtio-user 0 ── socket 0 ── the switch ── socket 1 ── virtio-user 1

A fixed number of frames circles: what a NIC receives goes out again by the other, so nothing is lost and the
slower of the two processors sets the rate. Switches that are not being measured are stopped (SIGSTOP), because
each but ours spins on CPU 1. Cycles are those of the time stamp counter.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import threading
import time

from common import BIN, Stage, sh, spread, table

MEGABYTE = 1 << 20
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

    def __init__(self, folder, name, cpu, vdevs, *options, eal=("--socket-mem", "256", "--single-file-segments")):
        Testpmd.count += 1
        words = ["stdbuf", "-oL", "dpdk-testpmd", f"--lcores=(0,1)@{cpu}", "--main-lcore=0",
                 f"--file-prefix={PREFIX}{name}{Testpmd.count}", "--no-pci", "--no-telemetry", *eal,
                 *[f"--vdev={vdev}" for vdev in vdevs], "--", "--nb-cores=1", "--forward-mode=io", "-i",
                 "--no-lsc-interrupt", "--total-num-mbufs=16384", "--txd=1024", "--rxd=1024", "--burst=32",
                 "--record-core-cycles", *options]
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

    def __init__(self, folder, name, sockets, more=""):
        vdevs = [f"net_virtio_user{n},path={socket},mac=02:00:00:00:00:0{1 - n},queue_size=1024,server=0{more}"
                 for n, socket in enumerate(sockets)]
        super().__init__(folder, name, 0, vdevs, "--no-flush-rx")

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

    def __init__(self, name, folder):
        self.name, self.processes, self.generator = name, [], None
        self.folder = folder / ("vh-" + "".join(c for c in name if c.isalnum()))
        self.folder.mkdir(parents=True)
        self.sockets = [self.folder / f"vh{n}" for n in (0, 1)]
        Stage.opened.append(self)

    def start(self, *words, env=None, cpu="0,1"):
        log = open(self.folder / "log", "ab")
        self.processes.append(subprocess.Popen(["taskset", "-c", cpu, *map(str, words)], stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log, env=env))

    def ready(self):
        for _ in range(200):
            if all(socket.exists() for socket in self.sockets):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name}: no sockets\n{(self.folder / 'log').read_text()[-3000:]}")

    def attach_generator(self, more=""):
        self.generator = Guests(self.folder, "gen", self.sockets, more)

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


class Switchd(Switch):
    def __init__(self, name, folder, poll="adaptive"):
        super().__init__(name, folder)
        self.socket = self.folder / "s"
        self.start(BIN / "switchd", "--state-dir", self.folder / "state", "--socket", self.socket,
                   "--capture-dir", self.folder, "--workers", 1, "--cpus", 1, "--poll", poll)
        self.ctl("--wait", "10s", "status")
        self.ctl("network", "create", "lab", "--kind", "isolated")
        for number, socket in enumerate(self.sockets):
            self.ctl("port", "attach", "lab", f"vm{number}", "--vhost-user", socket, "--server")
        self.ready()

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
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for number in (0, 1):
            self.vsctl("add-port", "br0", f"vh{number}", "--", "set", "interface", f"vh{number}", "type=dpdkvhostuser")
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

    def __init__(self, name, folder):
        super().__init__(name, folder)
        self.testpmd = Testpmd(self.folder, "switch", 1, [f"net_vhost{n},iface={s}" for n, s in enumerate(self.sockets)])
        self.processes.append(self.testpmd.process)
        self.ready()
        self.testpmd.say("start")

    def mark(self):
        self.testpmd.say("clear fwd stats all")

    def cycles(self):
        return self.testpmd.cycles()


PEERS = {
    "switchd": lambda folder: Switchd("switchd", folder),
    "ovs-dpdk": lambda folder: OvsDpdk("OVS-DPDK", folder),
    "testpmd": lambda folder: TestpmdSwitch("testpmd", folder),
}


def make(folder, names, generator=""):
    """The switches, each with a generator, all stopped."""
    made = []
    for name in names:
        made.append(PEERS[name](folder))
        made[-1].attach_generator(generator)
        made[-1].freeze()
    return made


def one(switch, size, both, seconds):
    """Million frames a second; busy cycles a frame of the switch, of the generator."""
    switch.thaw()
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
    switch.freeze()
    return rate, busy, own


def frames(folder, rounds, seconds, sizes, names):
    made = make(folder, names)
    cases = [(size, both) for size in sizes for both in (False, True)]
    results = {}
    for number in range(rounds):
        for switch in made if number % 2 == 0 else reversed(made):
            for case in cases:
                results.setdefault(case, {}).setdefault(switch.name, []).append(one(switch, *case, seconds))
    for (size, both), by_name in results.items():
        first = next(iter(by_name.values()))
        rows = []
        ours = by_name[made[0].name]
        for switch in made:
            values = by_name[switch.name]
            column = lambda place: [value[place] for value in values]
            ratio = lambda place: statistics.median(a[place] / b[place] for a, b in zip(ours, values))
            rows.append([switch.name, spread(column(0)), f"{ratio(0):.2f}", spread(column(1), 0), f"{ratio(1):.2f}",
                         spread(column(2), 0)])
        table(f"vhost-user, {size} B, {'both ways' if both else 'one way'}",
              ["switch", "million frames/s, median (range)", f"{made[0].name} ÷ it", "busy cycles a frame",
               f"{made[0].name} ÷ it", "the generator's cycles a frame"], rows)
    Stage.close_all()


def ceiling(folder, rounds, seconds, sizes):
    """The generator's two NICs back to back, in one process: a virtio-user NIC whose other end is a vhost port."""
    place = folder / "vh-ceiling"
    place.mkdir()
    socket = place / "vh"
    alone = Testpmd(place, "alone", 0, [f"net_vhost0,iface={socket}"], "--no-flush-rx")
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
        table("The generator alone, back to back with a vhost port in its own process",
              ["frame, B", "million frames/s received by both ports", "cycles a frame, both ends"], rows)
    finally:
        alone.process.terminate()
        alone.process.wait()


PARTS = ("vhost-ceiling", "vhost-frames")


def run(folder, parts, rounds, seconds, sizes, names):
    with hugepages():
        if "vhost-ceiling" in parts:
            ceiling(folder, rounds, seconds, sizes)
        if "vhost-frames" in parts:
            frames(folder, rounds, seconds, sizes, names)
