"""Writes crates/ldm-sampler/tests/goldens/samplers.json: diffusers' schedulers, run in float64 on a toy network.

Run with torch 2.11, diffusers 0.42.1:  OMP_NUM_THREADS=1 python tools/goldens/sampler.py
The scheduler modules see a `torch` and a `np` whose float32 is float64, so their own arithmetic runs unmodified but in
double precision; the integer timesteps are checked against (and taken from) an unpatched float32 scheduler, because
that is what a pipeline really feeds to the network.
"""
import importlib
import json
import pathlib

import diffusers
import numpy as np
import torch

diffusers.utils.logging.set_verbosity_error()
real = {"f32": torch.float32, "f64": torch.float64}


class Shim:
    def __init__(self, module, **changed):
        self.__dict__["module"], self.__dict__["changed"] = module, changed

    def __getattr__(self, name):
        return self.changed[name] if name in self.changed else getattr(self.module, name)


CLASSES = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "plms": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
SIGMA = ["euler", "heun", "lms", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]
NOISE = torch.tensor([1.0, -0.5, 2.0, 0.25], dtype=torch.float64).reshape(1, 1, 2, 2)
CLEAN = torch.tensor([0.3, -0.7, 0.1, 0.9], dtype=torch.float64).reshape(1, 1, 2, 2)


def toy(x, t):
    return 1.1 * torch.tanh(0.3 * x + float(t) / 1000)


def noise32(shape, generator=None, device=None, dtype=None, layout=None):
    """What the pipeline draws: float32 normals, whatever precision the reference computes in."""
    return torch.randn(shape, generator=generator, dtype=real["f32"]).to(dtype)


def build(sampler, case, double):
    name, extra = CLASSES[sampler]
    cls = getattr(diffusers, name)
    module = importlib.import_module(cls.__module__)
    module.torch = Shim(torch, float32=torch.float64) if double else torch
    module.np = Shim(np, float32=np.float64) if double else np
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = noise32
    torch.set_default_dtype(real["f64" if double else "f32"])
    config = {
        "num_train_timesteps": 1000,
        "beta_schedule": case.get("beta_schedule", "scaled_linear"),
        "beta_start": case.get("beta_start", 0.00085),
        "beta_end": case.get("beta_end", 0.012),
        "clip_sample": False,
        "skip_prk_steps": True,
        "steps_offset": case.get("steps_offset", 1),
        "prediction_type": case.get("prediction", "epsilon"),
        **extra,
    }
    for key in ("timestep_spacing", "set_alpha_to_one", "rescale_betas_zero_snr", "final_sigmas_type"):
        if key in case:
            config[key] = case[key]
    if case.get("sigmas"):
        config[f"use_{case['sigmas']}_sigmas"] = True
    return cls.from_config(config)


def run(sampler, case):
    steps = case["steps"]
    plain = build(sampler, case, double=False)
    plain.set_timesteps(steps)
    scheduler = build(sampler, case, double=True)
    scheduler.set_timesteps(steps)
    if not plain.timesteps.is_floating_point():
        assert (plain.timesteps[1:] == scheduler.timesteps[1:]).all(), (sampler, case)
        scheduler.timesteps = plain.timesteps
    timesteps = scheduler.timesteps
    if len(timesteps) != len(plain.timesteps) or (timesteps < 0).any():
        raise ValueError(f"reference unusable: {sampler} {case}")
    if "strength" in case:
        init = min(int(steps * case["strength"]), steps)
        begin = max(steps - init, 0) * scheduler.order
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        x = scheduler.add_noise(CLEAN, NOISE, timesteps[:1])
    else:
        x = NOISE * scheduler.init_noise_sigma
    start = x.flatten().tolist()
    generator = torch.Generator().manual_seed(7)
    accepted = scheduler.step.__code__.co_varnames
    extra = {"generator": generator} if "generator" in accepted else {}
    if "eta" in accepted:
        extra["eta"] = case.get("eta", 0.0)
    for t in timesteps:
        output = toy(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, **extra).prev_sample
    assert x.dtype == torch.float64 and torch.isfinite(x).all(), (sampler, case, x)
    record = {"sampler": sampler, **case, "evaluations": len(timesteps), "initial": start, "x": x.flatten().tolist()}
    if len(timesteps) <= 10 or (steps == 20 and len(case) == 1):
        record["timesteps"] = [round(float(t), 6) for t in timesteps]
    return record


