"""Regenerates the table of docs/parity.md: runs the golden tests and keeps the largest difference that each case printed.

    python tools/parity.py            # needs the Rust toolchain and libtorch (`make libtorch`), no Python packages
"""
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs/parity.md"
BEGIN, END = "<!-- table: tools/parity.py -->", "<!-- end of table -->"

# Crate, test module, what it is, what it is held against, what is compared.
GROUPS = [
    ("ldm-nn", "first_stages", "First stages", "latent-diffusion a506df57, taming 3ba01b24, taesd 5cccb12d; diffusers 0.42.1",
     "latents, code indices, pictures; absolute"),
    ("ldm-nn", "tiling", "Tiles", "diffusers 0.42.1, `enable_tiling`", "latents, pictures; absolute"),
    ("ldm-nn", "unets", "Denoisers", "latent-diffusion a506df57, stablediffusion cf1d67a6, generative-models 0ad7de9a; diffusers 0.42.1",
     "output and every block; absolute"),
    ("ldm-nn", "conditioners", "Conditioners", "latent-diffusion a506df57, taming 3ba01b24; diffusers 0.42.1, transformers 5.23",
     "hidden states, pooled vectors, token ids; absolute"),
    ("ldm-nn", "parity", "Stable Diffusion 1.x networks", "diffusers 0.42.1, transformers 5.23", "outputs; relative"),
    ("ldm-pipeline", "goldens", "Stable Diffusion pipelines", "diffusers 0.42.1", "finished latents, relative; picture, levels"),
    ("ldm-pipeline", "systems", "Every other system", "diffusers 0.42.1; latent-diffusion a506df57",
     "finished latents, relative; picture, levels"),
    ("ldm-sampler", "goldens", "Samplers", "diffusers 0.42.1, k-diffusion 4601bf08, stable-diffusion 21f890f9",
     "final values on a toy model in float64; relative"),
]
LINE = re.compile(r"^(?P<what>[^:]+(?::[^:]+)*?): (?P<error>\d(?:\.\d+)?e-?\d+|0e0|0)(?:, (?P<levels>\d+))?$")


# The tests that hold something against a reference in float32.
HELD = re.compile(r"reference|is_that_of|blended_as|goldens")


def named(what):
    """The case without the variants that it was run in: memory format, spelling of names, place in the network."""
    words = [word for word in what.split() if word not in ("ChannelsLast", "Contiguous")]
    return words[0].split(".")[0] if words else what


def built():
    """The test programs that `make test` runs, by crate."""
    command = ["cargo", "test", "--workspace", "--test", "it", "--no-run", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
    told = [one for one in told if one.get("executable") and one["target"]["name"] == "it"]
    return {pathlib.Path(one["manifest_path"]).parent.name: one["executable"] for one in told}


def measured(program, crate, module):
    command = [program, f"{module}::", "--nocapture", "--test-threads", "1"]
    libraries = os.pathsep.join([str(ROOT / "libtorch/lib"), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    output = subprocess.run(command, cwd=ROOT / "crates" / crate, env=environment, capture_output=True, text=True)
    if output.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output.stdout[-3000:]}\n{output.stderr[-3000:]}")
    cases, test = {}, ""
    for line in output.stdout.splitlines():
        begun = re.match(r"test (\S+) \.\.\. (.*)", line)
        if begun:
            test, line = begun.groups()
        found = LINE.match(line.strip())
        if not found or found["what"] == "worst" or not HELD.search(test):
            continue
        error, levels = float(found["error"]), found["levels"]
        what = found["what"] if crate != "ldm-nn" else named(found["what"])
        old = cases.get(what, (0.0, None))
        cases[what] = (max(old[0], error), levels if old[1] is None else str(max(int(old[1]), int(levels or 0))))
    return cases


def main():
    lines, programs = [], built()
    for crate, module, title, reference, compared in GROUPS:
        cases = measured(programs[crate], crate, module)
        if not cases:
            raise SystemExit(f"{crate} {module}: no test printed a difference")
        lines += [f"### {title}", "", f"Reference: {reference}. Compared: {compared}. Test: `{crate}`, `{module}`.", "",
                  "| case | largest difference | levels |", "|---|---|---|"]
        for what, (error, levels) in sorted(cases.items()):
            lines.append(f"| {what} | {error:.1e} | {levels if levels is not None else ''} |")
        lines.append("")
        print(f"{title}: {len(cases)} cases, worst {max(error for error, _ in cases.values()):.1e}", flush=True)
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n" + "\n".join(lines) + f"{END}{tail}")


if __name__ == "__main__":
    main()
