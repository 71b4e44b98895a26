"""The other side of compare.py: diffusers, driven by the same lines as crates/ldm-nn/examples/bench_step.rs.

usage: peer.py MODEL INPUTS f32|bf16|bf16-nhwc THREADS
"""
import pathlib
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file


def main():
    model, inputs, variant, threads = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    torch.set_num_threads(threads)
    dtype = torch.float32 if variant == "f32" else torch.bfloat16
    start = time.perf_counter()
    given = load_file(inputs)
    x, tokens, z = (given[key].to(dtype) for key in ("x", "tokens", "z"))
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=dtype).eval()
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=dtype).eval()
    if variant.endswith("nhwc"):
        unet, vae = (net.to(memory_format=torch.channels_last) for net in (unet, vae))
        x, z = (latent.to(memory_format=torch.channels_last) for latent in (x, z))
    print(f"ready {time.perf_counter() - start:.3f}", flush=True)
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        with torch.inference_mode():
            start = time.perf_counter()
            out = vae.decode(z).sample if command.endswith("vae") else unet(x, given["t"], tokens).sample
            seconds = time.perf_counter() - start
        if command.startswith("save-"):
            save_file({"out": out.float().contiguous()}, path)
        print(f"{seconds:.6f}", flush=True)


if __name__ == "__main__":
    main()
