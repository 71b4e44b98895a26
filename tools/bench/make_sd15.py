"""Writes a directory that is Stable Diffusion 1.5 in every shape, with seeded random weights: what benchmarks run on.

usage: make_sd15.py DEST        (torch 2.11, diffusers 0.42.1, transformers 5.23; 4.3 GB in float32)

Weights are normal with variance 1/fan_in, normalisations 1 ± 0.1, biases 0.1·normal: never zeros, which some kernels and
some processors finish faster. The tokenizer is the small one of tests/goldens; its words are among CLIP's 49,408 ids.
"""
import json
import math
import pathlib
import shutil
import sys

import diffusers
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

GOLDENS = pathlib.Path(__file__).parents[2] / "tests/goldens"
UNET = dict(
    sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
    attention_head_dim=8, cross_attention_dim=768,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
)
VAE = dict(
    sample_size=512, latent_channels=4, layers_per_block=2, block_out_channels=(128, 256, 512, 512), scaling_factor=0.18215,
    force_upcast=False, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
)
TEXT = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
)


def write(model, at, stem, seed):
    """Saves the configuration, and random weights of the same names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, p in model.state_dict().items():
        z = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            z *= 0.1
        elif "embedding.weight" in name:
            z *= 0.5
        elif p.dim() == 1:
            z = z * 0.1 + 1
        else:
            z /= math.sqrt(p[0].numel())
        state[name] = z
    (model.save_config if hasattr(model, "save_config") else model.config.save_pretrained)(at)
    save_file(state, at / f"{stem}.safetensors", {"format": "pt"})
    print(f"{at}: {sum(z.numel() for z in state.values()) / 1e6:.1f} M parameters")


def main(out):
    for part in ("unet", "vae", "text_encoder"):
        (out / part).mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        unet, vae, text = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**TEXT))
    write(unet, out / "unet", "diffusion_pytorch_model", 1)
    write(vae, out / "vae", "diffusion_pytorch_model", 2)
    write(text, out / "text_encoder", "model", 3)
    shutil.copytree(GOLDENS / "tiny-sd/tokenizer", out / "tokenizer", dirs_exist_ok=True)
    PNDMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1,
    ).save_pretrained(out / "scheduler")
    # The published file has this key, which DDIM reads; latents are not to be clipped.
    scheduler = out / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"clip_sample": False}, indent=1) + "\n")
    index = {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None], "image_encoder": [None, None], "requires_safety_checker": False,
        "safety_checker": [None, None], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
