"""What the measurements share: building, real peers, the cost of a process, tables.

Everything runs on loopback; files lie below target/bench, on the disk that the project lies on (not in a tmpfs, where
a sync costs nothing).
"""
import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import platform
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "target/bench"
CHOWKI = pathlib.Path(os.environ.get("CHOWKI", ROOT / "target/release/chowki"))
LOAD = OUT / "load"
TICK = os.sysconf("SC_CLK_TCK")


# ---- building

def build(benches=(), load=True):
    """The gateway as it is shipped (or what the variable CHOWKI names), the load generator (by rustc alone: it needs the
    standard library only), and, apart from both because of the features of dev-dependencies, the benches named."""
    OUT.mkdir(parents=True, exist_ok=True)
    if "CHOWKI" not in os.environ:
        run(["cargo", "build", "--release", "--bin", "chowki"])
    source = ROOT / "benches/load.rs"
    if load and (not LOAD.exists() or LOAD.stat().st_mtime < source.stat().st_mtime):
        run(["rustc", "--edition", "2024", "-O", "-o", LOAD, source])
    return {name: bench(name) for name in benches}


def bench(name):
    """Builds a bench of Cargo's; its program."""
    command = ["cargo", "build", "--release", "--target-dir", OUT / "cargo", "--bench", name, "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    built = [m for m in map(json.loads, lines) if m.get("executable") and m["target"]["name"] == name]
    return pathlib.Path(built[-1]["executable"])


def run(command):
    """Runs to success, its output on ours."""
    subprocess.run([str(c) for c in command], cwd=ROOT, check=True, stdout=sys.stderr)


# ---- arguments and results

def arguments(about, **more):
    """The arguments that all scripts take: --quick, --json FILE, and `more` (name: (default, help))."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    for name, (default, text) in more.items():
        flag = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, default=default, type=type(default) if default is not None else str, help=text)
    args = parser.parse_args()
    # Thousands of connections, here and in what is started.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return args


def finish(args, title, head, rows, notes, numbers):
    """Prints a Markdown table and writes the JSON."""
    print(f"### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(head))) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()
    for note in notes:
        print(f"- {note}")
    print(f"- {machine()}{'; a quick run' if args.quick else ''}\n", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"machine": machine(), "quick": args.quick, **numbers}, indent=1))


def machine():
    """What it ran on."""
    model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "a processor")
    return f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, load average {os.getloadavg()[0]:.1f} at the end"


def say(text):
    """Progress, beside the table."""
    print(f"... {text}", file=sys.stderr, flush=True)


def quantile(values, q):
    """Of a list."""
    values = sorted(values)
    return values[round((len(values) - 1) * q)] if values else float("nan")


def fdatasync_ms(directory, rounds=200):
    """Median and p99 of a small append with fdatasync there: the floor for anything durable."""
    took = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        for i in range(rounds):
            begun = time.monotonic()
            os.pwrite(file.fileno(), b"x" * 512, i * 512)
            os.fdatasync(file.fileno())
            took.append((time.monotonic() - begun) * 1000)
    return statistics.median(took), quantile(took, 0.99)


# ---- processes

def free_port():
    """A free port of loopback."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port, what, seconds=20, address="127.0.0.1"):
    """Waits until something accepts."""
    until = time.monotonic() + seconds
    while True:
        with socket.socket() as s:
            if s.connect_ex((address, port)) == 0:
                return
        if time.monotonic() > until:
            sys.exit(f"{what} did not open port {port}")
        time.sleep(0.02)


class Peers(contextlib.ExitStack):
    """Processes that end when the block does, and a folder for their files."""

    def __init__(self):
        super().__init__()
        OUT.mkdir(parents=True, exist_ok=True)
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=OUT, prefix="run-"))
        self.callback(shutil.rmtree, self.dir, ignore_errors=True)

    def start(self, command, log=None, **more):
        """A process; its output goes to a file beside ours."""
        out = open(self.dir / f"{log}.log", "wb") if log else subprocess.DEVNULL
        more = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, **more}
        process = subprocess.Popen([str(c) for c in command], **more)
        self.callback(stop, process)
        return process

    def mosquitto(self, name, lines=""):
        """A mosquitto; (process, port). Its own dialect of TCP is the better one: without Nagle's delays."""
        port = free_port()
        conf = self.dir / f"{name}.conf"
        conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type none\n{lines}\n")
        found = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if not found:
            sys.exit("mosquitto is not installed: apt-get install mosquitto")
        process = self.start([found, "-c", conf], name)
        wait_for_port(port, "mosquitto")
        return process, port

    def cameras(self, count, media=None):
        """GStreamer's RTSP cameras, 1080p30 4 Mbit/s H.264 with G.711, or what is in `media`: their URLs without login."""
        if not media:
            media = pathlib.Path.home() / ".cache/chowki-rig/media"
            run(["sh", ROOT / "tests/rig/media.sh", media])
        urls = []
        # One such process serves two dozen at ease.
        while len(urls) < count:
            port, some = free_port(), min(24, count - len(urls))
            command = ["/usr/bin/python3", ROOT / "tests/rig/cameras.py", "--port", port, "--n", some, "--media", media]
            self.start(command, f"cameras-{port}")
            wait_for_port(port, "cameras.py (./scripts/test installs what it needs)")
            urls += [f"rtsp://127.0.0.1:{port}/cam{i}" for i in range(some)]
        return urls

    def janus(self, urls, buffered=False):
        """A Janus whose streaming plugin shows these cameras as 1, 2, ...; no other plugin is loaded. `buffered`: with its
        (experimental) buffer of the latest key frame. It is ready when this returns."""
        program, library = shutil.which("janus"), next(pathlib.Path("/usr/lib").glob("*/janus"), None)
        if not program or not library:
            sys.exit("janus is not installed: scripts/install bench")
        port, home = free_port(), self.dir / f"janus-{'buffered' if buffered else 'plain'}"
        for folder, names in (("plugins", ["streaming"]), ("transports", ["websockets", "pfunix"]), ("events", []), ("loggers", [])):
            (home / folder).mkdir(parents=True)
            for name in names:
                os.symlink(library / folder / f"libjanus_{name}.so", home / folder / f"libjanus_{name}.so")
        folders = "\n".join(f'{name}_folder = "{home}/{name}"' for name in ("plugins", "transports", "events", "loggers"))
        (home / "janus.jcfg").write_text(f'general: {{\nconfigs_folder = "{home}"\n{folders}\ndebug_level = 3\nsession_timeout = 0\n}}\n')
        (home / "janus.transport.websockets.jcfg").write_text(f'general: {{\nws = true\nws_port = {port}\nws_ip = "127.0.0.1"\n}}\n')
        (home / "janus.transport.pfunix.jcfg").write_text(f'general: {{\nenabled = true\npath = "{home}/socket"\ntype = "SOCK_SEQPACKET"\n}}\n')
        points = (f'camera-{i}: {{\ntype = "rtsp"\nid = {i}\naudio = true\nvideo = true\nurl = "{url}"\nrtsp_user = "admin"\nrtsp_pwd = "test"\n'
                  # It asks nothing of a camera that does not say its timeout, and is thrown out after a minute.
                  f'rtsp_session_timeout = 20\nvideobufferkf = {str(buffered).lower()}\n}}\n' for i, url in enumerate(urls, 1))
        (home / "janus.plugin.streaming.jcfg").write_text("general: {\nevents = false\n}\n" + "".join(points))
        # It now and then dumps core at its end: there.
        process = self.start([program, "-F", home], home.name, cwd=home)
        wait_for_port(port, "janus")
        # A camera's key frame comes at once here, and would not have room otherwise.
        roomier(process.pid)
        return Janus(process, port, home / "socket")

    def chowki(self, buttons=1, cameras=(), hq=None, evidence="", name="chowki", env=None, more="", unit="", record="incident"):
        """A gateway of `buttons` buttons b0000... each with such a `unit`, and these cameras (place, URL); it is ready when this
        returns. Its folder may be there already."""
        home = self.dir / name
        home.mkdir(exist_ok=True)
        (home / "objects").mkdir()
        secret(home / "bench.password", "bench")
        secret(home / "camera.password", "test")
        mqtt, api = free_port(), free_port()
        text = [f'[district]\nid = "bench"\n[data]\ndir = "data"\n[broker]\nlisten = "127.0.0.1:{mqtt}"',
                f'max_connections = 20000\nmax_per_address = 20000\n[api]\nlisten = "127.0.0.1:{api}"',
                f"[evidence]\n{evidence}\n{more}"]
        if hq:
            text.append(f'[headquarters]\nmqtt = "mqtt://127.0.0.1:{hq}"\nobjects = "file://{home}/objects"')
        for i in range(buttons):
            text.append(f'[[button]]\nid = "b{i:04}"\nname = "Button {i}"\nat = {list(place(i))}\npassword_file = "bench.password"\n{unit}')
        for i, (at, url) in enumerate(cameras):
            text.append(f'[[camera]]\nid = "cam-{i:04}"\nname = "Camera {i}"\nat = {list(at)}\nurl = "{url}"\n'
                        f'username = "admin"\npassword_file = "camera.password"\nrecord = "{record}"')
        (home / "district.toml").write_text("\n".join(text) + "\n")
        process = self.start([CHOWKI, "run", "--config", home / "district.toml"], name, env={**os.environ, **(env or {})})
        gateway = Chowki(process, mqtt, api, home, "https" if "[api.tls]" in more else "http")
        until = time.monotonic() + 60
        while not gateway.healthy():
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"chowki does not start:\n{(self.dir / f'{name}.log').read_text()[-3000:]}")
            time.sleep(0.05)
        return gateway


