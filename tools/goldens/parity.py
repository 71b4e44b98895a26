"""Holds `latentd generate` against diffusers, picture by picture: the same PNG within one level per channel.

usage: parity.py LATENTD MODEL_DIR [WIDTH HEIGHT STEPS]      (torch 2.11, diffusers 0.42.1, transformers 5.23)

For directories too large to keep golden files of, for example tools/bench/make_sd15.py's: the whole SD-1.5 architecture.
Exits with 1 when a picture differs by more than one level.
"""
import pathlib
import subprocess
import sys
import tempfile

import diffusers
import numpy
import torch
from PIL import Image

SAMPLERS = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "plms": (diffusers.PNDMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}
PROMPT, NEGATIVE, GUIDANCE, SEED = "a photo of a red house by the sea", "blurry", 7.5, 1234


def main():
    binary, model = sys.argv[1], pathlib.Path(sys.argv[2])
    width, height, steps = (int(word) for word in sys.argv[3:6]) if len(sys.argv) > 3 else (128, 128, 5)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(model, safety_checker=None, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    worst = 0
    with tempfile.TemporaryDirectory() as scratch:
        for sampler, (scheduler, options) in SAMPLERS.items():
            pipe.scheduler = scheduler.from_config(config, **options)
            theirs = pipe(PROMPT, negative_prompt=NEGATIVE, width=width, height=height, num_inference_steps=steps,
                          guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(SEED)).images[0]
            out = pathlib.Path(scratch) / "ours.png"
            subprocess.run([binary, "generate", "--model", model, "--prompt", PROMPT, "--negative-prompt", NEGATIVE,
                            "--width", str(width), "--height", str(height), "--steps", str(steps), "--sampler", sampler,
                            "--guidance", str(GUIDANCE), "--seed", str(SEED), "--dtype", "f32", "--out", out, "--quiet"], check=True)
            a, b = (numpy.asarray(picture.convert("RGB")).astype(int) for picture in (theirs, Image.open(out)))
            difference = abs(a - b)
            worst = max(worst, difference.max())
            print(f"{sampler:16} largest difference {difference.max()} levels, {100 * (difference > 0).mean():.3f} % of values differ, "
                  f"spread of the picture {a.std():.1f}", flush=True)
    sys.exit(int(worst > 1))


main()
