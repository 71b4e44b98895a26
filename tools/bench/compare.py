"""Ours against diffusers on the CPU: one guidance step of SD 1.5 at 512², and the decoding of one picture.

usage: compare.py [--rounds N] [--threads N] [--only NAMES] [--tasks unet,vae] [--pause PID] [--limit SECONDS] [--json FILE]

All sides load the same file and stay in memory; every round runs each once, in turn (A/B/A/B …). Before the first round
each side computes once, and the results are compared. The table has medians of wall clock and of the CPU time that a side
spent, and beside every ratio the ratio round by round. `foreign` is what other processes took of the machine meanwhile.

`--pause` stops a background process (by its id) while a round runs, `--limit` seconds in all at most.
"""
import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).parents[2]
MODEL, OUT = ROOT / "runs/bench/sd15", ROOT / "runs/bench"
FLOP = {"unet": 1.609e12, "vae": 2.519e12}
SIDES = {
    "ours f32": ("ours", "f32"), "diffusers f32": ("peer", "f32"),
    "ours bf16": ("ours", "bf16"), "diffusers bf16": ("peer", "bf16"), "diffusers bf16 nhwc": ("peer", "bf16-nhwc"),
}
TICK = os.sysconf("SC_CLK_TCK")


class Side:
    def __init__(self, name, inputs, threads):
        self.name = name
        kind, variant = SIDES[name]
        ours, peer = [ROOT / "target/release/examples/bench_step"], [sys.executable, ROOT / "tools/bench/peer.py"]
        program = ours if kind == "ours" else peer
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), LD_LIBRARY_PATH=str(ROOT / "libtorch/lib") if kind == "ours" else "")
        command = [*map(str, program), str(MODEL), str(inputs), variant, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
        print(f"{name}: {self.answer()}, {self.resident():.1f} GB", flush=True)
        self.runs = {}

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has died")
        return line.strip()

    def resident(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1e6

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return float(self.answer())

    def run(self, task):
        busy, cpu, start = busy_seconds(), self.cpu(), time.perf_counter()
        seconds = self.ask(task)
        cpu = self.cpu() - cpu
        foreign = (busy_seconds() - busy - cpu) / (time.perf_counter() - start) / os.cpu_count()
        self.runs.setdefault(task, []).append((seconds, cpu, max(foreign, 0)))


def busy_seconds():
    """CPU seconds that the machine spent on anything, what the hypervisor gave to others included."""
    fields = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICK


def peak(dtype, threads):
    """GFLOP/s of a large square product: what the machine can do right now."""
    torch.set_num_threads(threads)
    a = torch.randn(2048, 2048, dtype=dtype)
    # oneDNN's product, also in float32: MKL's is slow on AMD.
    w = torch.ops.mkldnn._reorder_linear_weight(a, 2048)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        torch.ops.mkldnn._linear_pointwise(a, w, None, "none", [], "")
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times) / 1e9


class Pause:
    """Stops a process while a round runs, and always wakes it again."""

    def __init__(self, pid, limit):
        self.pid, self.left = pid, limit

    def __enter__(self):
        self.start = time.monotonic()
        if self.pid and self.left > 0:
            os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        if self.pid and self.left > 0:
            os.kill(self.pid, signal.SIGCONT)
            self.left -= time.monotonic() - self.start
            time.sleep(3)  # the background gets its turn between rounds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default=",".join(SIDES))
    parser.add_argument("--tasks", default="unet,vae")
    parser.add_argument("--pause", type=int)
    parser.add_argument("--limit", type=float, default=0)
    parser.add_argument("--json", type=pathlib.Path, default=OUT / "compare.json")
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(7)
    randn = lambda *shape: torch.randn(shape, generator=generator)
    inputs = OUT / "inputs.safetensors"
    given = {"x": randn(2, 4, 64, 64), "t": torch.tensor([501.0, 501.0]), "tokens": randn(2, 77, 768)}
    save_file(given | {"z": randn(1, 4, 64, 64) * 5}, inputs)

    sides = [Side(name, inputs, args.threads) for name in args.only.split(",")]
    tasks = args.tasks.split(",")

    # Parity first: this is also the warm-up.
    parity = {}
    for task in tasks:
        results = {}
        for side in sides:
            path = OUT / f"{side.name.replace(' ', '-')}-{task}.safetensors"
            side.ask(f"save-{task} {path}")
            results[side.name] = load_file(path)["out"].double()
        exact = results.get("diffusers f32", next(iter(results.values())))
        for name, result in results.items():
            parity[f"{task} {name}"] = ((result - exact).norm() / exact.norm()).item()
            print(f"parity {task:5} {name:20} |difference| / |diffusers f32| = {parity[f'{task} {name}']:.2e}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a paused process is woken
    pause, peaks = Pause(args.pause, args.limit), {"f32": 0.0, "bf16": 0.0}
    for _ in range(args.rounds):
        for task in tasks:
            with pause:
                for side in sides:
                    side.run(task)
                for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
                    peaks[kind] = max(peaks[kind], peak(dtype, args.threads))

    print(f"\npeak of the machine: {peaks['f32']:.0f} GFLOP/s float32, {peaks['bf16']:.0f} bfloat16, {args.threads} threads")
    print("| task | side | wall s (median, min) | CPU s (median, min) | foreign | share of the limit |\n|---|---|---|---|---|---|")
    record = {"peaks": peaks, "threads": args.threads, "parity": parity, "runs": {}}
    for task in tasks:
        for side in sides:
            wall, cpu, foreign = zip(*side.runs[task])
            limit = FLOP[task] / 1e9 / peaks["f32" if "f32" in side.name else "bf16"]
            share = limit * args.threads / statistics.median(cpu)
            print(
                f"| {task} | {side.name} | {statistics.median(wall):.2f}, {min(wall):.2f} | {statistics.median(cpu):.2f}, {min(cpu):.2f}"
                f" | {statistics.median(foreign):.0%} | {share:.0%} |"
            )
            record["runs"][f"{task} {side.name}"] = side.runs[task]
    by_name = {side.name: side for side in sides}
    for task in tasks:
        for kind in ("f32", "bf16"):
            ours = by_name.get(f"ours {kind}")
            for name in by_name:
                if ours and name.startswith(f"diffusers {kind}"):
                    for column, what in enumerate(("wall", "CPU")):
                        ratios = [a[column] / b[column] for a, b in zip(ours.runs[task], by_name[name].runs[task])]
                        listed = " ".join(f"{ratio:.2f}" for ratio in ratios)
                        print(f"{task} ours {kind} / {name}, {what}: median {statistics.median(ratios):.3f} ({listed})")
    args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