class Janus:
    """A Janus that runs: its WebSocket's port, and its socket for local callers."""

    def __init__(self, process, port, path):
        self.process, self.port, self.path = process, port, path
        self.pid = process.pid


class Chowki:
    """A gateway that runs."""

    def __init__(self, process, mqtt, api, home, scheme="http"):
        self.process, self.port, self.api, self.home = process, mqtt, api, home
        self.url = f"{scheme}://127.0.0.1:{api}"
        self.pid = process.pid

    def get(self, path, timeout):
        """An answer. Its certificate is made for the measurement, and not looked at."""
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        return urllib.request.urlopen(self.url + path, timeout=timeout, context=trust)

    def healthy(self):
        """Whether it says so itself."""
        try:
            return self.get("/healthz", 2).status == 200
        except OSError:
            return False

    def metrics(self):
        """All metrics without labels, and those with labels under their whole names."""
        text = self.get("/metrics", 5).read().decode()
        lines = (l.rsplit(" ", 1) for l in text.splitlines() if l and not l.startswith("#"))
        return {name: float(value) for name, value in lines}


def place(i):
    """Buttons stand in rows of fifty, 200 m apart."""
    return round(33.9 + (i // 50) * 0.0018, 6), round(71.4 + (i % 50) * 0.0022, 6)


def beside(at, metres_east):
    """A place so far east."""
    return at[0], round(at[1] + metres_east / 92_000, 6)


def secret(path, text):
    """A secret file."""
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def stop(process):
    """Ends a process of ours."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load(command, **options):
    """Runs the load generator; what it says."""
    words = [w for k, v in options.items() for w in ("--" + k.replace("_", "-"), str(v))]
    done = subprocess.run([LOAD, command, *words], stdout=subprocess.PIPE, check=True, text=True, timeout=600)
    return json.loads(done.stdout)


# ---- what a process costs

def cpu(pid):
    """CPU seconds so far, user and system."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss(pid):
    """Resident memory in MB."""
    return next(int(l.split()[1]) for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS")) * 1024 / 1e6


def dropped(pid):
    """Datagrams that the kernel could not put into a process's full sockets so far."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    lines = [l.split() for name in ("udp", "udp6") for l in open(f"/proc/{pid}/net/{name}").readlines()[1:]]
    return sum(int(fields[12]) for fields in lines if fields[9] in inodes)


def roomier(pid, size=4 << 20):
    """Gives a process's UDP sockets that much room for what it has not read yet, from outside: it cannot be told to."""
    system, words = ctypes.CDLL(None, use_errno=True).syscall, [ctypes.c_long] * 4
    system.argtypes = words
    handle = os.pidfd_open(pid)
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        # pidfd_getfd, which has one number on all architectures. What is closed by then is none of ours.
        with contextlib.suppress(OSError):
            if not os.readlink(link).startswith("socket:"):
                continue
        if (fd := system(438, handle, int(link.name), 0)) < 0:
            continue
        with socket.socket(fileno=fd) as one:
            if one.type == socket.SOCK_DGRAM:
                try:
                    one.setsockopt(socket.SOL_SOCKET, 33, size)  # SO_RCVBUFFORCE: beyond the system's limit, as root
                except OSError:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    os.close(handle)


def window(seconds, **groups):
    """CPU seconds of each group of processes over a window, and how long it was."""
    before = {name: sum(map(cpu, pids)) for name, pids in groups.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    return {name: sum(map(cpu, pids)) - before[name] for name, pids in groups.items()}, took


def ratio(ours, theirs):
    """As the tables show it."""
    return f"**{ours / theirs:.2f}x**" if theirs else "-"
