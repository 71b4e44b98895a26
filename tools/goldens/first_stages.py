"""Writes tests/goldens/first_stages: what the original first stages and diffusers' make of small networks, and the sizes of the
published ones.

    OMP_NUM_THREADS=1 python tools/goldens/first_stages.py LATENT_DIFFUSION TAMING TAESD

The arguments are checkouts of github.com/CompVis/latent-diffusion (a506df57), github.com/CompVis/taming-transformers (3ba01b24)
and github.com/madebyollin/taesd (5cccb12d). Needs torch 2.11, diffusers 0.42.1, einops, omegaconf.

Weights are not stored: each is a formula of its name and place (see `weight`), which the tests repeat. Every case is run by the
original class and, renamed by the rules of `diffusers_name` and loaded strictly, by diffusers'; both must agree. What layers
add to the stream is small, so that an epsilon of 1e-5 in place of 1e-6 shows.
"""
import json
import math
import pathlib
import re
import sys
import types

import diffusers  # before the stubs below, which transformers would stumble over
import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parents[2] / "tests/goldens/first_stages"
AGREE = 1e-5
# Two distances of the quantiser that are nearer than this could be ordered differently by another order of summation.
MARGIN = 2e-5
SCALE = 4096

# In original terms; widths are multiples of 32, the number of groups that the original has no setting for.
CASES = {
    "kl-f4": dict(ch_mult=[1, 2, 4], num_res_blocks=2, z_channels=3, size=(32, 48)),
    "kl-f8": dict(ch_mult=[1, 2, 2, 4], num_res_blocks=1, z_channels=4, size=(64, 48)),
    "kl-f16": dict(ch_mult=[1, 1, 2, 2, 4], num_res_blocks=1, z_channels=16, attn_resolutions=[16], size=(64, 96)),
    "kl-f32": dict(ch_mult=[1, 1, 1, 1, 2, 2], num_res_blocks=1, z_channels=8, attn_resolutions=[16, 8], size=(64, 96)),
    "vq-f4": dict(ch_mult=[1, 2, 4], num_res_blocks=1, z_channels=3, n_embed=64, size=(32, 48)),
    "vq-f4-noattn": dict(ch_mult=[1, 2, 4], num_res_blocks=1, z_channels=3, n_embed=64, attn_type="none", size=(48, 32)),
    "vq-f8": dict(ch_mult=[1, 2, 2, 4], num_res_blocks=2, z_channels=4, n_embed=96, attn_resolutions=[32], size=(64, 48)),
    "vq-f16": dict(ch_mult=[1, 1, 2, 2, 4], num_res_blocks=1, z_channels=8, n_embed=96, attn_resolutions=[16], size=(64, 48)),
}


def weight(name, shape, mean, scale):
    """mean + scale/4096 · u of every place, u in [-1, 1) from MurmurHash3's finaliser of the place and FNV-1a of the name."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 & 0xFFFFFFFF
    x = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed)
    x = (x ^ x >> 16) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> 13) * np.uint32(0xC2B2AE35)
    x ^= x >> 16
    u = x.astype(np.float64) / 2.0**31 - 1
    return torch.from_numpy((mean + scale / SCALE * u).astype(np.float32)).view(shape)


def spread(name, shape, stream):
    """Mean and scale of a parameter: variance 1/fan_in, times stream² for what is added to the stream."""
    whole = re.search(r"norm|(attn_1|attn\.\d+)\.[qk]\.|encoder\.conv_out|quant_conv", name)
    gain = 1 if whole else 0.25 if name.startswith("decoder.conv_out") else stream
    if name.endswith("bias"):
        # Not larger than what varies over the picture, or normalisations lose digits in every implementation.
        return 0, round(0.1 * gain * 3**0.5 * SCALE)
    if len(shape) == 1:
        return 1, round(0.1 * 3**0.5 * SCALE)
    if "embedding" in name:
        return 0, round(0.6 * 3**0.5 * SCALE)
    fan_in = int(np.prod(shape[1:]))
    return 0, max(1, round(gain * (3 / fan_in) ** 0.5 * SCALE))


def fill(model, stream):
    """Sets every parameter; gives each one's name, shape, mean and scale."""
    rows = []
    with torch.no_grad():
        for name, p in model.state_dict().items():
            mean, scale = spread(name, p.shape, stream)
            p.copy_(weight(name, list(p.shape), mean, scale))
            rows.append([name, list(p.shape), mean, scale])
    model.eval().requires_grad_(False)
    return rows


