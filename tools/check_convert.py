"""Holds what `latentd convert` makes of tiny original checkpoints against diffusers and the original code.

    OMP_NUM_THREADS=1 python tools/check_convert.py LATENTD

LATENTD is the built binary. Every original system of tests/goldens/systems that diffusers can express is written out, converted to
a directory and loaded by unmodified diffusers. No key may be missing or unexpected, and the picture and the latents must be those
that the original code made (the golden). Needs what tools/goldens/systems.py needs, but no checkouts.
"""
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

import diffusers
import numpy as np
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).parents[1]
GOLDENS = ROOT / "tests/goldens"
SYSTEMS = GOLDENS / "systems"
# The case of each whose sampler both libraries have and space alike: DDIM without noise, from pure noise, in steps that divide 1000.
CASES = {
    "original-unconditional": "ten", "original-super-resolution": "five", "original-txt2img": "guided", "stability-one": "ten",
    "stability-two": "ten", "stability-inpainting": "ten", "stability-upscaler": "ten", "stability-depth": None,
    "stability-sdxl": "negative", "stability-refiner": None,
}
diffusers.utils.logging.disable_progress_bar()
EMBEDDINGS = ("embedding.weight", "token_emb.weight", "pos_emb.emb.weight", "embed_tokens.weight", "embed_positions.weight")
MASK = (1 << 64) - 1


def uniform(name, count):
    """As in tools/goldens/unets.py: splitmix64 seeded with the name's FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1) * math.sqrt(3)


def weight(name, shape):
    """As in tools/goldens/systems.py."""
    x = uniform(name, math.prod(shape))
    if len(shape) < 2:
        x = 1 + 0.1 * x if name.endswith("weight") or not shape else 0.1 * x
    elif name.endswith(EMBEDDINGS):
        x = 0.5 * x
    else:
        x = x / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32)).reshape(shape)


def made(model, folder):
    """The original file beside its description."""
    files = json.loads((SYSTEMS / model / "model.json").read_text())
    folder.mkdir(parents=True)
    for path in (SYSTEMS / model).iterdir():
        if path.suffix in (".yaml", ".toml"):
            shutil.copy(path, folder)
    for to, source in files["copies"].items():
        shutil.copytree(GOLDENS / source, folder / to)
    [(file, tensors)] = files["weights"].items()
    save_file({name: weight(f"{file}/{name}", shape) for name, shape in tensors.items()}, folder / file)
    return folder / file


def keys(directory):
    """Missing and unexpected keys of every network, as its own class reports them."""
    index = json.loads((directory / "model_index.json").read_text())
    wrong, networks = [], {}
    for part, value in index.items():
        if not isinstance(value, list) or value[0] is None or "Tokenizer" in value[1] or "Scheduler" in value[1]:
            continue
        library = {"diffusers": diffusers, "transformers": transformers}.get(value[0])
        cls = LDMBertModel if library is None else getattr(library, value[1])
        networks[part], info = cls.from_pretrained(directory / part, output_loading_info=True)
        wrong += [f"{part}: {what} {sorted(names)[:3]}" for what, names in info.items() if names]
    return wrong


def opened(name):
    return Image.open(SYSTEMS / name)


def loaded(directory):
    """The pipeline. What a directory has no network for is given as none, which its class takes."""
    index = json.loads((directory / "model_index.json").read_text())
    none = {name: None for name, value in index.items() if isinstance(value, list) and value[0] is None}
    pipe = DiffusionPipeline.from_pretrained(directory, **none)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def run(pipe, asked, shape):
    """The latent at the denoiser's scale, and the picture."""
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    stage = getattr(pipe, "vqvae", None) or pipe.vae
    torch.manual_seed(asked["seed"])
    if type(pipe).__name__ == "LDMPipeline":
        # It draws squares alone: the same loop by hand.
        x = torch.randn(shape)
        pipe.scheduler.set_timesteps(asked["steps"])
        for t in pipe.scheduler.timesteps:
            x = pipe.scheduler.step(pipe.unet(x, t).sample, t, x, eta=0.0).prev_sample
        image = stage.decode(x / stage.config.scaling_factor).sample[0].permute(1, 2, 0).numpy()
        return x, Image.fromarray(((image / 2 + 0.5).clip(0, 1) * 255).round().astype(np.uint8))
    arguments = {"num_inference_steps": asked["steps"]}
    if not type(pipe).__name__.startswith("LDM"):
        arguments["generator"] = torch.Generator().manual_seed(asked["seed"])
    names = {"prompt": "prompt", "negative_prompt": "negative_prompt", "guidance": "guidance_scale", "noise_level": "noise_level"}
    arguments |= {theirs: asked[ours] for ours, theirs in names.items() if ours in asked}
    if asked["task"] in ("txt2img", "inpaint"):
        # LDM's pipeline takes every autoencoder for one of factor 8.
        times = 2 if type(pipe).__name__ == "LDMTextToImagePipeline" else 1
        arguments |= {"width": times * asked["width"], "height": times * asked["height"]}
    arguments |= {"image": opened(asked[name]) for name in ("init", "lr") if name in asked}
    if type(pipe).__name__ == "LDMSuperResolutionPipeline":
        # Pictures are resized to multiples of 32, numbers are not.
        arguments["image"] = torch.from_numpy(np.asarray(arguments["image"]) / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    if "mask" in asked:
        arguments["mask_image"] = opened(asked["mask"])
    seen, decode = [], stage.decode
    stage.decode = lambda z, *args, **kwargs: (seen.append(z.clone()), decode(z, *args, **kwargs))[1]
    image = pipe(**arguments).images[0]
    scale = 1.0 if isinstance(stage, diffusers.VQModel) else stage.config.scaling_factor
    return seen[-1] * scale, image


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    asked = {f"{case['model']}.{case['name']}": case for case in json.loads((SYSTEMS / "cases.json").read_text())}
    latents = load_file(SYSTEMS / "latents.safetensors")
    failed = 0
    for model, name in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            subprocess.run([binary, "convert", made(model, folder / "from"), folder / "to"], check=True, capture_output=True)
            wrong, pipe = keys(folder / "to"), loaded(folder / "to")
            told = f"{model}: {type(pipe).__name__}, {type(pipe.scheduler).__name__}; keys: {wrong or 'all there'}"
            bad = bool(wrong)
            if name is None:
                told += "; it starts from pictures alone, and where those are noised to the two libraries differ"
            else:
                reference = latents[f"{model}.{name}"]
                latent, image = run(pipe, asked[f"{model}.{name}"], reference.shape)
                off = ((latent - reference).abs().max() / reference.abs().max()).item()
                golden = np.asarray(opened(f"{model}/{name}.png")).astype(int)
                levels = int(np.abs(np.asarray(image).astype(int) - golden).max())
                bad |= off > 1e-4 or levels > 1
                told += f"; latents {off:.1e}, {levels} levels"
            failed += bad
            print(told + (" WRONG" if bad else ""), flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
