"""Writes tests/goldens/lora: LoRA files in the spellings that people use, and what diffusers makes of them, in float32 on the CPU.

    OMP_NUM_THREADS=1 python tools/goldens/lora.py

Needs torch 2.11, diffusers 0.42.1, transformers 5.23, peft 0.21.2; run nn.py and systems.py first, whose tiny-sd and sdxl are taken.
The reference is the definition, strength · alpha/rank · up · down added to the weights of diffusers' networks, and then those networks
unmodified. What `load_lora_weights` and `set_adapters` make of the same files must agree and is asserted here, where these versions
can read them: with kohya's keys they forget alphas of single attention layers, and make something else of text encoders.
NAME.safetensors are the LoRAs; cases.json says the model, the strengths and the sampling of each; outputs.safetensors holds
`NAME.unet.STRENGTH`, `NAME.text.STRENGTH`, `NAME.text2.STRENGTH`, `NAME.pooled.STRENGTH` for the tensors `given.*`, and
`NAME.latents.STRENGTH`, the finished latents as the denoiser has them.
"""
import json
import math
import pathlib
import shutil

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

GOLDENS = pathlib.Path(__file__).parents[2] / "tests/goldens"
OUT = GOLDENS / "lora"
CAT, BAD = "a photo of a cat sitting on the table", "low quality, blurry, bad anatomy"
STRENGTHS = (1.0, -0.6)
MASK = (1 << 64) - 1
diffusers.utils.logging.disable_progress_bar()

# ---- models ----


