"""How long `latentd serve` takes to be ready, and the memory that it takes at most.

usage: load.py [--binary target/release/latentd] [--dtypes bf16,f32] [--rounds 3] [--threads N] MODEL...

MODEL is a directory or a file. Every round starts the service for each model and dtype in turn, waits for "ready" (weights
loaded, one small picture made) and ends it. Wall clock counts from the start of the process; CPU time is that of the process,
which a busy machine disturbs least. Memory is the peak of the resident set (VmHWM), and its parts at the end: anonymous memory,
and pages of mapped files. The bound is the weights' size in the dtype served: the number of parameters, which the log says, times
its bytes. Files are read once before, so that they are in the page cache.
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import time

BYTES = {"f32": 4, "bf16": 2, "f16": 2}
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def warm(model):
    """Reads every weight file once."""
    files = [model] if model.is_file() else sorted(model.rglob("*.safetensors"))
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def memory(pid):
    """Peak, anonymous and file-backed bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return [int(re.search(rf"{key}:\s+(\d+)", status).group(1)) * 1024 for key in ("VmHWM", "RssAnon", "RssFile")]


def cpu(pid):
    """User and system seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(fields[i]) / os.sysconf("SC_CLK_TCK") for i in (11, 12)]


def load(binary, model, dtype, threads):
    """One start: parameters, wall and CPU seconds at "loaded" and at "ready", memory at "ready"."""
    start = time.monotonic()
    command = [binary, "serve", "--model", f"bench={model}", "--listen", "127.0.0.1:0", "--dtype", dtype, "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    parameters, marks = 0, {}
    for line in process.stderr:
        line = ESCAPES.sub("", line)
        for mark in ("model loaded", "warm and ready"):
            if mark in line:
                marks[mark] = (time.monotonic() - start, *cpu(process.pid))
        parameters += sum(map(int, re.findall(r"parameters=(\d+)", line)))
        if "warm and ready" in line:
            break
        if "ERROR" in line:
            raise SystemExit(line)
    held = memory(process.pid)
    process.terminate()
    process.wait()
    return parameters, marks["model loaded"], marks["warm and ready"], held


def main():
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--binary", default="target/release/latentd")
    parser.add_argument("--dtypes", default="bf16,f32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    found = {}
    for _ in range(args.rounds):
        for model in args.models:
            for dtype in args.dtypes.split(","):
                warm(model)
                found.setdefault((model, dtype), []).append(load(args.binary, model, dtype, args.threads))
    print("| model | dtype | loaded s | ready s (median, min) | CPU s (user + system) | peak GB | of the weights | anonymous, file |")
    print("|---|---|---|---|---|---|---|---|")
    for (model, dtype), runs in found.items():
        weights = runs[0][0] * BYTES[dtype]
        loaded = statistics.median(run[1][0] for run in runs)
        ready = sorted(run[2][0] for run in runs)
        user, system = min((run[2][1:] for run in runs), key=sum)
        peak, anonymous, mapped = max(run[3] for run in runs)
        print(
            f"| {model.name} | {dtype} | {loaded:.2f} | {statistics.median(ready):.2f}, {ready[0]:.2f} | {user:.2f} + {system:.2f} "
            f"| {peak / 1e9:.2f} | {peak / weights:.2f} | {anonymous / 1e9:.2f}, {mapped / 1e9:.2f} |"
        )


if __name__ == "__main__":
    main()