def cases(sampler):
    yield from ({"steps": s} for s in (20, 50))
    yield from ({"steps": s} for s in (1, 2, 3, 4, 7))
    yield {"steps": 10, "strength": 0.5}
    yield {"steps": 20, "strength": 0.5}
    yield {"steps": 20, "strength": 0.97}
    yield {"steps": 7, "strength": 0.3}
    yield {"steps": 20, "strength": 1.0}
    for spacing in ("leading", "trailing", "linspace"):
        yield {"steps": 20, "timestep_spacing": spacing}
        yield {"steps": 13, "timestep_spacing": spacing, "steps_offset": 0, "strength": 0.5}
        yield {"steps": 48, "timestep_spacing": spacing, "prediction": "v_prediction"}
    yield {"steps": 20, "prediction": "v_prediction"}
    yield {"steps": 20, "prediction": "v_prediction", "strength": 0.5}
    if sampler not in ("plms", "euler_a"):
        yield {"steps": 20, "prediction": "sample"}
    yield {"steps": 20, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    yield {"steps": 20, "beta_schedule": "squaredcos_cap_v2"}
    yield {"steps": 20, "beta_start": 0.0015, "beta_end": 0.0195}
    if sampler in ("ddim", "plms", "lcm"):
        for one in (True, False):
            yield {"steps": 20, "set_alpha_to_one": one}
    if sampler == "ddim":
        for eta in (0.5, 1.0):
            yield {"steps": 20, "eta": eta}
            yield {"steps": 50, "eta": eta, "set_alpha_to_one": False}
        yield {"steps": 20, "eta": 1.0, "strength": 0.5, "prediction": "v_prediction"}
    if sampler not in ("plms", "heun", "lms"):
        yield {"steps": 20, "prediction": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
        if sampler != "lcm":  # always starts at t = 999, where epsilon says nothing about a latent without signal
            yield {"steps": 20, "timestep_spacing": "leading", "rescale_betas_zero_snr": True}
    if sampler in SIGMA:
        for sigmas in ("karras", "exponential"):
            yield {"steps": 20, "sigmas": sigmas}
            yield {"steps": 50, "sigmas": sigmas}
            yield {"steps": 4, "sigmas": sigmas, "prediction": "v_prediction"}
            yield {"steps": 20, "sigmas": sigmas, "strength": 0.5}
            yield {"steps": 20, "sigmas": sigmas, "timestep_spacing": "leading"}
    if sampler in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"):
        for steps in (10, 20):
            yield {"steps": steps, "final_sigmas_type": "sigma_min"}


def main():
    records = []
    for sampler in CLASSES:
        for case in cases(sampler):
            records.append(run(sampler, case))
    out = pathlib.Path(__file__).parents[2] / "crates/ldm-sampler/tests/goldens"
    out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(r) for r in records)
    (out / "samplers.json").write_text(f"[\n{lines}\n]\n")
    torch.set_default_dtype(real["f32"])
    noise(out)


def noise(out):
    """torch.randn on the CPU: sequences of draws of mixed sizes, whole for small sizes, sampled for large ones."""
    records = []
    for seed in (0, 7, 42, 2**32 + 7, 2**53 - 1):
        for sizes in ([4], [15], [16], [17], [40], [16384], [4, 4, 3], [3, 16, 4, 17, 1], [5, 40, 5, 15, 1, 2]):
            generator = torch.Generator().manual_seed(seed)
            draws = []
            for n in sizes:
                values = torch.randn(n, generator=generator).tolist()
                at = list(range(n)) if n <= 40 else [0, 1, 8, 15, 16, 4095, 8191, 12345, n - 1]
                draws.append({"n": n, "at": at, "values": [float(np.format_float_positional(np.float32(values[i]), unique=True)) for i in at]})
            records.append({"seed": seed, "draws": draws})
    lines = ",\n".join(json.dumps(r) for r in records)
    (out / "noise.json").write_text(f"[\n{lines}\n]\n")


main()
