"""Writes tests/goldens/systems: what the references make of tiny models of every system, in float32 on the CPU.

    OMP_NUM_THREADS=1 python tools/goldens/systems.py REFS [MODEL ...]

REFS holds checkouts of CompVis/latent-diffusion (a506df57), CompVis/stable-diffusion (21f890f9), CompVis/taming-transformers
(3ba01b24), Stability-AI/stablediffusion (cf1d67a6) and Stability-AI/generative-models (0ad7de9a) under their own names. Needs torch 2.11, diffusers 0.42.1, transformers 5.23, einops, omegaconf, PyYAML; run nn.py and conditioners.py first, whose tokenizers are
taken. With names of models only those are run.

No weights are stored: `weight` makes every tensor from its name and shape, and the tests do the same. MODEL/model.json says which
files hold which tensors and what else is copied; the configurations stand beside it as their authors write them. cases.json says
what was asked for, in the vocabulary of latentd; latents.safetensors holds the finished latents at the denoiser's scale, NAME.png
the pictures. tiles.safetensors holds a large super-resolution's latent, every fourth number of it.
"""
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import math
import pathlib
import shutil
import sys
import types

import diffusers
import numpy as np
import torch
import transformers
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from conditioners import OpenClipText  # noqa: E402
from nn import write_json  # noqa: E402
from pipeline import BAD, CAT, SAMPLERS, SQUARE, picture  # noqa: E402
from unets import original_class, uniform  # noqa: E402

REFS = pathlib.Path(sys.argv[1])
GOLDENS = pathlib.Path(__file__).parents[2] / "tests/goldens"
OUT = GOLDENS / "systems"
diffusers.utils.logging.disable_progress_bar()

# ---- weights ----

EMBEDDINGS = ("embedding.weight", "token_emb.weight", "pos_emb.emb.weight", "embed_tokens.weight", "embed_positions.weight")


def weight(name, shape):
    """Variance 1/fan_in; embeddings 0.5, norms and single numbers 1 ± 0.1, biases 0.1."""
    x = uniform(name, math.prod(shape))
    if len(shape) < 2:
        x = 1 + 0.1 * x if name.endswith("weight") or not shape else 0.1 * x
    elif name.endswith(EMBEDDINGS):
        x = 0.5 * x
    else:
        x = x / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32)).reshape(shape)


class Model:
    """A model's folder in the goldens."""

    def __init__(self, name):
        self.name, self.dir = name, OUT / name
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.weights, self.copies = {}, {}

    @torch.no_grad()
    def fill(self, module, file, prefix=""):
        """Weights of a module, which `file` holds with `prefix` before their names; each file has its own."""
        tensors = {}
        for name, p in module.state_dict().items():
            if p.is_floating_point() and not name.endswith("attn_mask"):
                tensors[prefix + name] = list(p.shape)
                p.copy_(weight(f"{file}/{prefix}{name}", p.shape))
        self.weights.setdefault(file, {}).update(tensors)
        return module.eval().requires_grad_(False)

    def finish(self):
        lines = [f'  {json.dumps(file)}: {json.dumps(tensors, separators=(",", ":"))}' for file, tensors in self.weights.items()]
        weights = ",\n".join(lines)
        (self.dir / "model.json").write_text(f'{{"copies": {json.dumps(self.copies)}, "weights": {{\n{weights}\n}}}}\n')


# ---- pictures that are given ----

def given():
    for size in ((64, 48), (64, 64), (16, 24), (24, 16), (32, 32), (21, 13)):
        picture(*size).save(OUT / "given-{}x{}.png".format(*size), optimize=True)
    for width, height in ((64, 48), (64, 64)):
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        mask = np.where((x > 13) & (x < 50) & (y > 9) & (y < 37), 255, 0) + np.where((x - 50) ** 2 + y**2 < 90, 200, 100) // 100
        mask = np.where((x < 12) & (y > 40), 127, mask)
        mask = np.where((x > 52) & (y > 38), 128, mask)
        Image.fromarray(mask.clip(0, 255).astype(np.uint8), "L").save(OUT / f"mask-{width}x{height}.png", optimize=True)
        depth = 120 + 60 * np.sin(x / 9) + 40 * np.cos(y / 7 + x / 20)
        Image.fromarray(depth.clip(0, 255).astype(np.uint8), "L").save(OUT / f"depth-{width}x{height}.png", optimize=True)
        labels = (x // 11 + y // 17 * 3) % 7
        Image.fromarray(labels.astype(np.uint8), "L").save(OUT / f"labels-{width}x{height}.png", optimize=True)


def opened(name):
    return Image.open(OUT / name)


# ---- diffusers ----

# As Stable Diffusion's own files have it.
SD_SCHEDULER = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}


def unet(**config):
    defaults = {
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 32, "norm_num_groups": 8,
        "block_out_channels": (32, 48), "layers_per_block": 1, "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**(defaults | config))


def kl(channels=(16, 32, 32), **config):
    levels = len(channels)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels, layers_per_block=1,
        block_out_channels=channels, latent_channels=4, norm_num_groups=8, sample_size=64, **config,
    )


def vq():
    return VQModel(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, layers_per_block=1,
        block_out_channels=(16, 32, 32), latent_channels=3, norm_num_groups=8, sample_size=64, num_vq_embeddings=64, scaling_factor=1.0,
    )


def clip(tokenizer, cls=CLIPTextModel, **config):
    vocab = len(tokenizer)
    defaults = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "projection_dim": 32,
                "max_position_embeddings": 77, "hidden_act": "quick_gelu", "vocab_size": vocab,
                "bos_token_id": vocab - 2, "eos_token_id": vocab - 1, "pad_token_id": vocab - 1}
    return cls(CLIPTextConfig(**(defaults | config)))


