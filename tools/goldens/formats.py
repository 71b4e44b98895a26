"""Files of torch.save and published sidecars, for the tests of `ldm-formats`.

    OMP_NUM_THREADS=1 python tools/goldens/formats.py                      # tests/goldens/formats/*.{ckpt,bin,pt,safetensors}
    OMP_NUM_THREADS=1 python tools/goldens/formats.py --refs DIR           # also tests/goldens/formats/{sidecars/*.yaml,names.json}

DIR holds checkouts of CompVis/latent-diffusion (a506df57), CompVis/stable-diffusion (21f890f9), Stability-AI/stablediffusion
(cf1d67a6) and Stability-AI/generative-models (0ad7de9a). Of a sidecar, the part `model` is read and written anew.
`names.json` has, for each of them, how many tensors the original classes have, built on the meta device, and a hash of their names
and shapes. It needs einops and omegaconf.

Each file of torch has a `.safetensors` beside it that torch and safetensors made of the same tensors: what a conversion must give.
Another run gives other bytes to `legacy.pt`, whose storages are named by addresses.
"""

import argparse
import collections
import importlib
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import numpy
import torch
import yaml
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens" / "formats"

SIDECARS = {
    "latent-diffusion": {
        **{
            row: f"models/ldm/{row}/config.yaml"
            for row in (
                "celeba256 ffhq256 lsun_beds256 lsun_churches256 cin256 text2img256 bsr_sr inpainting_big "
                "layout2img-openimages256 semantic_synthesis256 semantic_synthesis512"
            ).split()
        },
        **{
            row: f"models/first_stage_models/{row}/config.yaml"
            for row in "kl-f4 kl-f8 kl-f16 kl-f32 vq-f4 vq-f4-noattn vq-f8 vq-f8-n256 vq-f16".split()
        },
        "cin256-v2": "configs/latent-diffusion/cin256-v2.yaml",
        "text2img-large": "configs/latent-diffusion/txt2img-1p4B-eval.yaml",
        "rdm768": "configs/retrieval-augmented-diffusion/768x768.yaml",
    },
    "stable-diffusion": {"sd-v1": "configs/stable-diffusion/v1-inference.yaml"},
    "stablediffusion": {
        "sd-v2-base": "configs/stable-diffusion/v2-inference.yaml",
        "sd-v2-768-v": "configs/stable-diffusion/v2-inference-v.yaml",
        "sd-v2-inpainting": "configs/stable-diffusion/v2-inpainting-inference.yaml",
        "sd-v2-depth": "configs/stable-diffusion/v2-midas-inference.yaml",
        "sd-v21-unclip-h": "configs/stable-diffusion/v2-1-stable-unclip-h-inference.yaml",
        "sd-v21-unclip-l": "configs/stable-diffusion/v2-1-stable-unclip-l-inference.yaml",
        "sd-x4-upscaler": "configs/stable-diffusion/x4-upscaling.yaml",
    },
    "generative-models": {
        "sdxl-base": "configs/inference/sd_xl_base.yaml",
        "sdxl-refiner": "configs/inference/sd_xl_refiner.yaml",
    },
}


class Fake:
    """Stands for a class of Lightning: pickled by name, with attributes."""

    def __init__(self):
        self.best_model_path = "/tmp/best.ckpt"
        self.best_k_models = {"/tmp/best.ckpt": numpy.float64(0.5)}


class Runs:
    """What an attacker writes: unpickling it calls a function."""

    def __reduce__(self):
        return os.system, ("echo this must never run",)


def pretend(name, thing):
    """Makes `thing` importable as `name`, for pickle's own check."""
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
    setattr(sys.modules[module], attribute, thing)
    thing.__module__, thing.__qualname__ = module, attribute


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def state_dict():
    base = numbers(4, 6, seed=1)
    flat = numbers(10, seed=2)
    return {
        "model.diffusion_model.out.2.weight": numbers(2, 3, 3, 3, seed=3),
        "model.diffusion_model.out.2.bias": numbers(2, seed=4, dtype=torch.float16),
        "first_stage_model.quant_conv.weight": numbers(3, 3, seed=5, dtype=torch.bfloat16),
        "cond_stage_model.transposed": base.t(),
        "cond_stage_model.strided": base[1:3, ::2],
        "cond_stage_model.channels_last": numbers(2, 3, 2, 2, seed=6).to(memory_format=torch.channels_last),
        "cond_stage_model.tied_a": flat,
        "cond_stage_model.tied_b": flat,
        "cond_stage_model.part": flat[3:7],
        "cond_stage_model.expanded": numbers(1, seed=7).expand(3, 2),
        "cond_stage_model.position_ids": torch.arange(7)[None],
        "cond_stage_model.mask": torch.tensor([True, False, True]),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(12, dtype=torch.int32),
        "scale_factor": torch.tensor(0.18215, dtype=torch.float64),
        "empty": torch.empty(0, 4),
    }


def write(name, thing, tensors, **options):
    path = OUT / name
    torch.save(thing, path, **options)
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, path.with_suffix(".safetensors"))


