"""Writes tests/goldens/unets/: what the original denoisers and diffusers' make of small configurations of every system, and the
number of parameters and names of every published one.

    OMP_NUM_THREADS=1 python tools/goldens/unets.py REFS

REFS holds checkouts of CompVis/latent-diffusion (a506df57), CompVis/stable-diffusion (21f890f9), Stability-AI/stablediffusion
(cf1d67a6) and Stability-AI/generative-models (0ad7de9a) under their own names. Needs torch 2.11, diffusers 0.42.1, einops,
omegaconf, PyYAML.

No weights are stored: `formula` makes every tensor from its name, its shape and integers alone, and the tests do the same. A
network under original names and its twin under diffusers' names are thus two networks; that the names stand for the same thing is
asserted here by moving original weights into the diffusers class, and in the tests by loading both.
"""
import importlib.util
import json
import math
import pathlib
import sys
import types

import numpy as np
import torch
import yaml
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import LatentConsistencyModelPipeline
from safetensors.torch import save_file

REFS = pathlib.Path(sys.argv[1])
OUT = pathlib.Path(__file__).parents[2] / "tests/goldens/unets"
MASK = (1 << 64) - 1


def fnv1a(text):
    """64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def uniform(name, count):
    """`count` numbers of variance 1 and mean 0: splitmix64 seeded with the name's hash, the upper 24 bits of each output."""
    z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1) * math.sqrt(3)


def formula(name, shape, gain=1.0):
    """Weights of variance 1/fan_in, norms 1 ± 0.1, biases 0.1."""
    x = gain * uniform(name, math.prod(shape))
    if len(shape) == 1:
        x = 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    else:
        x = x / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32)).reshape(shape)


def given(name, *shape):
    return torch.from_numpy(uniform(name, math.prod(shape)).astype(np.float32)).reshape(shape)


# What stays as it is in a quiet network, besides norms.
LOUD = ("qkv", "to_q", "to_k", "net.0.proj", "time_embed", "out.2.")


@torch.no_grad()
def fill(model, quiet=False):
    """In a quiet network what is added to the stream is a tenth, so that the ε of every norm shows."""
    for name, p in model.named_parameters():
        norm = p.dim() == 1 and name.endswith("weight")
        gain = 0.1 if quiet and not norm and not any(part in name for part in LOUD) else 1.0
        p.copy_(formula(name, p.shape, gain))
    return model.eval().requires_grad_(False)


# ---- the originals ----

def forget(root):
    for name in [name for name in sys.modules if name == root or name.startswith(root + ".")]:
        del sys.modules[name]


def original_class(repository):
    """`UNetModel` of one of the repositories, without what its packages drag in."""
    forget("ldm"), forget("sgm")
    root = REFS / repository / ("sgm" if repository == "generative-models" else "ldm")
    for package in ["", ".modules", ".modules.diffusionmodules"]:
        module = types.ModuleType(root.name + package)
        module.__path__ = [str(root / package[1:].replace(".", "/"))]
        sys.modules[module.__name__] = module
    if root.name == "ldm":
        util = types.ModuleType("ldm.util")
        util.exists = lambda x: x is not None
        util.default = lambda value, other: value if value is not None else other() if callable(other) else other
        util.instantiate_from_config = None
        sys.modules["ldm.util"] = util
    else:
        util = types.ModuleType("sgm.util")
        util.exists = lambda x: x is not None
        util.default = lambda value, other: value if value is not None else other() if callable(other) else other
        util.instantiate_from_config = util.get_string_from_tuple = None
        sys.modules["sgm.util"] = util
        video = types.ModuleType("sgm.modules.video_attention")
        video.SpatialVideoTransformer = type("SpatialVideoTransformer", (torch.nn.Module,), {})
        sys.modules["sgm.modules.video_attention"] = video
        # Imported inside a forward pass, for isinstance alone.
        for name, classes in [
            ("sgm.modules.diffusionmodules.video_model", ["VideoResBlock", "PostHocResBlockWithTime"]),
            ("sgm.modules.spacetime_attention", [
                "BasicTransformerTimeMixBlock", "PostHocSpatialTransformerWithTimeMixing",
                "PostHocSpatialTransformerWithTimeMixingAndMotion",
            ]),
        ]:
            module = types.ModuleType(name)
            for attribute in classes:
                setattr(module, attribute, type(attribute, (torch.nn.Module,), {}))
            sys.modules[name] = module
    return importlib.import_module(f"{root.name}.modules.diffusionmodules.openaimodel").UNetModel