class Directory(Model):
    """A pipeline of diffusers."""

    def build(self, cls, scheduler, parts, others=(), **more):
        """`parts` by folder; tokenizers as the folder that they are copied from. `others` run the same parts for other tasks."""
        components = {}
        for name, part in parts.items():
            if isinstance(part, str):
                self.copies[name] = part
                cls_ = BertTokenizer if "bert" in part else CLIPTokenizer
                part = cls_.from_pretrained(GOLDENS / part)
            elif isinstance(part, (UNet2DConditionModel, UNet2DModel, AutoencoderKL, VQModel)):
                self.fill(part, f"{name}/diffusion_pytorch_model.safetensors")
                part.save_config(self.dir / name)
            elif isinstance(part, torch.nn.Module):
                prefix = "text_model." if isinstance(part, CLIPTextModel) and not has_prefix(part) else ""
                self.fill(part, f"{name}/model.safetensors", prefix)
                part.config.architectures = [type(part).__name__]
                part.config.save_pretrained(self.dir / name)
            elif hasattr(part, "save_config"):
                part.save_config(self.dir / name)
            components[name] = part
        class_name, settings = scheduler
        components["scheduler"] = getattr(diffusers, class_name)(**known(class_name, settings))
        # Only what its authors wrote: what they left out, each scheduler class says otherwise.
        write_json(self.dir / "scheduler/scheduler_config.json", {"_class_name": class_name, **settings})
        self.settings = settings
        self.pipe = cls(**components, **more)
        self.pipe.set_progress_bar_config(disable=True)
        # Some pipelines change it, whatever the file says.
        self.offset = {"steps_offset": self.pipe.scheduler.config.get("steps_offset", 0)}
        self.pipe.save_config(self.dir)
        self.pipes = {}
        for task, other in dict(others).items():
            taken = inspect.signature(other.__init__).parameters
            more = {key: value for key, value in more.items() if key in taken}
            components = {key: value for key, value in self.pipe.components.items() if key in taken}
            self.pipes[task] = other(**(components | more))
            self.pipes[task].set_progress_bar_config(disable=True)
        self.finish()
        return self

    @torch.no_grad()
    def run(self, asked):
        class_name, settings = SAMPLERS[asked["sampler"], asked.get("schedule", "default")]
        pipe = self.pipes.get(asked["task"], self.pipe)
        settings = {"skip_prk_steps": True, **self.settings, **settings, **self.offset}
        pipe.scheduler = getattr(diffusers, class_name)(**known(class_name, settings))
        arguments = {"num_inference_steps": asked["steps"]}
        if pipe.__class__.__name__.startswith("LDM"):
            # They give the generator to the first draw alone; without one all draws are of one stream.
            torch.manual_seed(asked["seed"])
        else:
            arguments["generator"] = torch.Generator("cpu").manual_seed(asked["seed"])
        names = {"prompt": "prompt", "negative_prompt": "negative_prompt", "guidance": "guidance_scale", "eta": "eta",
                 "strength": "strength", "noise_level": "noise_level"}
        arguments |= {theirs: asked[ours] for ours, theirs in names.items() if ours in asked}
        if asked["task"] in ("txt2img", "inpaint"):
            arguments |= {"width": asked["width"], "height": asked["height"]}
        for name in ("init", "lr"):
            if name in asked:
                arguments["image"] = opened(asked[name])
        if "mask" in asked:
            arguments["mask_image"] = opened(asked["mask"])
        if "depth" in asked:
            arguments["depth_map"] = torch.from_numpy(np.asarray(opened(asked["depth"])).astype(np.float32))[None]
        stage = getattr(pipe, "vqvae", None) or pipe.vae
        seen, decode = [], stage.decode
        stage.decode = lambda z, *args, **kwargs: (seen.append(z.clone()), decode(z, *args, **kwargs))[1]
        scale = 1.0 if isinstance(stage, VQModel) else stage.config.scaling_factor
        image = pipe(**arguments).images[0]
        stage.decode = decode
        [latent] = seen
        return latent * scale, image


def known(class_name, settings):
    """Settings that a scheduler class has, as `from_config` keeps."""
    signature = inspect.signature(getattr(diffusers, class_name).__init__)
    return {key: value for key, value in settings.items() if key in signature.parameters}


def has_prefix(model):
    return any(name.startswith("text_model.") for name in model.state_dict())


DIRECTORIES = {}
TINY, BANG, BERT = "tiny-sd/tokenizer", "variant/tokenizer", "conditioners/bert-tokenizer"


def tokens(folder):
    return CLIPTokenizer.from_pretrained(GOLDENS / folder)


def directory(make):
    DIRECTORIES[make.__name__.replace("_", "-")] = make
    return make


def text_parts(denoiser, stage):
    return {"vae": stage, "text_encoder": clip(tokens(TINY)), "tokenizer": TINY, "unet": denoiser}


SAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
PAINT = {"task": "inpaint", "prompt": SQUARE, "negative_prompt": BAD, "guidance": 4.0, "width": 64, "height": 48,
         "init": "given-64x48.png", "mask": "mask-64x48.png"}


@directory
def sd_inpainting(model):
    parts = text_parts(unet(in_channels=9), kl(scaling_factor=0.18215))
    model.build(diffusers.StableDiffusionInpaintPipeline, ("PNDMScheduler", {**SD_SCHEDULER, "skip_prk_steps": True}), parts, **SAFE)
    for sampler, steps in (("ddim", 6), ("euler", 8), ("euler_a", 5)):
        for strength in (1.0, 0.6):
            yield {**PAINT, "name": f"{sampler}-{strength}", "sampler": sampler, "steps": steps, "strength": strength, "seed": 3}
    yield {**PAINT, "name": "free", "sampler": "dpmpp_2m", "steps": 5, "strength": 1.0, "guidance": 1.0, "seed": 4}


@directory
def sd_plain_inpainting(model):
    parts = text_parts(unet(), kl(scaling_factor=0.18215))
    # An outdated file, which the pipeline mends.
    scheduler = {key: value for key, value in SD_SCHEDULER.items() if key != "steps_offset"}
    model.build(diffusers.StableDiffusionInpaintPipeline, ("DDIMScheduler", scheduler), parts, **SAFE)
    for sampler, steps in (("ddim", 6), ("euler", 8), ("dpmpp_2m", 6), ("plms", 6), ("euler_a", 5), ("heun", 5), ("lms", 6),
                           ("unipc", 6), ("ddpm", 8)):
        for strength in (1.0, 0.7):
            yield {**PAINT, "name": f"{sampler}-{strength}", "sampler": sampler, "steps": steps, "strength": strength, "seed": 5}
    yield {**PAINT, "name": "sde", "sampler": "dpmpp_2m_sde", "schedule": "karras", "steps": 6, "strength": 0.8, "seed": 5}
    yield {**PAINT, "name": "free", "sampler": "ddim", "steps": 5, "strength": 0.8, "guidance": 1.0, "seed": 6}


@directory
def sd_x4(model):
    parts = text_parts(unet(in_channels=7, num_class_embeds=400, only_cross_attention=(True, False)), kl(scaling_factor=0.08333))
    settings = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}
    parts["low_res_scheduler"] = diffusers.DDPMScheduler(**settings)
    scheduler = {**SD_SCHEDULER, **settings, "prediction_type": "v_prediction"}
    model.build(diffusers.StableDiffusionUpscalePipeline, ("DDIMScheduler", scheduler), parts, max_noise_level=350)
    asked = {"task": "super-resolution", "prompt": CAT, "negative_prompt": BAD, "lr": "given-24x16.png"}
    yield {**asked, "name": "ddim", "sampler": "ddim", "steps": 6, "guidance": 5.0, "noise_level": 20, "seed": 6}
    yield {**asked, "name": "euler", "sampler": "euler", "steps": 6, "guidance": 1.0, "noise_level": 137, "seed": 7}
    yield {**asked, "name": "eta", "sampler": "ddim", "steps": 5, "guidance": 3.0, "eta": 0.7, "noise_level": 0, "seed": 8}


@directory
def sd_depth(model):
    parts = text_parts(unet(in_channels=5), kl(scaling_factor=0.18215))
    parts |= {"depth_estimator": None, "feature_extractor": None}
    model.build(diffusers.StableDiffusionDepth2ImgPipeline, ("PNDMScheduler", {**SD_SCHEDULER, "skip_prk_steps": True}), parts)
    asked = {"task": "depth", "prompt": CAT, "negative_prompt": BAD, "guidance": 4.0, "width": 64, "height": 48,
             "init": "given-64x48.png", "depth": "depth-64x48.png"}
    for sampler, strength in (("ddim", 0.8), ("euler", 0.6), ("plms", 1.0)):
        yield {**asked, "name": sampler, "sampler": sampler, "steps": 6, "strength": strength, "seed": 9}


def xl_unet(ids, **config):
    return unet(
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=256 * ids + 24,
        transformer_layers_per_block=[1, 2], use_linear_projection=True, attention_head_dim=[2, 4],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **config,
    )