def checkpoints():
    pretend("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", Fake)
    tensors = state_dict()
    lightning = {
        "epoch": 3,
        "global_step": 875000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": tensors,
        "loops": None,
        "callbacks": {Fake: {"monitor": "val/loss", "best_model_score": torch.tensor(0.25)}, "plain": Fake()},
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": numpy.float64(1e-4)}]}],
        "lr_schedulers": [],
        "hparams": {"scale": numpy.float32(2), "names": {"a"}, "raw": b"\x00\x01", "big": 1 << 80},
    }
    write("lightning.ckpt", lightning, tensors)
    write("legacy.pt", lightning, tensors, _use_new_zipfile_serialization=False)
    write("protocol4.pt", {"state_dict": tensors, "note": "ü" * 300}, tensors, pickle_protocol=4)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.nn.init.uniform_(module[0].weight, generator=torch.Generator().manual_seed(8))
    torch.nn.init.uniform_(module[0].bias, generator=torch.Generator().manual_seed(9))
    write("module.bin", module.state_dict(), module.state_dict())
    parameters = collections.OrderedDict(module.named_parameters())
    write("parameters.bin", parameters, parameters, pickle_protocol=5)
    small = {"eight": numbers(5, seed=10).to(torch.float8_e4m3fn), "sixteen": torch.arange(4).to(torch.uint16)}
    write("v3.pt", {"state_dict": small}, small)
    torch.save({"model": tensors, "step": 1}, OUT / "nested.pt")
    torch.save({"state_dict": {"evil": Runs(), "weight": numbers(2)}}, OUT / "evil_inside.ckpt")
    torch.save({"state_dict": {"weight": numbers(2)}, "callbacks": Runs()}, OUT / "evil_beside.ckpt")
    torch.save(module, OUT / "whole_module.pt")
    with open(OUT / "plain.pkl", "wb") as file:
        pickle.dump({"weight": [1.0, 2.0]}, file, protocol=2)
    with zipfile.ZipFile(OUT / "module.bin") as source:
        with zipfile.ZipFile(OUT / "deflated.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in source.namelist():
                packed.writestr(zipfile.ZipInfo(entry), source.read(entry), zipfile.ZIP_DEFLATED)
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in source.namelist():
                data = source.read(entry)
                data = data if not entry.endswith("/data/0") else bytes(8 << 20)
                packed.writestr(zipfile.ZipInfo(entry), data, zipfile.ZIP_DEFLATED)
        (OUT / "bomb.ckpt").write_bytes(bomb.getvalue())


def sidecars(refs):
    (OUT / "sidecars").mkdir(exist_ok=True)
    for repository, rows in SIDECARS.items():
        for row, path in rows.items():
            model = yaml.safe_load((refs / repository / path).read_text())["model"]
            text = yaml.safe_dump({"model": model}, sort_keys=False, width=120)
            (OUT / "sidecars" / f"{row}.yaml").write_text(f"# {repository}, {path}\n{text}")


def fingerprint(tensors):
    """How many, and FNV-1a of the lines `name [shape]` in order of names."""
    value = 0xCBF29CE484222325
    for name, shape in sorted(tensors.items()):
        for byte in f"{name} {list(shape)}\n".encode():
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return {"tensors": len(tensors), "hash": f"{value:016x}"}


def shapes(module, prefix=""):
    return {prefix + name: tuple(value.shape) for name, value in module.state_dict().items()}


def names(refs, repository):
    """Fingerprints of the networks of one repository; in a process of its own, since the modules of all are called `ldm`."""
    package = "sgm" if repository == "generative-models" else "ldm"
    for module in ("", ".modules", ".modules.diffusionmodules"):
        # By path, so that their `__init__` do not bring in what is not needed.
        fake = types.ModuleType(package + module)
        fake.__path__ = [str(refs / repository / (package + module).replace(".", "/"))]
        sys.modules[package + module] = fake
    load = lambda module: importlib.import_module(f"{package}.modules.diffusionmodules.{module}")
    unets, coders, found = load("openaimodel"), load("model"), {}
    for row, path in SIDECARS[repository].items():
        params = yaml.safe_load((refs / repository / path).read_text())["model"]["params"]
        first_stage = params.get("first_stage_config", {"params": params})["params"]["ddconfig"]
        first_stage["attn_type"] = first_stage.get("attn_type", "vanilla").removesuffix("-xformers")
        with torch.device("meta"):
            parts = {
                **shapes(coders.Encoder(**first_stage), "encoder."),
                **shapes(coders.Decoder(**first_stage), "decoder."),
            }
            found[row] = {"coders": fingerprint(parts)}
            unet = params.get("unet_config") or params.get("network_config")
            if unet:
                unet["params"].pop("use_fp16", None)
                unet["params"].pop("spatial_transformer_attn_type", None)
                found[row]["unet"] = fingerprint(shapes(unets.UNetModel(**unet["params"])))
    print(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refs", type=pathlib.Path)
    parser.add_argument("--names", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.names:
        names(arguments.refs, arguments.names)
        sys.exit()
    OUT.mkdir(parents=True, exist_ok=True)
    checkpoints()
    if arguments.refs:
        sidecars(arguments.refs)
        found = {}
        for repository in SIDECARS:
            command = [sys.executable, __file__, "--refs", arguments.refs, "--names", repository]
            found |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        lines = ",\n".join(f"  {json.dumps(row)}: {json.dumps(value)}" for row, value in sorted(found.items()))
        (OUT / "names.json").write_text(f"{{\n{lines}\n}}\n")