# ---- the move from original names to diffusers', by what each sub-module holds ----

def moved(state, layers, heads, add="class_embedding"):
    """Original weights under diffusers' names: `layers` residual blocks per level, `heads` by channels."""
    out = {}

    def resnet(to, part, tensor):
        names = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
                 "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
        inner, leaf = part.rsplit(".", 1)
        out[f"{to}.{names[inner]}.{leaf}"] = tensor

    def place(at, to_level, layer, part, tensor, up):
        """`part` of the sub-module `at`, with the keys that it has besides."""
        keys = [key[len(at) + 1:] for key in state if key.startswith(at + ".")]
        if any(key.startswith("in_layers") for key in keys):
            first = at.endswith(".0") and layer is not None
            to = f"{to_level}.resnets.{layer}" if first else f"{to_level}.{'up' if up else 'down'}samplers.0"
            resnet(to, part, tensor)
        elif any(key.startswith("qkv") for key in keys):
            to = f"{to_level}.attentions.{layer}"
            inner, leaf = part.rsplit(".", 1)
            if inner == "qkv":
                n = heads(tensor.shape[0] // 3)
                thirds = tensor.reshape(n, 3, tensor.shape[0] // 3 // n, -1)
                for i, name in enumerate(["to_q", "to_k", "to_v"]):
                    piece = thirds[:, i].reshape(tensor.shape[0] // 3, -1)
                    out[f"{to}.{name}.{leaf}"] = piece if leaf == "weight" else piece[:, 0]
            elif inner == "proj_out":
                out[f"{to}.to_out.0.{leaf}"] = tensor[..., 0] if leaf == "weight" else tensor
            else:
                out[f"{to}.group_norm.{leaf}"] = tensor
        elif any(key.startswith("transformer_blocks") for key in keys):
            out[f"{to_level}.attentions.{layer}.{part}"] = tensor
        elif keys[0].startswith("op"):
            out[f"{to_level}.downsamplers.0.{part.replace('op', 'conv')}"] = tensor
        else:
            out[f"{to_level}.upsamplers.0.{part}"] = tensor

    for name, tensor in state.items():
        words = name.split(".")
        if words[0] == "time_embed":
            out[f"time_embedding.linear_{1 + int(words[1]) // 2}.{words[2]}"] = tensor
        elif name == "label_emb.weight":
            out["class_embedding.weight"] = tensor
        elif words[0] == "label_emb":
            out[f"{add}.linear_{1 + int(words[2]) // 2}.{words[3]}"] = tensor
        elif words[0] == "out":
            out[f"{'conv_norm_out' if words[1] == '0' else 'conv_out'}.{words[2]}"] = tensor
        elif name.startswith("input_blocks.0."):
            out[f"conv_in.{words[3]}"] = tensor
        elif words[0] == "input_blocks":
            block, layer = divmod(int(words[1]) - 1, layers + 1)
            place(".".join(words[:3]), f"down_blocks.{block}", layer if layer < layers else None, ".".join(words[3:]), tensor, False)
        elif words[0] == "output_blocks":
            block, layer = divmod(int(words[1]), layers + 1)
            place(".".join(words[:3]), f"up_blocks.{block}", layer, ".".join(words[3:]), tensor, True)
        else:
            layer = {"0": 0, "1": 0, "2": 1}[words[1]]
            at = ".".join(words[:2])
            if words[1] == "1":
                place(at, "mid_block", 0, ".".join(words[2:]), tensor, False)
            else:
                resnet(f"mid_block.resnets.{layer}", ".".join(words[2:]), tensor)
    return out


# ---- the rows ----

CROSS, PLAIN, ATTN = "CrossAttn", "", "Attn"


def blocks(*levels, resnet=()):
    """Types down and up: one word per level; levels in `resnet` change resolution by residual blocks without attention."""
    down = [f"{word}DownBlock2D" for word in levels]
    up = [f"{word}UpBlock2D" for word in levels]
    for level in resnet:
        down[level], up[level] = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
    return {"down_block_types": down, "up_block_types": up[::-1]}


def plain(**config):
    return UNet2DModel, config


def cross(**config):
    return UNet2DConditionModel, config


LDM, SD, SD2, SGM = "latent-diffusion", "stable-diffusion", "stablediffusion", "generative-models"
ST = {"use_spatial_transformer": True}
SD2_PARAMS = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 1, "channel_mult": [1, 2, 3, 3], "num_head_channels": 16, **ST, "use_linear_in_transformer": True,
    "transformer_depth": 1, "context_dim": 24, "legacy": False,
}
SD2_TWIN = dict(
    in_channels=4, out_channels=4, block_out_channels=[32, 64, 96, 96], layers_per_block=1, cross_attention_dim=24,
    attention_head_dim=[2, 4, 6, 6], use_linear_projection=True, **blocks(CROSS, CROSS, CROSS, PLAIN),
)
SD1_PARAMS = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 1, "channel_mult": [1, 2, 3, 3], "num_heads": 8, **ST, "transformer_depth": 1, "context_dim": 24,
    "use_checkpoint": True, "legacy": False,
}
SD1_TWIN = dict(
    in_channels=4, out_channels=4, block_out_channels=[32, 64, 96, 96], layers_per_block=1, cross_attention_dim=24,
    attention_head_dim=8, **blocks(CROSS, CROSS, CROSS, PLAIN),
)

# name: (repository, params, twin); the repository is None where there is a diffusers class alone.
ROWS = {
    "unconditional": (
        LDM,
        {"image_size": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [4, 2],
         "num_res_blocks": 2, "channel_mult": [1, 2, 3], "num_head_channels": 16},
        plain(block_out_channels=[32, 64, 96], attention_head_dim=16, **blocks(PLAIN, ATTN, ATTN)),
    ),
    "churches": (
        LDM,
        {"image_size": 16, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [1, 2],
         "num_res_blocks": 1, "channel_mult": [1, 2, 2], "num_heads": 8, "use_scale_shift_norm": True, "resblock_updown": True},
        None,
    ),
    "churches-equal": (
        LDM,
        {"image_size": 16, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [1, 2],
         "num_res_blocks": 1, "channel_mult": [1, 1, 1], "num_heads": 4, "use_scale_shift_norm": True, "resblock_updown": True},
        plain(
            in_channels=4, out_channels=4, block_out_channels=[32, 32, 32], layers_per_block=1, attention_head_dim=8,
            downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift", attn_norm_num_groups=32,
            **blocks(ATTN, ATTN, PLAIN, resnet=[2]),
        ),
    ),
    "inpainting-big": (
        LDM,
        {"image_size": 16, "in_channels": 7, "out_channels": 3, "model_channels": 32, "attention_resolutions": [4, 2],
         "num_res_blocks": 1, "channel_mult": [1, 2, 3], "num_heads": 8, "resblock_updown": True},
        None,
    ),
    "semantic": (
        LDM,
        {"image_size": 16, "in_channels": 6, "out_channels": 3, "model_channels": 32, "attention_resolutions": [32, 16, 8],
         "num_res_blocks": 1, "channel_mult": [1, 2, 4], "num_heads": 8},
        plain(in_channels=6, block_out_channels=[32, 64, 128], layers_per_block=1, attention_head_dim=16,
              **blocks(PLAIN, PLAIN, PLAIN)),
    ),
    "bsr-sr": (
        LDM,
        {"image_size": 16, "in_channels": 6, "out_channels": 3, "model_channels": 32, "attention_resolutions": [16, 8],
         "num_res_blocks": 1, "channel_mult": [1, 2, 2, 4], "num_head_channels": 16},
        plain(in_channels=6, block_out_channels=[32, 64, 64, 128], layers_per_block=1, attention_head_dim=16,
              **blocks(PLAIN, PLAIN, PLAIN, ATTN)),
    ),
    "cin256": (
        LDM,
        {"image_size": 16, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [4, 2, 1],
         "num_res_blocks": 1, "channel_mult": [1, 2, 4], "num_head_channels": 16, **ST, "transformer_depth": 2, "context_dim": 24},
        cross(block_out_channels=[32, 64, 128], layers_per_block=1, cross_attention_dim=24, attention_head_dim=[2, 4, 8],
              transformer_layers_per_block=2, **blocks(CROSS, CROSS, CROSS)),
    ),
    "cin256-v2": (
        LDM,
        {"image_size": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [8, 4, 2],
         "num_res_blocks": 1, "channel_mult": [1, 2, 3, 5], "num_heads": 1, **ST, "transformer_depth": 1, "context_dim": 24},
        cross(in_channels=3, out_channels=3, block_out_channels=[32, 64, 96, 160], layers_per_block=1, cross_attention_dim=24,
              attention_head_dim=1, **blocks(PLAIN, CROSS, CROSS, CROSS)),
    ),
    "text2img-large": (
        LDM,
        {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [4, 2, 1],
         "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4], "num_heads": 8, **ST, "transformer_depth": 1, "context_dim": 48,
         "use_checkpoint": True, "legacy": False},
        cross(block_out_channels=[32, 64, 128, 128], layers_per_block=2, cross_attention_dim=48, attention_head_dim=8,
              **blocks(CROSS, CROSS, CROSS, PLAIN)),
    ),
    "layout2img": (
        LDM,
        {"image_size": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [2],
         "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 16, **ST, "transformer_depth": 3, "context_dim": 24},
        cross(in_channels=3, out_channels=3, block_out_channels=[32, 64], layers_per_block=1, cross_attention_dim=24,
              attention_head_dim=[2, 4], transformer_layers_per_block=3, **blocks(PLAIN, CROSS)),
    ),
    "rdm": (
        LDM,
        {"image_size": 48, "in_channels": 16, "out_channels": 16, "model_channels": 32, "attention_resolutions": [4, 2, 1],
         "num_res_blocks": 1, "channel_mult": [1, 2, 3], "use_scale_shift_norm": False, "resblock_updown": False,
         "num_head_channels": 32, **ST, "transformer_depth": 1, "context_dim": 24, "use_checkpoint": True},
        cross(in_channels=16, out_channels=16, block_out_channels=[32, 64, 96], layers_per_block=1, cross_attention_dim=24,
              attention_head_dim=[1, 2, 3], **blocks(CROSS, CROSS, CROSS)),
    ),
    "sd1": (SD, SD1_PARAMS, cross(**SD1_TWIN)),
    "sd1-inpainting": (SD, SD1_PARAMS | {"in_channels": 9}, cross(**SD1_TWIN | {"in_channels": 9})),
    "sd2": (SD2, SD2_PARAMS, cross(**SD2_TWIN)),
    "sd2-depth": (SD2, SD2_PARAMS | {"in_channels": 5}, cross(**SD2_TWIN | {"in_channels": 5})),
    "unclip": (
        SD2, SD2_PARAMS | {"num_classes": "sequential", "adm_in_channels": 40},
        cross(**SD2_TWIN, class_embed_type="projection", projection_class_embeddings_input_dim=40),
    ),
    "x4-upscaler": (
        SD2,
        {"image_size": 128, "in_channels": 7, "out_channels": 4, "model_channels": 32, "attention_resolutions": [2, 4, 8],
         "num_res_blocks": 1, "channel_mult": [1, 2, 2, 4], "num_heads": 8, **ST, "transformer_depth": 1, "context_dim": 128,
         "disable_self_attentions": [True, True, True, False], "disable_middle_self_attn": False, "num_classes": 50,
         "use_linear_in_transformer": True, "use_checkpoint": True, "legacy": False},
        cross(in_channels=7, block_out_channels=[32, 64, 64, 128], layers_per_block=1, cross_attention_dim=128,
              attention_head_dim=8, use_linear_projection=True, only_cross_attention=[True, True, True, False],
              num_class_embeds=50, **blocks(PLAIN, CROSS, CROSS, CROSS)),
    ),
    "sdxl": (
        SGM,
        {"adm_in_channels": 64, "num_classes": "sequential", "use_checkpoint": True, "in_channels": 4, "out_channels": 4,
         "model_channels": 32, "attention_resolutions": [4, 2], "num_res_blocks": 1, "channel_mult": [1, 2, 4],
         "num_head_channels": 16, "use_linear_in_transformer": True, "transformer_depth": [1, 2, 3], "context_dim": 24,
         "spatial_transformer_attn_type": "softmax"},
        cross(block_out_channels=[32, 64, 128], layers_per_block=1, cross_attention_dim=24, attention_head_dim=[2, 4, 8],
              transformer_layers_per_block=[1, 2, 3], use_linear_projection=True, addition_embed_type="text_time",
              addition_time_embed_dim=8, projection_class_embeddings_input_dim=64, **blocks(PLAIN, CROSS, CROSS)),
    ),
    "sdxl-refiner": (
        SGM,
        {"adm_in_channels": 56, "num_classes": "sequential", "use_checkpoint": True, "in_channels": 4, "out_channels": 4,
         "model_channels": 32, "attention_resolutions": [4, 2], "num_res_blocks": 1, "channel_mult": [1, 2, 3, 3],
         "num_head_channels": 16, "use_linear_in_transformer": True, "transformer_depth": 4, "context_dim": [24, 24, 24, 24],
         "spatial_transformer_attn_type": "softmax"},
        cross(block_out_channels=[32, 64, 96, 96], layers_per_block=1, cross_attention_dim=24, attention_head_dim=[2, 4, 6, 6],
              transformer_layers_per_block=4, use_linear_projection=True, addition_embed_type="text_time",
              addition_time_embed_dim=8, projection_class_embeddings_input_dim=56, **blocks(PLAIN, CROSS, CROSS, PLAIN)),
    ),
    "lcm": (None, None, cross(**SD1_TWIN, time_cond_proj_dim=32)),
    "attention-quiet": (
        LDM,
        {"image_size": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [1, 2],
         "num_res_blocks": 1, "channel_mult": [1, 2], "num_heads": 2},
        None,
    ),
    "transformer-quiet": (
        LDM,
        {"image_size": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [1, 2],
         "num_res_blocks": 1, "channel_mult": [1, 2], "num_heads": 2, **ST, "transformer_depth": 1, "context_dim": 24},
        None,
    ),
    # What no published model has, of the same classes.
    "options": (
        SD2,
        {"image_size": 16, "in_channels": 3, "out_channels": 5, "model_channels": 32, "attention_resolutions": [1, 2],
         "num_res_blocks": [1, 2, 1], "channel_mult": [1, 2, 1], "conv_resample": False, "num_heads": 4, "num_heads_upsample": 2,
         "use_new_attention_order": True, "num_attention_blocks": [1, 1, 0], "num_classes": "continuous"},
        None,
    ),
    "sgm-options": (
        SGM,
        {"in_channels": 3, "out_channels": 3, "model_channels": 32, "attention_resolutions": [1, 2], "num_res_blocks": 1,
         "channel_mult": [1, 2], "num_heads": 4, "context_dim": 24, "num_classes": "timestep", "disable_middle_transformer": True,
         "disable_self_attentions": [False, True], "resblock_updown": True, "use_scale_shift_norm": True},
        None,
    ),
    "model-options": (
        None, None,
        plain(block_out_channels=[32, 64], layers_per_block=1, attention_head_dim=None, class_embed_type="timestep",
              flip_sin_to_cos=False, freq_shift=1, norm_num_groups=8, norm_eps=1e-3, add_attention=False,
              resnet_time_scale_shift="scale_shift", downsample_type="resnet", **blocks(ATTN, ATTN)),
    ),
    "model-classes": (
        None, None,
        plain(block_out_channels=[16, 32], layers_per_block=1, attention_head_dim=8, num_class_embeds=7, norm_num_groups=16,
              attn_norm_num_groups=4, upsample_type="resnet", **blocks(PLAIN, ATTN)),
    ),
    "condition-options": (
        None, None,
        cross(in_channels=3, block_out_channels=[32, 48, 64], layers_per_block=1, cross_attention_dim=24,
              attention_head_dim=[4, 6, 8], only_cross_attention=True, norm_num_groups=16, class_embed_type="identity",
              resnet_time_scale_shift="scale_shift",
              down_block_types=["ResnetDownsampleBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D"],
              up_block_types=["AttnUpBlock2D", "CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"]),
    ),
    "condition-simple": (
        None, None,
        cross(block_out_channels=[16, 32], layers_per_block=1, cross_attention_dim=24, attention_head_dim=4, norm_num_groups=8,
              class_embed_type="simple_projection", projection_class_embeddings_input_dim=12, **blocks(CROSS, PLAIN)),
    ),
}

T = [981.0, 20.5]
LABELS = [3.0, 41.0]
GUIDANCE = [8.5, 2.25]
NUMBERS = [[1024.0, 768.0, 0.0, 16.0, 1024.0, 1000.0], [512.0, 512.0, 8.0, 0.0, 640.0, 512.0]]


def inputs(name, channels, levels, context, vector):
    # On 8×8 a norm of the lowest level has groups of four numbers, and churches' float32 output is 7e-6 off its float64 one.
    side = 8 if levels < 4 and not name.startswith("churches") else 16
    inputs = {"x": given(f"{name}.x", 2, channels, side, side), "t": torch.tensor(T)}
    if context:
        inputs["tokens"] = given(f"{name}.tokens", 2, 5, context)
    if vector:
        inputs["vector"] = given(f"{name}.vector", 2, vector)
    return inputs


def sinusoids(numbers, width):
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding(numbers.flatten(), width, flip_sin_to_cos=True, downscale_freq_shift=0).reshape(2, -1)


class Watch:
    """Outputs of named modules: the first row's first channels are enough to see where two networks part."""

    def __init__(self, modules):
        self.seen = {}
        for name, module in modules.items():
            module.register_forward_hook(lambda _, __, output, name=name: self.see(name, output))

    def see(self, name, output):
        output = output[0] if isinstance(output, tuple) else output
        self.seen[name] = output[0, :4].contiguous()


def run_original(name, repository, params):
    cls = original_class(repository)
    model = cls(**{**params, "use_checkpoint": False}) if repository == SGM else cls(**params)
    fill(model, name.endswith("-quiet"))
    levels, layers = len(params["channel_mult"]), params["num_res_blocks"]
    layers = layers if isinstance(layers, list) else [layers] * levels
    context = params.get("context_dim")
    context = context[0] if isinstance(context, list) else context
    kind, vector = params.get("num_classes"), None
    if kind in ("sequential", "continuous"):
        vector = params.get("adm_in_channels", 1)
    x = inputs(name, params["in_channels"], levels, context, None if name.startswith("sdxl") else vector)
    y = None
    if isinstance(kind, int):
        y = torch.tensor(LABELS).long()
    elif kind == "timestep":
        y = torch.tensor(LABELS)
    elif name.startswith("sdxl"):
        numbers = torch.tensor(NUMBERS)[:, : 5 if "refiner" in name else 6]
        y = torch.cat([given(f"{name}.pooled", 2, 16), sinusoids(numbers, 8)], 1)
    elif vector:
        y = x["vector"]
    index, watched = 0, {}
    for level, count in enumerate(layers):
        index += count + (level < levels - 1)
        watched[f"down_blocks.{level}"] = model.input_blocks[index]
    watched["mid_block"] = model.middle_block
    index = -1
    for i, count in enumerate(reversed(layers)):
        index += count + 1
        watched[f"up_blocks.{i}"] = model.output_blocks[index]
    watch = Watch(watched)
    output = model(x["x"], timesteps=x["t"], context=x.get("tokens"), y=y)
    assert output.abs().max() > 0.1
    return model, output, watch.seen


def run_twin(name, twin, state=None):
    cls, config = twin
    model = cls(norm_eps=config.pop("norm_eps", 1e-5), **config)
    if state is None:
        fill(model)
    else:
        model.load_state_dict(state)
    model = model.eval()
    config = model.config
    x = inputs(
        name, config.in_channels, len(config.block_out_channels), config.get("cross_attention_dim"),
        {"projection": config.get("projection_class_embeddings_input_dim"), "identity": 4 * config.block_out_channels[0],
         "simple_projection": config.get("projection_class_embeddings_input_dim")}.get(config.class_embed_type),
    )
    extra = {}
    if config.class_embed_type is None and config.num_class_embeds:
        extra["class_labels"] = torch.tensor(LABELS).long() % config.num_class_embeds
    elif config.class_embed_type == "timestep":
        extra["class_labels"] = torch.tensor(LABELS)
    elif config.class_embed_type:
        extra["class_labels"] = x["vector"]
    if config.get("addition_embed_type"):
        numbers = torch.tensor(NUMBERS)[:, : 5 if "refiner" in name else 6]
        extra["added_cond_kwargs"] = {"text_embeds": given(f"{name}.pooled", 2, 16), "time_ids": numbers}
    if config.get("time_cond_proj_dim"):
        embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        extra["timestep_cond"] = embed(None, torch.tensor(GUIDANCE) - 1, config.time_cond_proj_dim)
    if "tokens" in x:
        extra["encoder_hidden_states"] = x["tokens"]
    watched = {f"down_blocks.{i}": block for i, block in enumerate(model.down_blocks)}
    watched |= {"mid_block": model.mid_block} | {f"up_blocks.{i}": block for i, block in enumerate(model.up_blocks)}
    watch = Watch(watched)
    output = model(x["x"], x["t"], **extra).sample
    assert output.abs().max() > 0.1
    return model, output, watch.seen


def shapes(model):
    return {name: list(p.shape) for name, p in model.named_parameters()}


@torch.no_grad()
def small():
    rows, tensors = {}, {}
    for name, (repository, params, twin) in ROWS.items():
        rows[name] = row = {}
        config = dict(twin[1]) if twin else None
        if repository:
            model, output, seen = run_original(name, repository, params)
            assert set(model.state_dict()) == set(shapes(model)), "buffers would be in files"
            row["original"] = {"params": params, "shapes": shapes(model)}
            tensors |= {f"{name}.original.{key}": value for key, value in {"output": output, **seen}.items()}
        if repository and twin:
            layers = params["num_res_blocks"]
            width = params.get("num_head_channels")
            heads = (lambda channels: channels // width) if width else (lambda _: params["num_heads"])
            add = "add_embedding" if name.startswith("sdxl") else "class_embedding"
            state = moved(model.state_dict(), layers, heads, add)
            _, same, _ = run_twin(name, (twin[0], dict(config)), state)
            error = (same - output).abs().max().item()
            print(f"{name}: original and diffusers differ by {error:.1e}")
            assert error < 1e-5
        if twin:
            model, output, seen = run_twin(name, (twin[0], dict(config)))
            config = {key: value for key, value in model.config.items() if key != "_use_default_values"}
            row["diffusers"] = {"config": {"_class_name": twin[0].__name__, **config}, "shapes": shapes(model)}
            tensors |= {f"{name}.diffusers.{key}": value for key, value in {"output": output, **seen}.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, OUT / "unets.safetensors")
    (OUT / "unets.safetensors").chmod(0o644)
    write(OUT / "unets.json", {"t": T, "labels": LABELS, "guidance": GUIDANCE, "numbers": NUMBERS, "rows": rows})


# ---- the published networks, by name: yaml file, repository ----

PUBLISHED = {
    "celeba256": (LDM, "models/ldm/celeba256/config.yaml"),
    "ffhq256": (LDM, "models/ldm/ffhq256/config.yaml"),
    "lsun_beds256": (LDM, "models/ldm/lsun_beds256/config.yaml"),
    "lsun_churches256": (LDM, "models/ldm/lsun_churches256/config.yaml"),
    "cin256": (LDM, "models/ldm/cin256/config.yaml"),
    "cin256-v2": (LDM, "configs/latent-diffusion/cin256-v2.yaml"),
    "text2img256": (LDM, "models/ldm/text2img256/config.yaml"),
    "text2img-large": (LDM, "configs/latent-diffusion/txt2img-1p4B-eval.yaml"),
    "bsr_sr": (LDM, "models/ldm/bsr_sr/config.yaml"),
    "inpainting_big": (LDM, "models/ldm/inpainting_big/config.yaml"),
    "layout2img-openimages256": (LDM, "models/ldm/layout2img-openimages256/config.yaml"),
    "semantic_synthesis256": (LDM, "models/ldm/semantic_synthesis256/config.yaml"),
    "semantic_synthesis512": (LDM, "models/ldm/semantic_synthesis512/config.yaml"),
    "rdm768": (LDM, "configs/retrieval-augmented-diffusion/768x768.yaml"),
    "sd1": (SD, "configs/stable-diffusion/v1-inference.yaml"),
    "sd2": (SD2, "configs/stable-diffusion/v2-inference.yaml"),
    "sd2-768": (SD2, "configs/stable-diffusion/v2-inference-v.yaml"),
    "sd2-inpainting": (SD2, "configs/stable-diffusion/v2-inpainting-inference.yaml"),
    "sd2-depth": (SD2, "configs/stable-diffusion/v2-midas-inference.yaml"),
    "sd21-unclip-h": (SD2, "configs/stable-diffusion/v2-1-stable-unclip-h-inference.yaml"),
    "sd21-unclip-l": (SD2, "configs/stable-diffusion/v2-1-stable-unclip-l-inference.yaml"),
    "sd-x4-upscaler": (SD2, "configs/stable-diffusion/x4-upscaling.yaml"),
    "sdxl-base": (SGM, "configs/inference/sd_xl_base.yaml"),
    "sdxl-refiner": (SGM, "configs/inference/sd_xl_refiner.yaml"),
}


def count(cls, params):
    """The names are hashed one line each, in order, so that not only their number is known."""
    with torch.device("meta"):
        model = cls(**params)
    names = sorted(model.state_dict())
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "keys": len(names), "names": f"{fnv1a(chr(10).join(names)):016x}"}


def published():
    rows = {}
    for name, (repository, path) in PUBLISHED.items():
        model = yaml.safe_load((REFS / repository / path).read_text())["model"]["params"]
        params = (model.get("unet_config") or model["network_config"])["params"]
        rows[name] = {"params": params, **count(original_class(repository), params)}
        if name == "sd1":  # runwayml's yaml differs in this alone
            inpainting = params | {"in_channels": 9}
            rows["sd1-inpainting"] = {"params": inpainting, **count(original_class(repository), inpainting)}
    levels = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
              "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}
    text_time = {"use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    # Taken together from the specification: their files' own words are not all public.
    twins = {
        "celebahq-256": (UNet2DModel, {"block_out_channels": [224, 448, 672, 896], "attention_head_dim": 32, "norm_eps": 1e-5}),
        "lcm": (UNet2DConditionModel, {"cross_attention_dim": 768, "time_cond_proj_dim": 256}),
        "sdxl-base": (UNet2DConditionModel, {
            "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816, **levels, **text_time}),
        "sdxl-refiner": (UNet2DConditionModel, {
            "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280, "attention_head_dim": [6, 12, 24, 24],
            "transformer_layers_per_block": 4, "projection_class_embeddings_input_dim": 2560, **text_time,
            "down_block_types": levels["down_block_types"] + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + levels["up_block_types"]}),
        "sd-x4-upscaler": (UNet2DConditionModel, {
            "in_channels": 7, "block_out_channels": [256, 512, 512, 1024], "cross_attention_dim": 1024, "attention_head_dim": 8,
            "num_class_embeds": 1000, "only_cross_attention": [True, True, True, False], "use_linear_projection": True,
            "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
            "up_block_types": ["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"]}),
    }
    twins = {
        name: {"config": {"_class_name": cls.__name__, **config}, "parameters": count(cls, config)["parameters"]}
        for name, (cls, config) in twins.items()
    }
    write(OUT / "published.json", {"originals": rows, "diffusers": twins})


def write(path, value):
    """One line per row and part: short enough to read, long enough to keep the file small."""
    def lines(value, depth):
        if depth == 0 or not isinstance(value, dict) or not value:
            return json.dumps(value)
        pad = " " * (4 - depth)
        return "{\n" + ",\n".join(f"{pad}{json.dumps(key)}: {lines(item, depth - 1)}" for key, item in value.items()) + "\n}"

    path.write_text(lines(value, 3) + "\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    small()
    published()
