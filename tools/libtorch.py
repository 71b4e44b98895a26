"""Put libtorch 2.11.0 into a folder, cut from pip's wheels, pinned by version and SHA-256.

usage: libtorch.py cpu|cuda DEST

`cpu` keeps what CPU work needs (about 500 MB): libtorch_cpu, libc10, libgomp, the two small CUDA libraries that
libtorch_cpu links even for CPU work, the headers, and an empty libtorch.so in place of the one that needs CUDA.
`cuda` keeps everything that the wheel and its NVIDIA dependencies hold.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
# The wheels are of one CPython, whatever Python runs this: nothing of Python's is used from them.
TAGS = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_25_x86_64", "manylinux_2_18_x86_64",
             "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "any"]
CPU_LIBS = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}
STAMP = ".complete"


def download(requirements: pathlib.Path, into: pathlib.Path) -> list[pathlib.Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes",
               "--disable-pip-version-check", "-r", str(requirements), "-d", str(into), *TAGS]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run(command, check=True)
    return sorted(into.glob("*.whl"))


def extract(wheel: zipfile.ZipFile, member: str, to: pathlib.Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with wheel.open(member) as source, open(to, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def cpu(wheels: list[pathlib.Path], dest: pathlib.Path) -> None:
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                name = member.rsplit("/", 1)[-1]
                if member.startswith("torch/include/") and name:
                    extract(wheel, member, dest / member.removeprefix("torch/"))
                elif name in CPU_LIBS:
                    extract(wheel, member, dest / "lib" / name)
    missing = CPU_LIBS - {path.name for path in (dest / "lib").iterdir()}
    if missing:
        sys.exit(f"libtorch: the wheels lack {', '.join(sorted(missing))}")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-x", "c", "/dev/null", "-o", dest / "lib" / "libtorch.so",
                    "-Wl,-soname,libtorch.so"], check=True)


def cuda(wheels: list[pathlib.Path], dest: pathlib.Path) -> None:
    # The libraries find one another by $ORIGIN/../../nvidia/…, so the wheels' layout is kept and lib, include point into it.
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                if member.startswith(("torch/lib/", "torch/include/")) or member.startswith("nvidia/") and "/lib" in member:
                    if not member.endswith("/"):
                        extract(wheel, member, dest / "site" / member)
    for name in ("lib", "include"):
        (dest / name).symlink_to(pathlib.Path("site") / "torch" / name)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in ("cpu", "cuda"):
        sys.exit(__doc__)
    kind, dest = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    requirements = HERE / f"libtorch-{kind}.txt"
    stamp = dest / STAMP
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    print(f"libtorch 2.11.0 ({kind}) -> {dest}", file=sys.stderr)
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".libtorch-") as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "wheels").mkdir()
        (scratch / "out").mkdir()
        wheels = download(requirements, scratch / "wheels")
        {"cpu": cpu, "cuda": cuda}[kind](wheels, scratch / "out")
        (scratch / "out" / STAMP).write_text(requirements.read_text())
        shutil.rmtree(dest, ignore_errors=True)
        (scratch / "out").rename(dest)


main()