def uniform(name, count):
    """As systems.py has it: splitmix64 seeded with the name's FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1) * math.sqrt(3)


def weight(name, shape):
    """As systems.py has it."""
    x = uniform(name, math.prod(shape))
    if len(shape) < 2:
        x = 1 + 0.1 * x if name.endswith("weight") or not shape else 0.1 * x
    elif name.endswith("embedding.weight"):
        x = 0.5 * x
    else:
        x = x / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32)).reshape(shape)


@torch.no_grad()
def filled(module, tensors, file):
    bare = not any(name.startswith("text_model.") for name in module.state_dict()) and isinstance(module, CLIPTextModel)
    for name, p in module.state_dict().items():
        name = f"text_model.{name}" if bare else name
        if p.is_floating_point():
            assert tensors[file][name] == list(p.shape), name
            p.copy_(weight(f"{file}/{name}", p.shape))
    return module.eval().requires_grad_(False)


def scheduler(folder):
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "set_alpha_to_one", "steps_offset", "clip_sample")
    return DDIMScheduler(**{name: config[name] for name in names if name in config})


def sd():
    folder = GOLDENS / "tiny-sd"
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipe.scheduler = scheduler(folder)
    return pipe


def sdxl():
    folder = GOLDENS / "systems/sdxl"
    tensors = json.loads((folder / "model.json").read_text())["weights"]
    text = [CLIPTextConfig.from_pretrained(folder / name) for name in ("text_encoder", "text_encoder_2")]
    parts = {
        "vae": filled(AutoencoderKL.from_config(folder / "vae"), tensors, "vae/diffusion_pytorch_model.safetensors"),
        "text_encoder": filled(CLIPTextModel(text[0]), tensors, "text_encoder/model.safetensors"),
        "text_encoder_2": filled(CLIPTextModelWithProjection(text[1]), tensors, "text_encoder_2/model.safetensors"),
        "tokenizer": CLIPTokenizer.from_pretrained(GOLDENS / "tiny-sd/tokenizer"),
        "tokenizer_2": CLIPTokenizer.from_pretrained(GOLDENS / "variant/tokenizer"),
        "unet": filled(UNet2DConditionModel.from_config(folder / "unet"), tensors, "unet/diffusion_pytorch_model.safetensors"),
        "scheduler": scheduler(folder),
    }
    return StableDiffusionXLPipeline(**parts, add_watermarker=False, force_zeros_for_empty_prompt=True)


# ---- layers and their spellings ----

# Of each kind of layer one or more: strides, shortcuts, gates, cross-attention, what comes first and last.
UNET = ("conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "time_emb_proj", "conv1", "conv_shortcut", "downsamplers.0.conv",
        "upsamplers.0.conv", "proj_in", "proj_out", "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k",
        "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "conv_out")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def layers(module, endings, every):
    """Paths and shapes of weights whose names end so; every so many, so that files stay small."""
    found = [(name.removesuffix(".weight"), list(p.shape)) for name, p in module.state_dict().items()
             if name.endswith(".weight") and p.dim() >= 2 and name.removesuffix(".weight").endswith(endings)]
    return found[::every]


def pair(name, shape, rank, size):
    """Down and up; the change is about `size` times what the weight is."""
    down = torch.from_numpy(uniform(f"{name}.down", rank * math.prod(shape[1:])).astype(np.float32)).reshape([rank, *shape[1:]])
    up = torch.from_numpy(uniform(f"{name}.up", rank * shape[0]).astype(np.float32)).reshape([shape[0], rank, *[1] * (len(shape) - 2)])
    return down / math.sqrt(math.prod(shape[1:])), up * size / math.sqrt(rank)


def flat(path):
    return path.replace(".", "_")


def kohya(prefix, path, down, up, alpha):
    name = prefix + flat(path)
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(float(alpha))}


def peft(prefix, path, down, up, _):
    return {f"{prefix}{path}.lora_A.weight": down, f"{prefix}{path}.lora_B.weight": up}


def old(prefix, path, down, up, _):
    """As diffusers wrote attention processors and text encoders before PEFT."""
    if prefix == "unet.":
        head, last = path.removesuffix(".0").rsplit(".", 1)
        return {f"unet.{head}.processor.{last}_lora.{way}.weight": tensor for way, tensor in (("down", down), ("up", up))}
    return {f"{prefix}{path}.lora_linear_layer.down.weight": down, f"{prefix}{path}.lora_linear_layer.up.weight": up}


# Of the tiny SDXL: diffusers' blocks and the original's.
BLOCKS = [
    ("down_blocks.0.resnets.0", "input_blocks.1.0"), ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
    ("down_blocks.1.resnets.0", "input_blocks.3.0"), ("down_blocks.1.attentions.0", "input_blocks.3.1"),
    ("mid_block.resnets.0", "middle_block.0"), ("mid_block.attentions.0", "middle_block.1"), ("mid_block.resnets.1", "middle_block.2"),
    ("up_blocks.0.resnets.0", "output_blocks.0.0"), ("up_blocks.0.attentions.0", "output_blocks.0.1"),
    ("up_blocks.0.resnets.1", "output_blocks.1.0"), ("up_blocks.0.attentions.1", "output_blocks.1.1"),
    ("up_blocks.0.upsamplers.0.conv", "output_blocks.1.2.conv"),
    ("up_blocks.1.resnets.0", "output_blocks.2.0"), ("up_blocks.1.resnets.1", "output_blocks.3.0"),
]


def original(path):
    for ours, theirs in BLOCKS:
        if path.startswith(ours):
            rest = path.removeprefix(ours).removeprefix(".")
            rest = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}.get(rest, rest)
            return f"{theirs}.{rest}".removesuffix(".")
    return None


def made(name, pipe, spell, unet=UNET, every=1, rename=lambda path: path, kind=torch.float16, mixed=False):
    """A LoRA: some ranks and scales differ."""
    texts = {"kohya": ("lora_te_",) if not hasattr(pipe, "text_encoder_2") else ("lora_te1_", "lora_te2_"),
             "dotted": ("text_encoder.", "text_encoder_2.")}
    first = "lora_unet_" if spell is kohya else "unet."
    parts = [(first, pipe.unet, unet, every)]
    for prefix, part in zip(texts["kohya" if spell is kohya else "dotted"], ("text_encoder", "text_encoder_2")):
        parts.append((prefix, getattr(pipe, part, None), TEXT, 2))
    file, reference = {}, {}
    for prefix, module, endings, every in parts:
        if module is None:
            continue
        for index, (path, shape) in enumerate(layers(module, endings, every)):
            spelled = rename(path) if module is pipe.unet else path if path.startswith("text_model.") else f"text_model.{path}"
            if spelled is None:
                continue
            rank = 3 if module is pipe.unet and index % 4 == 1 else 2
            alpha = 1.0 if mixed and index % 3 == 2 else 4.0
            alpha = alpha if spell is kohya else rank
            down, up = (x.to(kind) for x in pair(f"{name}.{prefix}{path}", shape, rank, 0.25))
            file |= spell(prefix, spelled, down, up, alpha)
            product = up.float().flatten(1) @ down.float().flatten(1)
            reference[module, f"{path}.weight"] = product.view(shape) * alpha / rank
    return {key: tensor.contiguous() for key, tensor in file.items()}, reference


# ---- what diffusers makes of them ----

def given():
    return {
        "given.x": torch.from_numpy(uniform("given.x", 2 * 4 * 16 * 12).astype(np.float32)).reshape(2, 4, 16, 12),
        "given.t": torch.tensor([801.0, 13.0]),
        "given.sd.tokens": torch.from_numpy(uniform("given.tokens", 2 * 77 * 32).astype(np.float32)).reshape(2, 77, 32),
        "given.sdxl.tokens": torch.from_numpy(uniform("given.tokens", 2 * 77 * 64).astype(np.float32)).reshape(2, 77, 64),
        "given.sdxl.pooled": torch.from_numpy(uniform("given.pooled", 2 * 24).astype(np.float32)).reshape(2, 24),
        "given.sdxl.numbers": torch.tensor([[64.0, 48, 0, 0, 64, 48], [96.0, 64, 3, 5, 48, 64]]),
    }


@torch.no_grad()
def outputs(pipe, model):
    g = given()
    more = {}
    if model == "sdxl":
        more["added_cond_kwargs"] = {"text_embeds": g["given.sdxl.pooled"], "time_ids": g["given.sdxl.numbers"]}
    result = {"unet": pipe.unet(g["given.x"], g["given.t"], g[f"given.{model}.tokens"], **more).sample}
    ids = pipe.tokenizer(CAT, padding="max_length", return_tensors="pt").input_ids
    if model == "sd":
        result["text"] = pipe.text_encoder(ids)[0]
    else:
        result["text"] = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        ids = pipe.tokenizer_2(CAT, padding="max_length", return_tensors="pt").input_ids
        second = pipe.text_encoder_2(ids, output_hidden_states=True)
        result |= {"text2": second.hidden_states[-2], "pooled": second.text_embeds}
    latents = pipe(CAT, negative_prompt=BAD, width=64, height=48, num_inference_steps=5, guidance_scale=5.0, output_type="latent",
                   generator=torch.Generator("cpu").manual_seed(3)).images
    return result | {"latents": latents}


@torch.no_grad()
def by_hand(pipe, reference, strength, model):
    """The same with the changes added to the weights: whether diffusers took them all."""
    parameters = {module: dict(module.named_parameters()) for module, _ in reference}
    before = {key: parameters[key[0]][key[1]].clone() for key in reference}
    for (module, name), change in reference.items():
        parameters[module][name] += strength * change
    result = outputs(pipe, model)
    for (module, name), kept in before.items():
        parameters[module][name].copy_(kept)
    return result


def loaded(pipe, model, name, file, reference, metadata, whole):
    """That diffusers' own loader makes the same of a file, or of the denoiser's part of it."""
    if not whole:
        file = {key: tensor for key, tensor in file.items() if key.startswith(("unet.", "lora_unet_"))}
        reference = {key: change for key, change in reference.items() if key[0] is pipe.unet}
    path = OUT / "loaded.safetensors"
    save_file(file, path, metadata=metadata)
    pipe.load_lora_weights(path, adapter_name="a")
    path.unlink()
    found = {}
    for strength in STRENGTHS:
        pipe.set_adapters("a", adapter_weights=strength)
        found[strength] = outputs(pipe, model)
    pipe.unload_lora_weights()
    for strength in STRENGTHS:
        for key, tensor in by_hand(pipe, reference, strength, model).items():
            error = ((tensor - found[strength][key]).abs().max() / tensor.abs().max()).item()
            print(f"{name}.{key}.{strength}: {error:.1e}")
            assert error < 2e-5, "diffusers makes something else of it"


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    pipes = {"sd": sd(), "sdxl": sdxl()}
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    plan = [
        ("sd-kohya", "sd", kohya, {"every": 2, "mixed": True}),
        ("sd-diffusers", "sd", peft, {"every": 3}),
        ("sd-old", "sd", old, {"unet": ATTENTION, "every": 3, "kind": torch.float32}),
        ("sd-metadata", "sd", peft, {"every": 9}),
        ("sdxl-kohya", "sdxl", kohya, {"every": 3}),
        ("sdxl-original", "sdxl", kohya, {"rename": original, "every": 2}),
        ("sdxl-diffusers", "sdxl", peft, {"every": 3}),
    ]
    tensors, cases = given(), []
    for name, model, spell, more in plan:
        pipe = pipes[model]
        file, reference = made(name, pipe, spell, **more)
        metadata = {"format": "pt"}
        if name == "sd-metadata":
            # Ranks and scales as PEFT's configuration says them.
            config, scales = {}, {}
            for part, module in (("unet", pipe.unet), ("text_encoder", pipe.text_encoder)):
                paths = [key.removeprefix(f"{part}.").removesuffix(".lora_A.weight") for key in file if key.startswith(f"{part}.") and "lora_A" in key]
                ranks = {path: file[f"{part}.{path}.lora_A.weight"].shape[0] for path in paths}
                alphas = {path: 5.0 for path in paths[::2]}
                bare = {path.removeprefix("text_model.") if part != "unet" and not hasattr(module, "text_model") else path: path for path in paths}
                config |= {f"{part}.r": 2, f"{part}.lora_alpha": 1.0, f"{part}.target_modules": list(bare),
                           f"{part}.rank_pattern": {b: ranks[p] for b, p in bare.items() if ranks[p] != 2},
                           f"{part}.alpha_pattern": {b: alphas[p] for b, p in bare.items() if p in alphas}}
                scales |= {(module, f"{b}.weight"): alphas.get(p, 1.0) / ranks[p] for b, p in bare.items()}
            reference = {key: change * scales[key] for key, change in reference.items()}
            metadata["lora_adapter_metadata"] = json.dumps(config, sort_keys=True)
        save_file(file, OUT / f"{name}.safetensors", metadata=metadata)
        cases.append({"name": name, "model": model, "layers": len(reference), "strengths": STRENGTHS})
        for strength in STRENGTHS:
            for key, tensor in by_hand(pipe, reference, strength, model).items():
                tensors[f"{name}.{key}.{strength}"] = tensor.contiguous()
        if not more.get("mixed"):
            loaded(pipe, model, name, file, reference, metadata, whole=spell is not kohya)
    for model, pipe in pipes.items():
        for key, tensor in outputs(pipe, model).items():
            tensors[f"none-{model}.{key}"] = tensor.contiguous()
    save_file(tensors, OUT / "outputs.safetensors")
    (OUT / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