def second(**config):
    return clip(tokens(BANG), CLIPTextModelWithProjection, hidden_size=40, projection_dim=24, hidden_act="gelu", **config)


# Stable Diffusion XL's scheduler.
XL_SCHEDULER = {**SD_SCHEDULER, "timestep_spacing": "leading"}


@directory
def sdxl(model):
    parts = {"vae": kl(scaling_factor=0.13025), "text_encoder": clip(tokens(TINY), hidden_size=24), "text_encoder_2": second(),
             "tokenizer": TINY, "tokenizer_2": BANG, "unet": xl_unet(6, cross_attention_dim=64)}
    model.build(diffusers.StableDiffusionXLPipeline, ("EulerDiscreteScheduler", XL_SCHEDULER), parts,
                {"inpaint": diffusers.StableDiffusionXLInpaintPipeline, "img2img": diffusers.StableDiffusionXLImg2ImgPipeline},
                add_watermarker=False, force_zeros_for_empty_prompt=True)
    asked = {"task": "txt2img", "prompt": SQUARE, "width": 64, "height": 48, "sampler": "euler", "steps": 6, "guidance": 4.0}
    yield {**asked, "name": "zeros", "seed": 10}
    yield {**asked, "name": "negative", "negative_prompt": BAD, "seed": 11}
    yield {**asked, "name": "free", "guidance": 1.0, "width": 48, "height": 64, "sampler": "dpmpp_2m", "seed": 12}
    yield {**asked, "task": "img2img", "name": "img2img", "init": "given-64x48.png", "strength": 0.6, "seed": 12}
    yield {**PAINT, "name": "inpaint", "sampler": "euler", "steps": 6, "strength": 0.8, "seed": 12}
    yield {**PAINT, "name": "inpaint-whole", "sampler": "euler", "steps": 6, "strength": 1.0, "seed": 12}


@directory
def sdxl_inpainting(model):
    parts = {"vae": kl(scaling_factor=0.13025), "text_encoder": clip(tokens(TINY), hidden_size=24), "text_encoder_2": second(),
             "tokenizer": TINY, "tokenizer_2": BANG, "unet": xl_unet(6, cross_attention_dim=64, in_channels=9)}
    model.build(diffusers.StableDiffusionXLInpaintPipeline, ("EulerDiscreteScheduler", XL_SCHEDULER), parts, add_watermarker=False,
                force_zeros_for_empty_prompt=True)
    yield {**PAINT, "name": "part", "sampler": "euler", "steps": 6, "strength": 0.7, "seed": 12}
    yield {**PAINT, "name": "whole", "sampler": "ddim", "steps": 5, "strength": 1.0, "seed": 13}


@directory
def sdxl_refiner(model):
    parts = {"vae": kl(scaling_factor=0.13025), "text_encoder": None, "text_encoder_2": second(), "tokenizer": None,
             "tokenizer_2": BANG, "unet": xl_unet(5, cross_attention_dim=40)}
    model.build(diffusers.StableDiffusionXLImg2ImgPipeline, ("EulerDiscreteScheduler", XL_SCHEDULER), parts, add_watermarker=False,
                force_zeros_for_empty_prompt=False, requires_aesthetics_score=True)
    asked = {"task": "img2img", "prompt": CAT, "width": 64, "height": 48, "init": "given-64x48.png", "guidance": 4.0}
    yield {**asked, "name": "negative", "negative_prompt": BAD, "sampler": "euler", "steps": 8, "strength": 0.5, "seed": 13}
    yield {**asked, "name": "empty", "sampler": "ddim", "steps": 6, "strength": 0.9, "seed": 14}


@directory
def lcm(model):
    parts = text_parts(unet(time_cond_proj_dim=32), kl(scaling_factor=0.18215))
    others = {"img2img": diffusers.LatentConsistencyModelImg2ImgPipeline}
    model.build(diffusers.LatentConsistencyModelPipeline, ("LCMScheduler", SD_SCHEDULER), parts, others, **SAFE)
    asked = {"task": "txt2img", "prompt": CAT, "sampler": "lcm", "width": 64, "height": 48}
    yield {**asked, "name": "four", "steps": 4, "guidance": 8.5, "seed": 15}
    yield {**asked, "name": "two", "steps": 2, "guidance": 1.0, "seed": 16}
    given = {**asked, "task": "img2img", "init": "given-64x48.png", "guidance": 8.5}
    yield {**given, "name": "img2img", "steps": 4, "strength": 0.7, "seed": 17}
    yield {**given, "name": "img2img-whole", "steps": 3, "strength": 1.0, "seed": 18}


# As celebahq-256 has it: what it leaves out is not what latent-diffusion's own sampler does.
LDM_SCHEDULER = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample": False,
                 "num_train_timesteps": 1000, "trained_betas": None}


def plain_unet(**config):
    return UNet2DModel(
        sample_size=16, out_channels=3, norm_num_groups=8, block_out_channels=(32, 48), layers_per_block=1, attention_head_dim=16,
        norm_eps=1e-5, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **({"in_channels": 3} | config),
    )


@directory
def ldm_unconditional(model):
    parts = {"vqvae": vq(), "unet": plain_unet()}
    model.build(diffusers.LDMPipeline, ("DDIMScheduler", LDM_SCHEDULER), parts)
    asked = {"task": "unconditional", "sampler": "ddim", "width": 64, "height": 64}
    yield {**asked, "name": "ten", "steps": 10, "eta": 0.0, "seed": 17}
    yield {**asked, "name": "eta", "steps": 8, "eta": 1.0, "seed": 18}


@directory
def ldm_txt2im(model):
    vocab = len((GOLDENS / BERT / "vocab.txt").read_text(encoding="utf-8").splitlines())
    bert = LDMBertModel(LDMBertConfig(vocab_size=vocab, max_position_embeddings=77, encoder_layers=2, encoder_ffn_dim=64,
                                      encoder_attention_heads=2, head_dim=16, d_model=32))
    parts = {"vqvae": kl((8, 16, 16, 32), scaling_factor=0.18215), "bert": bert, "tokenizer": BERT, "unet": unet()}
    model.build(diffusers.LDMTextToImagePipeline, ("DDIMScheduler", SD_SCHEDULER), parts)
    asked = {"task": "txt2img", "sampler": "ddim", "prompt": CAT, "width": 128, "height": 96, "steps": 5}
    yield {**asked, "name": "guided", "guidance": 5.0, "seed": 19}
    yield {**asked, "name": "free", "guidance": 1.0, "eta": 0.5, "seed": 20}


@directory
def ldm_super_resolution(model):
    parts = {"vqvae": vq(), "unet": plain_unet(in_channels=6)}
    # As newer releases write what older ones left out.
    model.build(diffusers.LDMSuperResolutionPipeline, ("DDIMScheduler", {**LDM_SCHEDULER, "steps_offset": 0}), parts)
    asked = {"task": "super-resolution", "sampler": "ddim", "lr": "given-32x32.png"}
    yield {**asked, "name": "five", "steps": 5, "eta": 0.0, "seed": 21}
    yield {**asked, "name": "eta", "steps": 4, "eta": 1.0, "seed": 22}


# ---- CompVis ----

def forget():
    for name in [name for name in sys.modules if name == "ldm" or name.startswith("ldm.")]:
        del sys.modules[name]


