"""Writes tests/goldens/pipeline: what diffusers' pipelines make of tests/goldens/tiny-sd (run nn.py first), in float32.

Run with torch 2.11, diffusers 0.42.1, transformers 5.23, torchsde 0.2.6:  OMP_NUM_THREADS=1 python tools/goldens/pipeline.py
cases.json says what was asked for, in the vocabulary of latentd; latents.safetensors holds the finished latents as the
pipeline leaves them (still scaled), NAME.png the pictures.
"""
import contextlib
import importlib
import json
import pathlib
import shutil

import diffusers
import numpy as np
import torch
import torchsde._brownian.brownian_interval as brownian_interval
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

GOLDENS = pathlib.Path(__file__).parents[2] / "tests/goldens"
OUT = GOLDENS / "pipeline"
diffusers.utils.logging.disable_progress_bar()

# Sampler and sigma schedule in latentd's words: class and settings in diffusers'.
SAMPLERS = {
    ("ddim", "default"): ("DDIMScheduler", {}),
    ("plms", "default"): ("PNDMScheduler", {}),
    ("euler", "default"): ("EulerDiscreteScheduler", {}),
    ("euler", "karras"): ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("euler_a", "default"): ("EulerAncestralDiscreteScheduler", {}),
    ("heun", "default"): ("HeunDiscreteScheduler", {}),
    ("lms", "default"): ("LMSDiscreteScheduler", {}),
    ("dpmpp_2m", "default"): ("DPMSolverMultistepScheduler", {}),
    ("dpmpp_2m", "karras"): ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("dpmpp_2m_sde", "karras"): ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}),
    ("unipc", "default"): ("UniPCMultistepScheduler", {}),
    ("ddpm", "default"): ("DDPMScheduler", {}),
    ("lcm", "default"): ("LCMScheduler", {}),
    ("dpm2", "default"): ("KDPM2DiscreteScheduler", {}),
    ("dpm2_a", "default"): ("KDPM2AncestralDiscreteScheduler", {}),
    ("dpmpp_sde", "default"): ("DPMSolverSDEScheduler", {}),
    ("deis", "default"): ("DEISMultistepScheduler", {}),
    ("tcd", "default"): ("TCDScheduler", {}),
}
CAT = "a photo of a cat sitting on the table"
SQUARE = "a red square above a blue circle, highly detailed"
BAD = "low quality, blurry, bad anatomy"
LONG = "a painting of a small house near the river with trees and flowers, " * 8


def case(name, sampler, schedule="default", **said):
    settings = {"prompt": CAT, "negative_prompt": "", "width": 64, "height": 64, "guidance": 7.5, "eta": 0.0, "seed": 1}
    return {"name": name, "sampler": sampler, "schedule": schedule, **settings, **said}


class Shim:
    """A module with some of its names changed."""

    def __init__(self, module, **changed):
        self.__dict__["module"], self.__dict__["changed"] = module, changed

    def __getattr__(self, name):
        return self.changed[name] if name in self.changed else getattr(self.module, name)


def noise32(shape, generator=None, device=None, dtype=None, layout=None):
    """What the pipeline draws: float32 normals, whatever precision the scheduler computes in."""
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)


def tree32(size, dtype, device, seed):
    """What a Brownian tree draws: as above."""
    return torch.randn(size, generator=torch.Generator().manual_seed(int(seed)), dtype=torch.float32).to(dtype)


@contextlib.contextmanager
def in_double(class_name):
    """The scheduler's own arithmetic in float64. Its code is as published; what it calls float32 is float64 (see sampler.py)."""
    module = importlib.import_module(getattr(diffusers, class_name).__module__)
    changed = {"torch": Shim(torch, float32=torch.float64), "np": Shim(np, float32=np.float64), "randn_tensor": noise32}
    before = {name: getattr(module, name) for name in changed if hasattr(module, name)}
    tree = brownian_interval._randn
    try:
        for name in before:
            setattr(module, name, changed[name])
        brownian_interval._randn = tree32
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
        brownian_interval._randn = tree