def diffusers_name(name, levels):
    rules = [
        (r"\.down\.(\d+)\.block\.(\d+)\.", r".down_blocks.\1.resnets.\2."),
        (r"\.down\.(\d+)\.attn\.(\d+)\.", r".down_blocks.\1.attentions.\2."),
        (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
        (r"\.up\.(\d+)\.block\.(\d+)\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.resnets.{m[2]}."),
        (r"\.up\.(\d+)\.attn\.(\d+)\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.attentions.{m[2]}."),
        (r"\.up\.(\d+)\.upsample\.", lambda m: f".up_blocks.{levels - 1 - int(m[1])}.upsamplers.0."),
        (r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    ]
    for old, new in rules:
        name = re.sub(old, new, name)
    return name


def shims(latent_diffusion, taming):
    """What the original's imports want and these classes do not use."""
    lightning = types.ModuleType("pytorch_lightning")
    lightning.LightningModule = torch.nn.Module
    sys.modules["pytorch_lightning"] = lightning
    sys.path[:0] = [str(latent_diffusion), str(taming)]
    from ldm.models.autoencoder import AutoencoderKL as OriginalKL
    from ldm.models.autoencoder import VQModelInterface

    return OriginalKL, VQModelInterface


def original(classes, params):
    params = {"lossconfig": {"target": "torch.nn.Identity"}, **params}
    return classes[1](**params) if "n_embed" in params else classes[0](**params)


def params_of(case):
    kl = "n_embed" not in case
    ddconfig = dict(
        double_z=kl, z_channels=case["z_channels"], resolution=256, in_channels=3, out_ch=3, ch=32, ch_mult=case["ch_mult"],
        num_res_blocks=case["num_res_blocks"], attn_resolutions=case.get("attn_resolutions", []), dropout=0.0,
    )
    if "attn_type" in case:
        ddconfig["attn_type"] = case["attn_type"]
    params = dict(ddconfig=ddconfig, embed_dim=case["z_channels"])
    return params if kl else {**params, "n_embed": case["n_embed"]}


def config_of(model):
    """As `save_pretrained` writes it."""
    return json.loads(model.to_json_string())


def diffusers_model(params, sample_size=256):
    dd = params["ddconfig"]
    levels = len(dd["ch_mult"])
    attention = [dd["resolution"] >> i in dd["attn_resolutions"] for i in range(levels)]
    common = dict(
        block_out_channels=[dd["ch"] * m for m in dd["ch_mult"]], layers_per_block=dd["num_res_blocks"],
        latent_channels=dd["z_channels"], norm_num_groups=32, sample_size=sample_size,
        down_block_types=["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention],
        up_block_types=["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)],
        mid_block_add_attention=dd.get("attn_type") != "none",
    )
    if "n_embed" in params:
        return VQModel(num_vq_embeddings=params["n_embed"], vq_embed_dim=params["embed_dim"], scaling_factor=1.0, **common)
    return AutoencoderKL(scaling_factor=0.5, **common)


def agree(what, a, b, tolerance=AGREE):
    error = (a - b).abs().max().item()
    print(f"{what}: {error:.1e} of {b.abs().max().item():.2f}")
    assert a.shape == b.shape and error <= tolerance, (what, error)


def differ(what, a, b, by):
    error = (a - b).abs().max().item()
    print(f"{what}: {error:.1e}")
    assert error >= by, (what, error)


def without(model, block, run):
    """With attention that adds nothing."""
    ends = [p for key, p in model.named_parameters() if block in key and "proj_out" in key]
    held = [p.clone() for p in ends]
    for p in ends:
        p.zero_()
    result = run()
    for p, value in zip(ends, held):
        p.copy_(value)
    return result


def with_epsilon(model, eps, run):
    norms = [m for m in model.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {m.eps for m in norms} == {1e-6}
    for m in norms:
        m.eps = eps
    result = run()
    for m in norms:
        m.eps = 1e-6
    return result


@torch.no_grad()
def case(classes, name, settings, tensors):
    params = params_of(settings)
    model = original(classes, params)
    rows = fill(model, 0.5)
    levels = len(settings["ch_mult"])
    other = diffusers_model(params)
    wanted = other.state_dict()
    renamed = {diffusers_name(key, levels): value for key, value in model.state_dict().items()}
    renamed = {key: value.view(wanted[key].shape) for key, value in renamed.items()}
    other.load_state_dict(renamed, strict=True)
    other.eval()
    for row in rows:
        new = diffusers_name(row[0], levels)
        row += [new, list(wanted[new].shape)]

    generator = torch.Generator().manual_seed(len(name) + levels)
    height, width = settings["size"]
    x = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    at = {"x": x}
    if "n_embed" in params:
        z = model.encode(x)
        agree(f"{name} encode", other.encode(x).latents, z)
        quantised, _, (_, _, indices) = model.quantize(z)
        _, _, (_, _, theirs) = other.quantize(z)
        assert torch.equal(indices, theirs)
        flat, codes = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).double(), model.quantize.embedding.weight.double()
        nearest = torch.cdist(flat, codes).square().topk(2, largest=False).values
        margin = (nearest[:, 1] - nearest[:, 0]).min().item()
        print(f"{name}: {len(set(indices.tolist()))} codes in use, margin {margin:.1e}")
        assert margin > MARGIN
        output = model.decode(z)
        agree(f"{name} decode", other.decode(z).sample, output)
        plain = model.decode(z, force_not_quantize=True)
        agree(f"{name} decode unquantised", other.decode(z, force_not_quantize=True).sample, plain)
        differ(f"{name} unless quantised", plain, output, 1e-2)
        at |= {"latent": z, "indices": indices.view(z.shape[0], *z.shape[2:]), "output": output, "unquantised": plain}
        encode, decode = lambda: model.encode(x), lambda: model.decode(z, force_not_quantize=True)
    else:
        moments = model.quant_conv(model.encoder(x))
        agree(f"{name} encode", other.encode(x).latent_dist.parameters, moments)
        z = torch.randn(2, params["embed_dim"], *moments.shape[2:], generator=generator)
        output = model.decode(z)
        agree(f"{name} decode", other.decode(z).sample, output)
        at |= {"moments": moments, "z": z, "output": output}
        encode, decode = lambda: model.quant_conv(model.encoder(x)), lambda: model.decode(z)
    for what, run in [("encode", encode), ("decode", decode)]:
        for block in "mid.attn_1", "attn.":
            if any(block in key for key in model.state_dict()):
                differ(f"{name} {what} without {block}", without(model, block, run), run(), 1e-3)
        differ(f"{name} {what} with epsilon 1e-5", with_epsilon(model, 1e-5, run), run(), 1e-4)
    tensors |= {f"{name}.{key}": value.contiguous() for key, value in at.items()}
    return {"params": params, "config": config_of(other), "tensors": rows}


@torch.no_grad()
def tiled(classes, tensors):
    """Tiles of 8 pixels of the latent that share 2, on the weights of kl-f4; the last tiles are smaller than what they share."""
    params = params_of(CASES["kl-f4"])
    model = original(classes, params)
    fill(model, 0.5)
    vae = diffusers_model(params, sample_size=32)
    renamed = {diffusers_name(key, 3): value for key, value in model.state_dict().items()}
    vae.load_state_dict({key: value.view(vae.state_dict()[key].shape) for key, value in renamed.items()}, strict=True)
    vae.eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, 32, 76, generator=generator) * 2 - 1
    z = torch.randn(2, 3, 13, 8, generator=generator)
    whole = vae.encode(x).latent_dist.parameters, vae.decode(z).sample
    vae.enable_tiling()
    assert (vae.tile_latent_min_size, vae.tile_overlap_factor) == (8, 0.25)
    moments, output = vae.encode(x).latent_dist.parameters, vae.decode(z).sample
    differ("tiled encode", moments, whole[0], 1e-3)
    differ("tiled decode", output, whole[1], 1e-3)
    tensors |= {f"tiled.{k}": v.contiguous() for k, v in {"x": x, "moments": moments, "z": z, "output": output}.items()}


def counted(*shape):
    """Numbers in [−1, 1] that are counted out, so that nobody has to store them."""
    at = np.arange(math.prod(shape))
    return torch.from_numpy(((at * 37 + at // 7 * 11) % 255 / 127.5 - 1).astype(np.float32)).reshape(shape)


@torch.no_grad()
def large(classes, tensors):
    """The tiles that are served, 64 pixels of the latent that share 16, on a latent beyond 128; every 16th number is kept."""
    params = params_of(CASES["kl-f4"])
    model = original(classes, params)
    fill(model, 0.5)
    vae = diffusers_model(params, sample_size=256)
    renamed = {diffusers_name(key, 3): value for key, value in model.state_dict().items()}
    vae.load_state_dict({key: value.view(vae.state_dict()[key].shape) for key, value in renamed.items()}, strict=True)
    vae.eval()
    vae.enable_tiling()
    assert (vae.tile_latent_min_size, vae.tile_overlap_factor) == (64, 0.25)
    moments = vae.encode(counted(1, 3, 544, 608)).latent_dist.parameters
    output = vae.decode(counted(1, 3, 136, 152)).sample
    tensors |= {"large.moments": moments[:, :, ::4, ::4].contiguous(), "large.output": output[:, :, ::16, ::16].contiguous()}


@torch.no_grad()
def taesd(tensors):
    from taesd import TAESD

    model = TAESD(encoder_path=None, decoder_path=None, latent_channels=4)
    rows = fill(model, 0.9)
    other = AutoencoderTiny()

    def renamed(name):
        half, index, rest = name.split(".", 2)
        return f"{half}.layers.{int(index) - (half == 'decoder')}.{rest}"

    other.load_state_dict({renamed(key): value for key, value in model.state_dict().items()}, strict=True)
    other.eval()
    for row in rows:
        row += [renamed(row[0]), row[1]]
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(2, 3, 64, 48, generator=generator) * 2 - 1
    latent = model.encoder((x + 1) / 2)
    agree("taesd encode", other.encode(x).latents, latent)
    z = torch.randn(2, 4, 8, 6, generator=generator) * 2
    output = model.decoder(z) * 2 - 1
    agree("taesd decode", other.decode(z).sample, output)
    assert z.abs().max() > 3
    tensors |= {f"taesd.{k}": v.contiguous() for k, v in {"x": x, "latent": latent, "z": z, "output": output}.items()}
    return {"config": config_of(other), "tensors": rows}


def zoo(classes, latent_diffusion):
    """The published configurations with their sizes, counted on the original classes without the loss."""
    from omegaconf import OmegaConf

    rows = {}
    for path in sorted((latent_diffusion / "models/first_stage_models").glob("*/config.yaml")):
        params = OmegaConf.to_container(OmegaConf.load(path).model.params)
        del params["lossconfig"]
        with torch.device("meta"):
            model = original(classes, params)
            other = diffusers_model(params)
        state = model.state_dict()
        names = {diffusers_name(key, len(params["ddconfig"]["ch_mult"])) for key in state}
        assert names == set(other.state_dict())
        count = sum(p.numel() for p in state.values())
        print(f"{path.parent.name}: {count} in {len(state)}")
        rows[path.parent.name] = {"params": params, "parameters": count, "tensors": len(state)}
    return rows


def write_json(path, value):
    """Objects, and lists of lists, one entry to a line."""

    def lines(value, indent):
        inner = indent + " "
        if isinstance(value, dict):
            entries = [f"{json.dumps(key)}: {lines(entry, inner)}" for key, entry in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], list):
            entries = [json.dumps(entry) for entry in value]
        else:
            return json.dumps(value)
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        return f"{opening}\n{inner}" + f",\n{inner}".join(entries) + f"\n{indent}{closing}"

    path.write_text(lines(value, "") + "\n")


def main():
    latent_diffusion, taming, tiny = map(pathlib.Path, sys.argv[1:4])
    torch.set_num_threads(1)
    classes = shims(latent_diffusion, taming)
    sys.path.insert(0, str(tiny))
    tensors = {}
    cases = {name: case(classes, name, settings, tensors) for name, settings in CASES.items()}
    cases["taesd"] = taesd(tensors)
    tiled(classes, tensors)
    large(classes, tensors)
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT / "first_stages.safetensors")
    write_json(OUT / "cases.json", cases)
    write_json(OUT / "zoo.json", zoo(classes, latent_diffusion))
    print({path.name: path.stat().st_size for path in OUT.iterdir()}, diffusers.__version__)


if __name__ == "__main__":
    main()