def shims():
    """What the original's imports want and these systems do not use."""
    lightning = types.ModuleType("pytorch_lightning")

    class LightningModule(torch.nn.Module):
        device = property(lambda self: torch.device("cpu"))

    lightning.LightningModule = LightningModule
    distributed = types.ModuleType("pytorch_lightning.utilities.distributed")
    distributed.rank_zero_only = lambda f: f
    utilities = types.ModuleType("pytorch_lightning.utilities")
    torchvision = types.ModuleType("torchvision.utils")
    torchvision.make_grid = None
    stubs = {"pytorch_lightning": lightning, "pytorch_lightning.utilities": utilities,
               "pytorch_lightning.utilities.distributed": distributed, "torchvision": types.ModuleType("torchvision"),
               "torchvision.utils": torchvision, "clip": types.ModuleType("clip"), "kornia": types.ModuleType("kornia"),
             "open_clip": types.ModuleType("open_clip")}
    sys.modules.update({name: module for name, module in stubs.items() if name not in sys.modules})
    forget()
    sys.path[:0] = [str(REFS / "latent-diffusion"), str(REFS / "taming-transformers")]
    ddim = importlib.import_module("ldm.models.diffusion.ddim")
    plms = importlib.import_module("ldm.models.diffusion.plms")
    # Stable Diffusion's has img2img besides.
    spec = importlib.util.spec_from_file_location("later_ddim", REFS / "stable-diffusion/ldm/models/diffusion/ddim.py")
    later = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(later)
    for sampler in (ddim.DDIMSampler, plms.PLMSSampler, later.DDIMSampler):
        sampler.register_buffer = lambda self, name, value: setattr(self, name, value)
    # The vocabulary is our small one.
    fast = transformers.BertTokenizerFast
    read = fast.from_pretrained
    fast.from_pretrained = classmethod(lambda cls, name: read(GOLDENS / BERT))
    instantiate = importlib.import_module("ldm.util").instantiate_from_config
    return types.SimpleNamespace(
        instantiate=instantiate, samplers={"ddim": ddim.DDIMSampler, "plms": plms.PLMSSampler}, later=later.DDIMSampler
    )


def published(start, end, unet_params, stage, cond, **params):
    """A sidecar in the published structure."""
    wrap = lambda target, params: {"target": target, "params": params}  # noqa: E731
    target = params.pop("target", "LatentDiffusion")
    return {"model": {"base_learning_rate": 1e-6, "target": f"ldm.models.diffusion.ddpm.{target}", "params": {
        "linear_start": start, "linear_end": end, "log_every_t": 100, "timesteps": 1000, "first_stage_key": "image",
        "image_size": 16, "channels": unet_params["out_channels"], "monitor": "val/loss", **params,
        "unet_config": wrap("ldm.modules.diffusionmodules.openaimodel.UNetModel",
                            {"image_size": 16, "model_channels": 32, "num_res_blocks": 1, **unet_params}),
        "first_stage_config": stage, "cond_stage_config": wrap(*cond) if isinstance(cond, tuple) else cond,
    }}}