def cases():
    for i, (sampler, schedule) in enumerate(SAMPLERS):
        name = sampler if schedule == "default" else f"{sampler}-{schedule}"
        yield case(name, sampler, schedule, steps=5 + i, negative_prompt=BAD, seed=i)
        size = {"width": 96} if i % 2 else {"height": 72, "width": 56}
        yield case(f"{name}-free", sampler, schedule, steps=12 - i % 3, guidance=1.0, prompt=SQUARE, seed=100 + i, **size)
        init = {"init": "init-96x64.png", "width": 96} if i % 3 == 0 else {"init": "init-64x64.png"}
        strength = (0.5, 0.75, 0.9)[i % 3]
        yield case(f"{name}-img2img", sampler, schedule, steps=10, strength=strength, prompt=SQUARE, negative_prompt=BAD,
                   guidance=5.0, seed=2**33 + i, **init)
    yield case("ddim-20", "ddim", steps=20, negative_prompt=BAD, seed=42)
    yield case("ddim-eta", "ddim", steps=8, eta=0.6, seed=43)
    yield case("plms-20", "plms", steps=20, seed=44, width=96)
    yield case("long-prompt", "euler", steps=5, prompt=LONG, negative_prompt=LONG[::-1], seed=45)
    yield case("no-prompt", "euler", steps=5, prompt="", seed=46)
    yield case("unicode-prompt", "euler", steps=5, prompt="Café 🐱 日本語, it's <|endoftext|> HERE", seed=47)
    yield case("whole-strength", "dpmpp_2m", steps=6, strength=1.0, init="init-64x64.png", seed=48)
    yield case("resized", "ddim", steps=8, strength=0.6, init="init-90x70.png", seed=49)


def picture(width, height):
    """Waves, an edge and some noise."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y * x + 1), np.where(x > y, 0.6, -0.5)], -1)
    noise = np.random.default_rng(width).normal(0, 0.05, waves.shape)
    return Image.fromarray(((waves * 0.5 + 0.5 + noise).clip(0, 1) * 255).round().astype(np.uint8))


# In float32 the timesteps of midpoints, the Brownian path, and Karras' fractional timesteps (where 1 − ᾱ cancels) are off by up to 1e-3.
DOUBLE = {("dpmpp_sde", "default"), ("euler", "karras")}


def run(text2img, img2img, asked):
    key = asked["sampler"], asked["schedule"]
    with torch.no_grad(), in_double(SAMPLERS[key][0]) if key in DOUBLE else contextlib.nullcontext():
        return run_as_set(text2img, img2img, asked)


def run_as_set(text2img, img2img, asked):
    class_name, settings = SAMPLERS[asked["sampler"], asked["schedule"]]
    pipe = img2img if "init" in asked else text2img
    original = pipe.scheduler
    if class_name == "DPMSolverSDEScheduler":
        # Its Brownian path has a seed of its own; a job's is that of the job.
        settings = settings | {"noise_sampler_seed": asked["seed"]}
    pipe.scheduler = getattr(diffusers, class_name).from_config(original.config, **settings)
    arguments = {
        "prompt": asked["prompt"], "negative_prompt": asked["negative_prompt"], "num_inference_steps": asked["steps"],
        "guidance_scale": asked["guidance"], "eta": asked["eta"], "output_type": "latent",
        "generator": torch.Generator("cpu").manual_seed(asked["seed"]),
    }
    size = asked["width"], asked["height"]
    if "init" in asked:
        init = Image.open(OUT / asked["init"])
        if init.size != size:
            init = init.resize(size, Image.Resampling.LANCZOS)
        arguments |= {"image": init, "strength": asked["strength"]}
    else:
        arguments |= {"width": size[0], "height": size[1]}
    latent = pipe(**arguments).images
    # As the pipeline does behind output_type.
    decoded = pipe.vae.decode(latent / pipe.vae.config.scaling_factor, return_dict=False)[0]
    image = pipe.image_processor.postprocess(decoded, output_type="pil")[0]
    pipe.scheduler = original
    assert image.size == size and torch.isfinite(latent).all(), asked
    inside = ((decoded > -1) & (decoded < 1)).float().mean()
    print(f"{asked['name']}: latent std {latent.std():.2f}, {100 * inside:.0f} % of pixels not saturated")
    return latent, image


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for width, height in ((64, 64), (96, 64), (90, 70)):
        picture(width, height).save(OUT / f"init-{width}x{height}.png", optimize=True)
    text2img = StableDiffusionPipeline.from_pretrained(GOLDENS / "tiny-sd", torch_dtype=torch.float32)
    img2img = StableDiffusionImg2ImgPipeline(**text2img.components, requires_safety_checker=False)
    for pipe in (text2img, img2img):
        pipe.set_progress_bar_config(disable=True)
    records, latents = [], {}
    for asked in cases():
        latent, image = run(text2img, img2img, asked)
        latents[asked["name"]] = latent.contiguous()
        image.save(OUT / f"{asked['name']}.png", optimize=True)
        records.append(asked)
    save_file(latents, OUT / "latents.safetensors")
    lines = ",\n".join(json.dumps(record) for record in records)
    (OUT / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
