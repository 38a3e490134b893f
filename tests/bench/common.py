"""What the parts of the benchmark share: commands, stages, rounds in turn, tables."""
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("SWITCHD_BIN_DIR", ROOT / "target/release"))
TAG = f"b{os.getpid() % 10000}"


# What the parts call, and the Debian package that has it.
PACKAGES = {
    "iperf3": "iperf3", "ip": "iproute2", "ping": "iputils-ping", "nft": "nftables", "curl": "curl",
    "ovs-vsctl": "openvswitch-switch", "vde_switch": "vde2", "pasta": "passt", "slirp4netns": "slirp4netns",
    "dpdk-testpmd": "dpdk", "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk": "openvswitch-switch-dpdk",
}


def install():
    """Installs what is missing."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing:
        print("installing:", *missing, flush=True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        sh("apt-get", "update", "-qq", timeout=300)
        sh("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=env, timeout=600)


def sh(*words, check=True, **keys):
    keys = {"timeout": 1800 if words[0] == "cargo" else 60, **keys}
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, **keys)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def inside(netns, *words):
    return ("ip", "netns", "exec", netns, *words)


class Stage:
    """Two guests, `A` and `B`, each with an interface `eth0`, joined by a switch."""

    # Of the second guest.
    target = "10.0.0.2"
    # All that are to be closed, those too whose making failed.
    opened = []

    def __init__(self, name, folder):
        self.name, self.processes = name, []
        Stage.opened.append(self)
        self.folder = folder / name.replace(" ", "-")
        self.folder.mkdir(parents=True)
        slug = "".join(c for c in name if c.isalnum())[:8]
        self.guests = [f"{TAG}{slug}{side}" for side in "AB"]
        self.host = f"{TAG}{slug}H"
        for netns in [*self.guests, self.host]:
            sh("ip", "netns", "add", netns)
            sh("ip", "-n", netns, "link", "set", "lo", "up")

    def start(self, *words, netns=None, cpu=0, env=None):
        words = ["taskset", "-c", str(cpu), *map(str, words)]
        if netns:
            words = [*inside(netns, *words)]
        log = open(self.folder / "log", "ab")
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
        self.processes.append(process)
        return process

    def addresses(self):
        for number, netns in enumerate(self.guests):
            sh("ip", "-n", netns, "addr", "add", f"10.0.0.{number + 1}/24", "dev", "eth0")
            sh("ip", "-n", netns, "link", "set", "eth0", "up")
        self.serve()

    def serve(self):
        """Starts the servers in `B`, and waits until `A` reaches them."""
        servers = [("0,1", BIN / "bench-probe", "echo", "0.0.0.0:7"), ("1", BIN / "bench-probe", "echo", "0.0.0.0:9"),
                   ("0,1", BIN / "bench-probe", "accept", "0.0.0.0:8"), ("0,1", "iperf3", "-s")]
        for cpu, *words in servers:
            self.start(*words, netns=self.guests[1], cpu=cpu)
        for _ in range(100):
            out = sh(*inside(self.guests[0], BIN / "bench-probe", "rtt", f"{self.target}:7", 1, 0), check=False)
            if out.split()[-1:] == ["0"]:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: the guests do not reach each other\n{(self.folder / 'log').read_text()}")

    def mac(self, side):
        return json.loads(sh("ip", "-j", "-n", self.guests[side], "link", "show", "eth0"))[0]["address"]

    def received(self):
        shown = json.loads(sh("ip", "-j", "-s", "-n", self.guests[1], "link", "show", "eth0"))[0]
        return shown["stats64"]["rx"]["packets"]

    def tcp(self, seconds, *options):
        for _ in range(6):
            out = sh(*inside(self.guests[0], "iperf3", "-c", self.target, "-J", "-t", seconds, "-O", "0.3", *options),
                     check=False)
            shown = json.loads(out)
            if "error" not in shown:
                break
            # The server of the measurement before has not ended yet.
            time.sleep(0.5)
        else:
            raise RuntimeError(f"{self.name}: iperf3: {shown['error']}")
        end = shown["end"]
        total = end["sum_received"]["bits_per_second"]
        if "sum_received_bidir_reverse" in end:
            total += end["sum_received_bidir_reverse"]["bits_per_second"]
        return total / 1e9

    def frames(self, seconds):
        sh(*inside(self.guests[0], "ping", "-c1", "-W1", self.target))
        before, begun = self.received(), time.monotonic()
        sh(*inside(self.guests[0], "taskset", "-c", "1", BIN / "bench-probe", "flood", "eth0", seconds,
                   self.mac(0), self.mac(1), 60))
        spent = time.monotonic() - begun
        time.sleep(0.05)
        return (self.received() - before) / spent / 1e6

    def rtt(self, count, gap, apart=False):
        """Median, 99th percentile, lost. Both ends are where the scheduler puts them, or apart from the switch."""
        cpu, port = ("1", 9) if apart else ("0,1", 7)
        out = sh(*inside(self.guests[0], "taskset", "-c", cpu, BIN / "bench-probe", "rtt", f"{self.target}:{port}", count, gap))
        return [float(word) for word in out.split()]

    def connections(self, seconds):
        """TCP connections a second: open, one byte each way, closed by the server."""
        return float(sh(*inside(self.guests[0], BIN / "bench-probe", "connect", f"{self.target}:8", seconds, 16)).split()[0])

    @staticmethod
    def close_all():
        while Stage.opened:
            Stage.opened[-1].close()

    def close(self):
        Stage.opened.remove(self)
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
        for pidfile in self.folder.glob("*.pid"):
            try:
                os.kill(int(pidfile.read_text()), signal.SIGTERM)
            except (ValueError, ProcessLookupError):
                pass
        for netns in [*self.guests, self.host]:
            sh("ip", "netns", "del", netns, check=False)
        if hasattr(self, "captures"):
            if (self.captures / "huge").exists():
                sh("umount", self.captures / "huge", check=False)
            shutil.rmtree(self.captures, ignore_errors=True)


def table(title, header, rows):
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def collect(stages, rounds, measure):
    """Measures every stage once a round, in turn."""
    results = {stage.name: [] for stage in stages}
    for number in range(rounds):
        order = stages if number % 2 == 0 else list(reversed(stages))
        for stage in order:
            results[stage.name].append(measure(stage))
    return results


def compare(title, unit, stages, rounds, measure, digits=2):
    report(title, unit, collect(stages, rounds, measure), digits)


def report(title, unit, results, digits):
    """Prints medians and the ratio of the first stage to each, pair by pair."""
    first, ours = next(iter(results.items()))
    rows = []
    for name, values in results.items():
        ratios = [a / b for a, b in zip(ours, values) if b]
        rows.append([name, spread(values, digits), f"{statistics.median(ratios):.2f}" if ratios else "-"])
    table(title, ["switch", f"median (range), {unit}", f"{first} ÷ it"], rows)
