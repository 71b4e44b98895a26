"""Writes tests/goldens/hires: two passes of diffusers' pipelines on tests/goldens/tiny-sd (run nn.py first), in float32.

Run with torch 2.11, diffusers 0.42.1, transformers 5.23:  OMP_NUM_THREADS=1 python tools/goldens/hires.py
StableDiffusionPipeline makes a latent, torch's interpolate (or Pillow, between a decoding and an encoding) makes it larger, and
StableDiffusionImg2ImgPipeline goes on with it and with the same generator. cases.json says what was asked for, in the vocabulary
of latentd; latents.safetensors holds the finished latents as the pipeline leaves them, NAME.png the pictures.
"""
import json
import shutil

import diffusers
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from pipeline import BAD, CAT, GOLDENS, SAMPLERS, SQUARE

OUT = GOLDENS / "hires"


def case(name, sampler, schedule="default", **said):
    settings = {"prompt": CAT, "negative_prompt": "", "width": 64, "height": 64, "steps": 5, "guidance": 5.0, "eta": 0.0, "seed": 1,
                "hires_steps": 6, "strength": 0.7, "upscaler": "latent-bilinear"}
    return {"name": name, "sampler": sampler, "schedule": schedule, **settings, **said}


def cases():
    yield case("bilinear", "ddim", hires_width=96, hires_height=96, negative_prompt=BAD)
    yield case("nearest", "euler_a", hires_width=128, hires_height=96, upscaler="latent-nearest", seed=2, prompt=SQUARE)
    yield case("unguided", "dpmpp_2m", hires_width=96, hires_height=64, guidance=1.0, seed=3, hires_steps=9, strength=0.5)
    yield case("fresh-noise", "dpmpp_2m_sde", "karras", hires_width=96, hires_height=80, seed=4)
    yield case("twice-per-step", "heun", hires_width=80, hires_height=80, seed=5, upscaler="latent-nearest")
    yield case("eta", "ddim", hires_width=96, hires_height=96, eta=0.5, seed=6, strength=1.0)
    # A decoded pixel that lies between two levels goes to the one or the other, and is encoded so.
    yield case("pixels", "ddim", hires_width=96, hires_height=96, upscaler="pixel-lanczos", seed=7, tolerance=3e-4)


def enlarged(pipe, latent, asked):
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    width, height = asked["hires_width"], asked["hires_height"]
    if asked["upscaler"] == "pixel-lanczos":
        decoded = pipe.vae.decode(latent / pipe.vae.config.scaling_factor, return_dict=False)[0]
        picture = pipe.image_processor.postprocess(decoded, output_type="pil")[0]
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    mode = asked["upscaler"].removeprefix("latent-")
    return torch.nn.functional.interpolate(latent, size=(height // factor, width // factor), mode=mode)


@torch.no_grad()
def run(text2img, img2img, asked):
    class_name, settings = SAMPLERS[asked["sampler"], asked["schedule"]]
    original = text2img.scheduler
    common = {
        "prompt": asked["prompt"], "negative_prompt": asked["negative_prompt"], "guidance_scale": asked["guidance"], "eta": asked["eta"],
        "output_type": "latent", "generator": torch.Generator("cpu").manual_seed(asked["seed"]),
    }
    text2img.scheduler = getattr(diffusers, class_name).from_config(original.config, **settings)
    img2img.scheduler = getattr(diffusers, class_name).from_config(original.config, **settings)
    first = text2img(**common, width=asked["width"], height=asked["height"], num_inference_steps=asked["steps"]).images
    image = enlarged(text2img, first, asked)
    latent = img2img(**common, image=image, strength=asked["strength"], num_inference_steps=asked["hires_steps"]).images
    decoded = img2img.vae.decode(latent / img2img.vae.config.scaling_factor, return_dict=False)[0]
    picture = img2img.image_processor.postprocess(decoded, output_type="pil")[0]
    text2img.scheduler = img2img.scheduler = original
    assert picture.size == (asked["hires_width"], asked["hires_height"]) and torch.isfinite(latent).all(), asked
    print(f"{asked['name']}: latent std {latent.std():.2f}")
    return latent, picture


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    text2img = StableDiffusionPipeline.from_pretrained(GOLDENS / "tiny-sd", torch_dtype=torch.float32)
    img2img = StableDiffusionImg2ImgPipeline(**text2img.components, requires_safety_checker=False)
    for pipe in (text2img, img2img):
        pipe.set_progress_bar_config(disable=True)
    records, latents = [], {}
    for asked in cases():
        latent, picture = run(text2img, img2img, asked)
        latents[asked["name"]] = latent.contiguous()
        picture.save(OUT / f"{asked['name']}.png", optimize=True)
        records.append(asked)
    save_file(latents, OUT / "latents.safetensors")
    lines = ",\n".join(json.dumps(record) for record in records)
    (OUT / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