def stage_config(channels=3, mult=(1, 2, 2), n_embed=64, **dd):
    ddconfig = {"double_z": n_embed is None, "z_channels": channels, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
                "ch_mult": list(mult), "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, **dd}
    params = {"embed_dim": channels, "ddconfig": ddconfig, "lossconfig": {"target": "torch.nn.Identity"}}
    if n_embed is None:
        return {"target": "ldm.models.autoencoder.AutoencoderKL", "params": params}
    return {"target": "ldm.models.autoencoder.VQModelInterface", "params": {"n_embed": n_embed, **params}}


FILE = "model.safetensors"


def published_name(name):
    """transformers 5 leaves a prefix out that published files have."""
    text = "cond_stage_model.transformer."
    bare = name.startswith((f"{text}embeddings.", f"{text}encoder.layers.", f"{text}final_layer_norm."))
    return f"{text}text_model.{name.removeprefix(text)}" if bare else name


MODULES = "ldm.modules.encoders.modules."


class Original(Model):
    """A checkpoint of CompVis with its sidecar."""

    def instantiate(self, config):
        global COMPVIS
        if COMPVIS is None:
            COMPVIS = shims()
        return COMPVIS.instantiate(config)

    def build(self, config, card=None):
        (self.dir / "model.toml" if card else self.dir / "model.yaml").write_text(card or yaml.safe_dump(config, sort_keys=False))
        # The original asks for a GPU.
        cond = config["model"]["params"]["cond_stage_config"]
        if isinstance(cond, dict) and "BERT" in cond["target"]:
            cond["params"]["device"] = "cpu"
        if isinstance(cond, dict) and cond["target"] == "torch.nn.Identity":
            cond.setdefault("params", {})
        with contextlib.redirect_stdout(io.StringIO()):
            self.model = self.instantiate(config["model"]).eval()
        if hasattr(self.model.cond_stage_model, "tknz_fn"):
            self.model.cond_stage_model.tknz_fn.device = "cpu"
        shared = cond == "__is_first_stage__"
        tensors = {}
        with torch.no_grad():
            for name, p in self.model.state_dict().items():
                if not p.is_floating_point() and name != "model_ema.num_updates" or shared and name.startswith("cond_stage_model."):
                    continue
                if name.endswith("attn_mask"):
                    continue
                own, name = name, published_name(name)
                tensors[name] = list(p.shape)
                parameter = name.startswith(("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "model_ema.diff"))
                # The rest, buffers of the schedule, is in the file too, with nonsense that nobody may read.
                if parameter or own == "scale_factor":
                    p.copy_(weight(f"{FILE}/{name}", p.shape))
        self.weights[FILE] = tensors
        self.finish()
        return self

    @torch.no_grad()
    def sample(self, asked, shape, cond=None, uncond=None):
        model = self.model
        torch.manual_seed(asked["seed"])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), model.ema_scope():
            latent, _ = COMPVIS.samplers[asked["sampler"]](model).sample(
                S=asked["steps"], batch_size=1, shape=shape, conditioning=cond, eta=asked["eta"], verbose=False,
                unconditional_guidance_scale=asked.get("guidance", 1.0), unconditional_conditioning=uncond,
            )
            return latent, ((model.decode_first_stage(latent) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def img2img(self, asked, cond, uncond):
        """In the order of stable-diffusion's scripts/img2img.py."""
        model = self.model
        torch.manual_seed(asked["seed"])
        image = torch.from_numpy(np.array(opened(asked["init"])).astype(np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), model.ema_scope():
            sampler = COMPVIS.later(model)
            sampler.make_schedule(ddim_num_steps=asked["steps"], ddim_eta=asked["eta"], verbose=False)
            clean = model.get_first_stage_encoding(model.encode_first_stage(image))
            run = int(asked["strength"] * asked["steps"])
            latent = sampler.decode(sampler.stochastic_encode(clean, torch.tensor([run])), cond, run,
                                    unconditional_guidance_scale=asked["guidance"], unconditional_conditioning=uncond)
            return latent, ((model.decode_first_stage(latent) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def run(self, asked):
        latent, image = self.given(asked)
        image = image[0].permute(1, 2, 0).numpy() * 255
        return latent, Image.fromarray(image.astype(np.uint8))

    def shape(self, asked):
        factor = 2 ** (len(self.model.first_stage_model.decoder.up) - 1)
        return [self.model.channels, asked["height"] // factor, asked["width"] // factor]


COMPVIS = None
ORIGINALS = {}


def original(make):
    ORIGINALS["original-" + make.__name__.replace("_", "-")] = make
    return make


ASKED = {"sampler": "ddim", "eta": 0.0, "width": 64, "height": 48}
HEADS = {"num_head_channels": 16}


@original
def unconditional(model):
    unet = {"in_channels": 3, "out_channels": 3, "attention_resolutions": [4, 2], "channel_mult": [1, 2], **HEADS}
    model.build(published(0.0015, 0.0195, unet, stage_config(), "__is_unconditional__", concat_mode=False, cond_stage_trainable=False,
                          cond_stage_key="class_label", num_timesteps_cond=1))
    model.given = lambda asked: model.sample(asked, model.shape(asked))
    yield {**ASKED, "task": "unconditional", "name": "ten", "steps": 10, "seed": 30}
    yield {**ASKED, "task": "unconditional", "name": "eta", "steps": 8, "eta": 1.0, "seed": 31}
    # 1000 steps in strides of ⌊1000 / 12⌋ are 13.
    yield {**ASKED, "task": "unconditional", "name": "odd", "steps": 12, "seed": 32}


@original
def churches(model):
    unet = {"in_channels": 4, "out_channels": 4, "attention_resolutions": [1, 2], "channel_mult": [1, 2, 2], "num_heads": 8,
            "use_scale_shift_norm": True, "resblock_updown": True}
    model.build(published(0.0015, 0.0155, unet, stage_config(4, (1, 2, 2), None), "__is_unconditional__", concat_mode=False,
                          cond_stage_trainable=False, cond_stage_key="image", scale_by_std=True, num_timesteps_cond=1))
    model.given = lambda asked: model.sample(asked, model.shape(asked))
    yield {**ASKED, "task": "unconditional", "name": "ten", "steps": 10, "height": 64, "seed": 33}


# In our own words: a sidecar does not say which class stands for none.
CLASS_CARD = """# A tiny cin256-v2.
name = "classes"
title = "Eleven classes, of which the last stands for none"
source = "tools/goldens/systems.py"
tasks = ["class"]
size_multiple = 8
rounding = "truncate"
unconditional_class = 10

scale_factor = 1.0
conditioning_key = "crossattn"
parameterization = "eps"
ema = "plain"
channels = 3
image_size = 16

[defaults]
sampler = "ddim"
steps = 20
guidance = 3.0
eta = 0.0
width = 64
height = 64

[schedule]
beta_schedule = "linear"
linear_start = 0.0015
linear_end = 0.0195
timesteps = 1000

[first_stage]
kind = "vq"
embed_dim = 3
n_embed = 64

[first_stage.ddconfig]
double_z = false
z_channels = 3
resolution = 256
in_channels = 3
out_ch = 3
ch = 32
ch_mult = [1, 2, 2]
num_res_blocks = 1
attn_resolutions = []

[unet]
in_channels = 3
out_channels = 3
model_channels = 32
attention_resolutions = [2, 1]
num_res_blocks = 1
channel_mult = [1, 2]
num_heads = 1
use_spatial_transformer = true
transformer_depth = 1
context_dim = 24

[[conditioner]]
input = "class_label"
kind = "class"
n_classes = 11
embed_dim = 24
"""


@original
def classes(model):
    unet = {"in_channels": 3, "out_channels": 3, "attention_resolutions": [2, 1], "channel_mult": [1, 2], "num_heads": 1,
            "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 24}
    cond = (MODULES + "ClassEmbedder", {"n_classes": 11, "embed_dim": 24, "key": "class_label"})
    model.build(published(0.0015, 0.0195, unet, stage_config(), cond, cond_stage_trainable=True, conditioning_key="crossattn",
                          cond_stage_key="class_label", use_ema=False, num_timesteps_cond=1), CLASS_CARD)

    def given(asked):
        embed = lambda label: model.model.get_learned_conditioning({"class_label": torch.tensor([label])})  # noqa: E731
        uncond = embed(10) if asked["guidance"] != 1 else None
        return model.sample(asked, model.shape(asked), embed(asked["class"]), uncond)

    model.given = given
    yield {**ASKED, "task": "class", "name": "guided", "steps": 10, "class": 3, "guidance": 3.0, "seed": 34}
    yield {**ASKED, "task": "class", "name": "free", "steps": 8, "class": 9, "guidance": 1.0, "eta": 1.0, "seed": 35}


BOXES = [{"label": 2, "bbox": [0.1, 0.2, 0.5, 0.3]}, {"label": 5, "bbox": [0.45, 0.05, 0.5, 0.9], "is_occluded": True}]


@original
def layout(model):
    unet = {"in_channels": 3, "out_channels": 3, "attention_resolutions": [2], "channel_mult": [1, 2], **HEADS,
            "use_spatial_transformer": True, "transformer_depth": 2, "context_dim": 24}
    cond = (MODULES + "BERTEmbedder", {"n_embed": 24, "n_layer": 2, "vocab_size": 100, "max_seq_len": 11, "use_tokenizer": False})
    model.build(published(0.0015, 0.0205, unet, stage_config(), cond, cond_stage_trainable=True, conditioning_key="crossattn",
                          cond_stage_key="coordinates_bbox"))
    labels, side = 100 // 16, 10

    def given(asked):
        corner = lambda x, y: round(y * (side - 1)) * side + round(x * (side - 1))  # noqa: E731
        ids = []
        for box in asked["boxes"]:
            x, y, width, height = box["bbox"]
            ids += [box["label"] + labels * 2 * box.get("is_occluded", False), corner(x, y), corner(x + width, y + height)]
        ids += [99] * (9 - len(ids)) + [corner(0, 0), corner(1, 1)]
        return model.sample(asked, model.shape(asked), model.model.get_learned_conditioning(torch.tensor([ids])))

    model.given = given
    yield {**ASKED, "task": "layout", "name": "boxes", "steps": 10, "boxes": BOXES, "seed": 36}


@original
def semantic(model):
    unet = {"in_channels": 6, "out_channels": 3, "attention_resolutions": [32, 16, 8], "channel_mult": [1, 2], "num_heads": 8}
    cond = (MODULES + "SpatialRescaler", {"n_stages": 2, "in_channels": 7, "out_channels": 3})
    model.build(published(0.0015, 0.0205, unet, stage_config(), cond, cond_stage_trainable=True, concat_mode=True,
                          cond_stage_key="segmentation"))

    def given(asked):
        labels = torch.from_numpy(np.array(opened(asked["semantic"]))).long()[None]
        planes = torch.nn.functional.one_hot(labels, 7).permute(0, 3, 1, 2).float()
        return model.sample(asked, model.shape(asked), model.model.get_learned_conditioning(planes))

    model.given = given
    yield {**ASKED, "task": "semantic", "name": "map", "steps": 10, "semantic": "labels-64x48.png", "seed": 37}


@torch.no_grad()
def tiles(model):
    """A small picture of 256×192, larger than the 128 that the notebook's `split_input_params` cut; its pixels are counted out."""
    height, width = 192, 256
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    low = ((x * 3 + y * 5 + (x * y) // 64 + c * 80) % 256).astype(np.float32) / 255
    low = torch.from_numpy(low).permute(2, 0, 1)[None] * 2 - 1
    sides = {"ks": (128, 128), "stride": (64, 64), "vqf": 4, "patch_distributed_vq": False, "tie_braker": False}
    # As notebook_helpers.py has them.
    sides |= {"clip_max_weight": 0.5, "clip_min_weight": 0.01, "clip_max_tie_weight": 0.5, "clip_min_tie_weight": 0.01}
    asked = {"sampler": "ddim", "steps": 2, "eta": 0.0, "seed": 48}
    latents = {}
    for name in ("whole", "tiles"):
        if name == "tiles":
            model.model.split_input_params = sides
        torch.manual_seed(asked["seed"])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), model.model.ema_scope():
            latents[name], _ = COMPVIS.samplers["ddim"](model.model).sample(
                S=asked["steps"], batch_size=1, shape=[3, height, width], conditioning=low, eta=0.0, verbose=False)
    del model.model.split_input_params
    off = (latents["tiles"] - latents["whole"]).abs().max() / latents["whole"].abs().max()
    print(f"tiles: {off:.1e} from the whole", flush=True)
    assert off > 1e-3
    save_file({"latent": latents["tiles"][:, :, ::4, ::4].contiguous()}, OUT / "tiles.safetensors")


@original
def super_resolution(model):
    unet = {"in_channels": 6, "out_channels": 3, "attention_resolutions": [16, 8], "channel_mult": [1, 2, 2, 2], **HEADS}
    model.build(published(0.0015, 0.0155, unet, stage_config(), {"target": "torch.nn.Identity"}, cond_stage_trainable=False,
                          concat_mode=True, cond_stage_key="LR_image"))

    def given(asked):
        low = torch.from_numpy(np.array(opened(asked["lr"])).astype(np.float32) / 255).permute(2, 0, 1)[None] * 2 - 1
        height, width = low.shape[2:]
        # The network halves three times and fails at other sizes: those are ours, filled with the last row and column, and cut.
        low = torch.nn.functional.pad(low, (0, -width % 8, 0, -height % 8), mode="replicate")
        latent, image = model.sample(asked, [3, *low.shape[2:]], low)
        return latent, image[:, :, : 4 * height, : 4 * width]

    model.given = given
    tiles(model)
    asked = {"task": "super-resolution", "sampler": "ddim", "lr": "given-24x16.png"}
    yield {**asked, "name": "eta", "steps": 10, "eta": 1.0, "seed": 38}
    yield {**asked, "name": "five", "steps": 5, "eta": 0.0, "lr": "given-16x24.png", "seed": 39}
    yield {**asked, "name": "padded", "steps": 5, "eta": 0.0, "lr": "given-21x13.png", "seed": 47}


@original
def inpainting(model):
    unet = {"in_channels": 7, "out_channels": 3, "attention_resolutions": [4, 2], "channel_mult": [1, 2], "num_heads": 8,
            "resblock_updown": True}
    model.build(published(0.0015, 0.0205, unet, stage_config(attn_type="none"), "__is_first_stage__", concat_mode=True,
                          cond_stage_key="masked_image", loss_type="l1"))

    def given(asked):
        # The order of scripts/inpaint.py.
        image = torch.from_numpy(np.array(opened(asked["init"])).astype(np.float32) / 255).permute(2, 0, 1)[None]
        mask = torch.from_numpy((np.array(opened(asked["mask"])).astype(np.float32) / 255 >= 0.5).astype(np.float32))[None, None]
        masked = (1 - mask) * image * 2 - 1
        c = model.model.cond_stage_model.encode(masked)
        cc = torch.nn.functional.interpolate(mask * 2 - 1, size=c.shape[-2:])
        latent, painted = model.sample(asked, model.shape(asked), torch.cat((c, cc), dim=1))
        return latent, (1 - mask) * image + mask * painted

    model.given = given
    asked = {**ASKED, "task": "inpaint", "init": "given-64x48.png", "mask": "mask-64x48.png"}
    yield {**asked, "name": "ten", "steps": 10, "seed": 40}


@original
def txt2img(model):
    unet = {"in_channels": 4, "out_channels": 4, "attention_resolutions": [2, 1], "channel_mult": [1, 2], "num_heads": 8,
            "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 32, "use_checkpoint": True, "legacy": False}
    vocab = len((GOLDENS / BERT / "vocab.txt").read_text(encoding="utf-8").splitlines())
    cond = (MODULES + "BERTEmbedder", {"n_embed": 32, "n_layer": 2, "vocab_size": vocab})
    model.copies["tokenizer"] = BERT
    model.build(published(0.00085, 0.012, unet, stage_config(4, (1, 2, 2), None), cond, cond_stage_trainable=True,
                          conditioning_key="crossattn", cond_stage_key="caption", scale_factor=0.18215, use_ema=False,
                          num_timesteps_cond=1))

    def given(asked):
        c, uc = (model.model.get_learned_conditioning([text]) for text in (asked["prompt"], ""))
        return model.img2img(asked, c, uc) if "init" in asked else model.sample(asked, model.shape(asked), c, uc)

    model.given = given
    asked = {**ASKED, "task": "txt2img", "prompt": CAT, "guidance": 5.0}
    yield {**asked, "name": "guided", "steps": 10, "seed": 41}
    yield {**asked, "name": "plms", "sampler": "plms", "steps": 10, "seed": 42}
    yield {**asked, "name": "plms-odd", "sampler": "plms", "steps": 12, "seed": 43}
    yield {**asked, "task": "img2img", "name": "img2img", "steps": 10, "init": "given-64x48.png", "strength": 0.6, "seed": 44}


@original
def retrieval(model):
    unet = {"in_channels": 16, "out_channels": 16, "attention_resolutions": [2, 1], "channel_mult": [1, 2], **HEADS,
            "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 24, "use_checkpoint": True}
    model.build(published(0.0015, 0.015, unet, stage_config(16, (1, 1, 1, 2, 2), None, attn_resolutions=[16]),
                          {"target": "torch.nn.Identity"}, cond_stage_trainable=False, conditioning_key="crossattn",
                          cond_stage_key="nix", first_stage_key="jpg", scale_by_std=False, scale_factor=0.22765929, num_timesteps_cond=1))

    def given(asked):
        c = torch.tensor([asked["neighbors"]])
        c = c / torch.linalg.norm(c, dim=-1, keepdim=True)
        return model.sample(asked, model.shape(asked), c, torch.zeros_like(c))

    model.given = given
    neighbors = [[round(x, 3) for x in uniform(f"neighbor {i}", 24).tolist()] for i in range(3)]
    asked = {"task": "rdm", "sampler": "ddim", "eta": 0.0, "width": 128, "height": 96, "guidance": 5.0, "steps": 10}
    yield {**asked, "name": "neighbors", "neighbors": neighbors, "seed": 45}
    yield {**asked, "name": "alone", "neighbors": neighbors[:1], "seed": 46, "guidance": 1.0}


# ---- Stability ----

STABILITY = None


class Stability(Original):
    """A checkpoint of Stable Diffusion, run by Stability's code, which holds what CompVis' does."""

    def instantiate(self, config):
        global STABILITY, COMPVIS
        if STABILITY is None:
            COMPVIS = COMPVIS or shims()
            forget()
            sys.path.insert(0, str(REFS / "stablediffusion"))
            open_clip = sys.modules["open_clip"]

            def tower(*_, **__):
                model = OpenClipText(len(tokens(TINY)), 64, 1, 96, 24, 77, 64)
                model.visual, model.transformer.grad_checkpointing = None, False
                return model, None, None

            open_clip.create_model_and_transforms = tower
            # OpenCLIP fills with zeros.
            open_clip.tokenize = lambda text: tokens(BANG)(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
            modules = importlib.import_module("ldm.modules.encoders.modules")
            modules.CLIPTokenizer = types.SimpleNamespace(from_pretrained=lambda _: tokens(TINY))
            text = lambda _: clip(tokens(TINY), hidden_size=64, num_attention_heads=1, num_hidden_layers=2)  # noqa: E731
            modules.CLIPTextModel = types.SimpleNamespace(from_pretrained=text)
            STABILITY = types.SimpleNamespace(instantiate=importlib.import_module("ldm.util").instantiate_from_config,
                                              sampler=importlib.import_module("ldm.models.diffusion.ddim").DDIMSampler)
        config["params"]["cond_stage_config"].setdefault("params", {})["device"] = "cpu"
        config["params"]["unet_config"]["params"]["use_checkpoint"] = False
        if "depth_stage_config" in config["params"]:
            # Its map is given.
            config["params"]["depth_stage_config"] = {"target": "torch.nn.Identity"}
        return STABILITY.instantiate(config)

    def conditions(self, asked, **more):
        """Both rows, in the order of the scripts: the prompt is all that they differ in."""
        for text in (asked["prompt"], asked.get("negative_prompt", "")):
            yield {"c_crossattn": [self.model.get_learned_conditioning([text])], **more}

    def picture(self, name):
        # As the scripts have it: of other strides, `randn_like` draws in another order.
        return torch.from_numpy(np.array(opened(name)).astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous() * 2 - 1

    def latent(self, picture):
        return self.model.get_first_stage_encoding(self.model.encode_first_stage(picture))

    def decoded(self, latent):
        return latent, ((self.model.decode_first_stage(latent) + 1) / 2).clamp(0, 1)

    def from_noise(self, asked, x, cond, uncond):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            latent, _ = STABILITY.sampler(self.model, device=torch.device("cpu")).sample(
                S=asked["steps"], batch_size=1, shape=x.shape[1:], conditioning=cond, eta=0.0, verbose=False, x_T=x,
                unconditional_guidance_scale=asked["guidance"], unconditional_conditioning=uncond,
            )
        return self.decoded(latent)

    def from_picture(self, asked, clean, cond, uncond):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            sampler = STABILITY.sampler(self.model, device=torch.device("cpu"))
            sampler.make_schedule(ddim_num_steps=asked["steps"], ddim_eta=0.0, verbose=False)
            run = int(asked["strength"] * asked["steps"])
            latent = sampler.decode(sampler.stochastic_encode(clean, torch.tensor([run])), cond, run,
                                    unconditional_guidance_scale=asked["guidance"], unconditional_conditioning=uncond)
        return self.decoded(latent)


STABILITIES = {}


def stability(make):
    STABILITIES["stability-" + make.__name__.replace("_", "-")] = make
    return make


CLIP_L = (MODULES + "FrozenCLIPEmbedder", {})
CLIP_H = (MODULES + "FrozenOpenCLIPEmbedder", {"freeze": True, "layer": "penultimate"})
# As their scripts have it, with a negative prompt where those have none but the empty one.
SAID = {**ASKED, "prompt": SQUARE, "negative_prompt": BAD, "guidance": 5.0, "steps": 10}


def sd_config(cond, channels=4, start=0.00085, end=0.012, scale=0.18215, key="crossattn", unet=(), **params):
    unet = {"use_checkpoint": True, "in_channels": channels, "out_channels": 4, "attention_resolutions": [2, 1], "channel_mult": [1, 2],
            "num_head_channels": 16, "use_spatial_transformer": True, "use_linear_in_transformer": True, "transformer_depth": 1,
            "context_dim": 64, "legacy": False} | dict(unet)
    unet = {name: value for name, value in unet.items() if value is not None}
    return published(start, end, unet, stage_config(4, (1, 2, 2), None), cond, cond_stage_trainable=False, conditioning_key=key,
                     first_stage_key="jpg", cond_stage_key="txt", scale_factor=scale, use_ema=False, num_timesteps_cond=1, **params)


@stability
def one(model):
    unet = {"num_head_channels": None, "num_heads": 8, "use_linear_in_transformer": None}
    model.copies["tokenizer"] = TINY
    model.build(sd_config(CLIP_L, unet=unet))

    def given(asked):
        torch.manual_seed(asked["seed"])
        if "init" in asked:
            return model.from_picture(asked, model.latent(model.picture(asked["init"])), *model.conditions(asked))
        return model.from_noise(asked, torch.randn(1, *model.shape(asked)), *model.conditions(asked))

    model.given = given
    yield {**SAID, "task": "txt2img", "name": "ten", "seed": 50}
    yield {**SAID, "task": "img2img", "name": "img2img", "init": "given-64x48.png", "strength": 0.7, "seed": 51}


@stability
def two(model):
    model.copies["tokenizer"] = TINY
    model.build(sd_config(CLIP_H, parameterization="v"))

    def given(asked):
        torch.manual_seed(asked["seed"])
        return model.from_noise(asked, torch.randn(1, *model.shape(asked)), *model.conditions(asked))

    model.given = given
    yield {**SAID, "task": "txt2img", "name": "ten", "seed": 52}


@stability
def inpainting(model):
    model.copies["tokenizer"] = TINY
    model.build(sd_config(CLIP_H, 9, key="hybrid", target="LatentInpaintDiffusion", finetune_keys=None))

    def given(asked):
        torch.manual_seed(asked["seed"])
        # The script draws this with numpy.
        x = torch.randn(1, *model.shape(asked))
        mask = torch.from_numpy((np.array(opened(asked["mask"])).astype(np.float32) / 255 >= 0.5).astype(np.float32))[None, None]
        masked = model.picture(asked["init"]) * (mask < 0.5)
        concat = torch.cat([torch.nn.functional.interpolate(mask, size=x.shape[2:]), model.latent(masked)], dim=1)
        return model.from_noise(asked, x, *model.conditions(asked, c_concat=[concat]))

    model.given = given
    yield {**SAID, "task": "inpaint", "name": "ten", "init": "given-64x48.png", "mask": "mask-64x48.png", "seed": 53}


@stability
def upscaler(model):
    low = {"target": "ldm.modules.diffusionmodules.upscaling.ImageConcatWithNoiseAugmentation",
           "params": {"noise_schedule_config": {"linear_start": 0.0001, "linear_end": 0.02}, "max_noise_level": 350}}
    unet = {"num_classes": 400, "num_head_channels": None, "num_heads": 8, "disable_self_attentions": [True, False],
            "disable_middle_self_attn": False}
    model.copies["tokenizer"] = TINY
    model.build(sd_config(CLIP_H, 7, 0.0001, 0.02, 0.08333, "hybrid-adm", unet, target="LatentUpscaleDiffusion", parameterization="v",
                          low_scale_key="lr", low_scale_config=low))

    def given(asked):
        torch.manual_seed(asked["seed"])
        noised, level = model.model.low_scale_model(model.picture(asked["lr"]), torch.tensor([asked["noise_level"]]))
        # The script draws this with numpy.
        x = torch.randn(1, 4, *noised.shape[2:])
        return model.from_noise(asked, x, *model.conditions(asked, c_concat=[noised], c_adm=level))

    model.given = given
    asked = {key: value for key, value in SAID.items() if key not in ("width", "height")}
    yield {**asked, "task": "super-resolution", "name": "ten", "lr": "given-24x16.png", "noise_level": 33, "seed": 54}


@stability
def depth(model):
    model.copies["tokenizer"] = TINY
    model.build(sd_config(CLIP_H, 5, key="hybrid", target="LatentDepth2ImageDiffusion", finetune_keys=None,
                          depth_stage_config={"target": "ldm.modules.midas.api.MiDaSInference", "params": {"model_type": "dpt_hybrid"}}))

    def given(asked):
        torch.manual_seed(asked["seed"])
        clean = model.latent(model.picture(asked["init"]))
        depth = torch.from_numpy(np.array(opened(asked["depth"])).astype(np.float32))[None, None]
        depth = torch.nn.functional.interpolate(depth, size=clean.shape[2:], mode="bicubic", align_corners=False)
        depth = 2 * (depth - depth.min()) / (depth.max() - depth.min()) - 1
        return model.from_picture(asked, clean, *model.conditions(asked, c_concat=[depth]))

    model.given = given
    yield {**SAID, "task": "depth", "name": "ten", "init": "given-64x48.png", "depth": "depth-64x48.png", "strength": 0.7, "seed": 55}


# ---- generative-models ----

class Sgm(Model):
    """A checkpoint of Stable Diffusion XL: networks of the original classes, put together by hand as its paper says. The steps are
    diffusers' DDIM, since a checkpoint has no sampler of its own."""

    def build(self, sidecar, prefixes):
        config = yaml.safe_load((GOLDENS / "formats/sidecars" / sidecar).read_text())
        params = config["model"]["params"]
        first = prefixes[0] == "transformer."
        unet = params["network_config"]["params"]
        depth = [1, 2] if first else 1
        unet |= {"adm_in_channels": 24 + 256 * (6 if first else 5), "model_channels": 32, "attention_resolutions": [2],
                 "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 16, "transformer_depth": depth,
                 "context_dim": 128 if first else [64, 64]}
        stage = params["first_stage_config"]["params"]
        stage["ddconfig"] |= {"ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1}
        (self.dir / "model.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.copies["tokenizer"] = TINY
        global COMPVIS
        COMPVIS = COMPVIS or shims()
        forget()
        kl = importlib.import_module("ldm.models.autoencoder").AutoencoderKL
        self.stage = self.fill(kl(**stage | {"ddconfig": stage["ddconfig"] | {"attn_type": "vanilla"}}), FILE, "first_stage_model.")
        plain = {"spatial_transformer_attn_type": "softmax", "use_checkpoint": False}
        self.unet = self.fill(original_class("generative-models")(**unet | plain), FILE, "model.diffusion_model.")
        self.first = None
        for index, prefix in enumerate(prefixes):
            if prefix == "transformer.":
                at = f"conditioner.embedders.{index}.transformer.text_model."
                text = clip(tokens(TINY), hidden_size=64, num_attention_heads=1)
                self.first = self.fill(text, FILE, at.removesuffix("text_model.") if has_prefix(text) else at)
            else:
                self.second = OpenClipText(len(tokens(TINY)), 64, 1, 96, 4, 77, 24)
                self.fill(self.second, FILE, f"conditioner.embedders.{index}.model.")
        self.scale = params["scale_factor"]
        self.finish()
        return self

    def condition(self, prompt, asked, score):
        """Tokens, and the vector beside the timestep."""
        ids = lambda folder: tokens(folder)(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids  # noqa: E731
        states = self.second.states(ids(BANG))
        pooled, hidden = self.second.pool(self.second.ln_final(states[-1]), ids(BANG)), states[-2]
        numbers = [asked["height"], asked["width"], 0, 0]
        if self.first:
            # hidden_states[11] of twelve layers: the last but one.
            hidden = torch.cat([self.first(ids(TINY), output_hidden_states=True).hidden_states[-2], hidden], dim=-1)
            numbers += [asked["height"], asked["width"]]
            if not prompt:
                hidden, pooled = torch.zeros_like(hidden), torch.zeros_like(pooled)
        else:
            numbers += [score]
        numbers = get_timestep_embedding(torch.tensor(numbers, dtype=torch.float32), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
        return hidden, torch.cat([pooled, numbers.reshape(1, -1)], dim=-1)

    @torch.no_grad()
    def run(self, asked):
        uncond, cond = self.condition(asked.get("negative_prompt", ""), asked, 2.5), self.condition(asked["prompt"], asked, 6.0)
        tokens_, vector = (torch.cat(pair) for pair in zip(uncond, cond))
        scheduler = diffusers.DDIMScheduler(**SD_SCHEDULER)
        scheduler.set_timesteps(asked["steps"])
        torch.manual_seed(asked["seed"])
        x = torch.randn(1, 4, asked["height"] // 4, asked["width"] // 4)
        for t in scheduler.timesteps:
            low, high = self.unet(torch.cat([x, x]), t.repeat(2), context=tokens_, y=vector).chunk(2)
            x = scheduler.step(low + asked["guidance"] * (high - low), t, x).prev_sample
        image = ((self.stage.decode(x / self.scale)[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy() * 255
        return x, Image.fromarray(image.astype(np.uint8))


def sdxl_base(model):
    model.build("sdxl-base.yaml", ["transformer.", "model."])
    yield {**SAID, "task": "txt2img", "name": "negative", "seed": 60}
    yield {**SAID, "task": "txt2img", "name": "zeros", "negative_prompt": "", "seed": 61}


def sdxl_refiner_file(model):
    model.build("sdxl-refiner.yaml", ["model."])
    yield {**SAID, "task": "txt2img", "name": "negative", "seed": 62}
    yield {**SAID, "task": "txt2img", "name": "empty", "negative_prompt": "", "seed": 63}


SGMS = {"stability-sdxl": sdxl_base, "stability-refiner": sdxl_refiner_file}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    given()
    wanted = sys.argv[2:]
    records, latents = [], {}
    if wanted and (OUT / "cases.json").exists():
        records = [record for record in json.loads((OUT / "cases.json").read_text()) if record["model"] not in wanted]
        old = load_file(OUT / "latents.safetensors")
        latents = {f"{record['model']}.{record['name']}": old[f"{record['model']}.{record['name']}"] for record in records}
    for kind, makers in ((Directory, DIRECTORIES), (Original, ORIGINALS), (Stability, STABILITIES), (Sgm, SGMS)):
        for name, make in makers.items():
            if wanted and name not in wanted:
                continue
            model = kind(name)
            for asked in make(model):
                latent, image = model.run(asked)
                key = f"{name}.{asked['name']}"
                assert torch.isfinite(latent).all(), key
                values = np.asarray(image)
                inside = 100 * ((values > 0) & (values < 255)).mean()
                print(f"{key}: {tuple(latent.shape)}, latent std {latent.std():.2f}, {inside:.0f} % of the picture not saturated", flush=True)
                latents[key] = latent.contiguous()
                image.save(model.dir / f"{asked['name']}.png", optimize=True)
                records.append({"model": name, **asked})
    every = [*DIRECTORIES, *ORIGINALS, *STABILITIES, *SGMS]
    records.sort(key=lambda record: every.index(record["model"]))
    save_file(latents, OUT / "latents.safetensors")
    lines = ",\n".join(json.dumps(record) for record in records)
    (OUT / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
