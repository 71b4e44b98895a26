"""Writes crates/ldm-sampler/tests/goldens: samplers of diffusers, k-diffusion and CompVis, run in float64 on a toy network.

Run with torch 2.11, diffusers 0.42.1, torchsde 0.2.6, torchdiffeq and einops, and two checkouts:
    OMP_NUM_THREADS=1 python tools/goldens/sampler.py K_DIFFUSION STABLE_DIFFUSION
where these are github.com/crowsonkb/k-diffusion at 4601bf08 and github.com/CompVis/stable-diffusion at 21f890f9.
The scheduler modules see a `torch` and a `np` whose float32 is float64, so their own arithmetic runs unmodified but in
double precision; the integer timesteps are checked against (and taken from) an unpatched float32 scheduler, because
that is what a pipeline really feeds to the network.
"""
import importlib
import inspect
import json
import pathlib
import sys
import types

import diffusers
import numpy as np
import torch
import torchsde._brownian.brownian_interval as brownian_interval

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
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmpp_sde": ("DPMSolverSDEScheduler", {"noise_sampler_seed": 7}),
    "deis": ("DEISMultistepScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "ddim_inverse": ("DDIMInverseScheduler", {}),
}
SIGMA = ["euler", "heun", "lms", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "dpm2", "dpm2_a", "dpmpp_sde", "deis"]
SOLVERS = ["dpmpp_2m", "dpmpp_2m_sde", "unipc", "deis"]
NOISE = torch.tensor([1.0, -0.5, 2.0, 0.25], dtype=torch.float64).reshape(1, 1, 2, 2)
CLEAN = torch.tensor([0.3, -0.7, 0.1, 0.9], dtype=torch.float64).reshape(1, 1, 2, 2)


def toy(x, t):
    return 1.1 * torch.tanh(0.3 * x + float(t) / 1000)


def noise32(shape, generator=None, device=None, dtype=None, layout=None):
    """What the pipeline draws: float32 normals, whatever precision the reference computes in."""
    return torch.randn(shape, generator=generator, dtype=real["f32"]).to(dtype)


def tree32(size, dtype, device, seed):
    """What a Brownian tree draws: as above."""
    return torch.randn(size, generator=torch.Generator().manual_seed(int(seed)), dtype=real["f32"]).to(dtype)


brownian_interval._randn = tree32


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
    for key in ("timestep_spacing", "set_alpha_to_one", "rescale_betas_zero_snr", "final_sigmas_type", "solver_order",
                "solver_type", "lower_order_final", "euler_at_final", "sigma_min", "sigma_max", "original_inference_steps"):
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
        timesteps = timesteps[:init] if sampler == "ddim_inverse" else timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        x = CLEAN if sampler == "ddim_inverse" else scheduler.add_noise(CLEAN, NOISE, timesteps[:1])
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
    for spacing in ("leading", "trailing") if sampler == "ddim_inverse" else ("leading", "trailing", "linspace"):
        yield {"steps": 20, "timestep_spacing": spacing}
        yield {"steps": 13, "timestep_spacing": spacing, "steps_offset": 0, "strength": 0.5}
        yield {"steps": 48, "timestep_spacing": spacing, "prediction": "v_prediction"}
    yield {"steps": 20, "prediction": "v_prediction"}
    yield {"steps": 20, "prediction": "v_prediction", "strength": 0.5}
    if sampler == "ddim_inverse":
        yield {"steps": 20, "prediction": "sample", "set_alpha_to_one": False}
    elif sampler not in ("plms", "euler_a", "dpm2", "dpm2_a", "dpmpp_sde"):
        yield {"steps": 20, "prediction": "sample"}
    yield {"steps": 20, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    yield {"steps": 20, "beta_schedule": "squaredcos_cap_v2"}
    yield {"steps": 20, "beta_start": 0.0015, "beta_end": 0.0195}
    if sampler in ("ddim", "plms", "lcm", "tcd", "ddim_inverse"):
        for one in (True, False):
            yield {"steps": 20, "set_alpha_to_one": one}
    if sampler == "ddim":
        for eta in (0.5, 1.0):
            yield {"steps": 20, "eta": eta}
            yield {"steps": 50, "eta": eta, "set_alpha_to_one": False}
        yield {"steps": 20, "eta": 1.0, "strength": 0.5, "prediction": "v_prediction"}
    if sampler in ("lcm", "tcd"):
        yield {"steps": 4, "original_inference_steps": 25}
    if sampler == "tcd":
        for eta in (0.3, 0.5, 1.0):
            yield {"steps": 4, "eta": eta}
            yield {"steps": 20, "eta": eta, "strength": 0.5, "prediction": "v_prediction"}
    if sampler in SOLVERS:
        for order in (1, 3):
            yield {"steps": 20, "solver_order": order}
            yield {"steps": 20, "solver_order": order, "strength": 0.5}
            yield {"steps": 7, "solver_order": order, "sigmas": "karras"}
            yield {"steps": 3, "solver_order": order, "prediction": "v_prediction"}
        yield {"steps": 20, "sigmas": "karras", "sigma_min": 0.1, "sigma_max": 10.0}
        yield {"steps": 10, "sigmas": "exponential", "sigma_max": 10.0}
        for steps in (10, 20):
            for order in (2, 3):
                if sampler != "unipc":
                    yield {"steps": steps, "solver_order": order, "lower_order_final": False}
    if sampler in ("dpmpp_2m", "dpmpp_2m_sde"):
        yield {"steps": 20, "solver_type": "heun"}
        yield {"steps": 20, "euler_at_final": True, "final_sigmas_type": "sigma_min"}
    if sampler == "unipc":
        for order in (1, 2, 3):
            # (not to the clean latent, where diffusers' B(h) is infinite and its result no number)
            yield {"steps": 20, "solver_type": "bh1", "solver_order": order, "final_sigmas_type": "sigma_min"}
            yield {"steps": 20, "solver_order": order, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
    if sampler == "euler":
        yield {"steps": 20, "sigmas": "karras", "sigma_min": 0.1, "sigma_max": 10.0}
    if sampler not in ("plms", "heun", "lms", "dpm2", "dpm2_a", "dpmpp_sde", "deis", "ddim_inverse"):
        yield {"steps": 20, "prediction": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
        if sampler not in ("lcm", "tcd"):  # always starts at t = 999, where epsilon says nothing about a latent without signal
            yield {"steps": 20, "timestep_spacing": "leading", "rescale_betas_zero_snr": True}
    if sampler in SIGMA:
        for sigmas in ("karras", "exponential", "beta"):
            yield {"steps": 20, "sigmas": sigmas}
            if sigmas != "beta":  # whole timesteps repeat, and diffusers begins at the second one and runs off the end
                yield {"steps": 50, "sigmas": sigmas}
            yield {"steps": 4, "sigmas": sigmas, "prediction": "v_prediction"}
            yield {"steps": 20, "sigmas": sigmas, "strength": 0.5}
            yield {"steps": 20, "sigmas": sigmas, "timestep_spacing": "leading"}
    if sampler in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"):
        for steps in (10, 20):
            yield {"steps": steps, "final_sigmas_type": "sigma_min"}


def schedule(case):
    """The cumulative product of alphas, in float64."""
    torch.set_default_dtype(real["f64"])
    roots = torch.linspace(case.get("beta_start", 0.00085) ** 0.5, case.get("beta_end", 0.012) ** 0.5, 1000)
    return torch.cumprod(1 - roots**2, 0)


def ipndm(case):
    """diffusers' step rule on the noise levels of its Euler scheduler, whose own are those of another model."""
    steps, levels = case["steps"], build("euler", case, double=True)
    levels.set_timesteps(steps)
    scheduler = diffusers.IPNDMScheduler()
    importlib.import_module(scheduler.__class__.__module__).torch = torch
    scheduler.set_timesteps(steps)
    sigmas = levels.sigmas
    scheduler.alphas, scheduler.betas = 1 / (sigmas**2 + 1) ** 0.5, sigmas / (sigmas**2 + 1) ** 0.5
    begin = steps - int(steps * case["strength"]) if "strength" in case else 0
    scheduler._step_index = begin
    start = CLEAN + sigmas[begin] * NOISE if "strength" in case else NOISE * levels.init_noise_sigma
    x = start * scheduler.alphas[begin]
    for i in range(begin, steps):
        output, alpha, sigma = toy(x, levels.timesteps[i]), scheduler.alphas[i], scheduler.betas[i]
        velocity = output if case.get("prediction") == "v_prediction" else (output - sigma * x) / alpha
        x = scheduler.step(velocity, None, x).prev_sample
    return {"sampler": "ipndm", **case, "evaluations": steps - begin, "initial": start.flatten().tolist(), "x": x.flatten().tolist()}


def ipndm_cases():
    yield from ({"steps": s} for s in (1, 2, 3, 4, 20, 50))
    yield {"steps": 20, "strength": 0.5}
    yield {"steps": 20, "prediction": "v_prediction"}
    for sigmas in ("karras", "exponential", "beta"):
        yield {"steps": 20, "sigmas": sigmas}


def normals():
    generator = torch.Generator().manual_seed(7)
    return lambda x: noise32(x.shape, generator, dtype=x.dtype)


def k_diffusion(path):
    """The sampling functions, the denoisers that own noise levels, and nothing of what else the package imports."""
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(pathlib.Path(path) / "k_diffusion")]
    package.utils = types.ModuleType("k_diffusion.utils")
    package.utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": package.utils})
    sampling, external = (importlib.import_module(f"k_diffusion.{name}") for name in ("sampling", "external"))
    torch.Tensor.float = torch.Tensor.double  # `t_to_sigma` is the one place that asks for float32
    functions = {
        "euler": sampling.sample_euler, "euler_a": sampling.sample_euler_ancestral, "heun": sampling.sample_heun,
        "lms": sampling.sample_lms, "dpm2": sampling.sample_dpm_2, "dpm2_a": sampling.sample_dpm_2_ancestral,
        "dpmpp_2s_a": sampling.sample_dpmpp_2s_ancestral, "dpmpp_2m": sampling.sample_dpmpp_2m,
        "dpmpp_sde": sampling.sample_dpmpp_sde, "dpmpp_2m_sde": sampling.sample_dpmpp_2m_sde,
        "dpmpp_3m_sde": sampling.sample_dpmpp_3m_sde,
    }

    def run(sampler, case):
        evaluations = []

        def network(x, t):
            evaluations.append(float(t))
            return toy(x, t)

        denoisers = {"epsilon": external.DiscreteEpsDDPMDenoiser, "v_prediction": external.DiscreteVDDPMDenoiser}
        model = denoisers[case.get("prediction", "epsilon")](network, schedule(case), quantize=case.get("round_t", False))
        count = case["steps"] + case.get("discard", False)
        ends = (count, float(model.sigma_min), float(model.sigma_max))
        grids = {None: lambda: model.get_sigmas(count), "karras": lambda: sampling.get_sigmas_karras(*ends),
                 "exponential": lambda: sampling.get_sigmas_exponential(*ends)}
        sigmas = grids[case.get("sigmas")]()
        if case.get("discard"):
            sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
        draw, extra = normals(), {}
        if case.get("brownian"):
            extra["noise_sampler"] = sampling.BrownianTreeNoiseSampler(NOISE, sigmas[sigmas > 0].min(), sigmas.max(), seed=7)
        elif "noise_sampler" in inspect.signature(functions[sampler]).parameters:
            extra["noise_sampler"] = lambda sigma, sigma_next: draw(NOISE)
        x = NOISE * sigmas[0]
        start = x.flatten().tolist()
        x = functions[sampler](model, x, sigmas, disable=True, **extra)
        assert x.dtype == torch.float64 and torch.isfinite(x).all(), (sampler, case, x)
        record = {"sampler": sampler, **case, "k_diffusion": True, "evaluations": len(evaluations), "initial": start}
        record["x"] = x.flatten().tolist()
        if len(evaluations) <= 10:
            record["timesteps"] = [round(t, 6) for t in evaluations]
        return record

    for sampler in functions:
        for sigmas in ({},) if sampler == "euler_a" else ({}, {"sigmas": "karras"}, {"sigmas": "exponential"}):
            noises = [{"brownian": True}] if sampler.endswith("sde") else [{}]
            noises += [{"brownian": False}] if sampler.endswith("sde") else []
            for noise in noises:
                yield run(sampler, {"steps": 10, **sigmas, **noise})
                yield run(sampler, {"steps": 20, **sigmas, **noise, "prediction": "v_prediction"})
        noise = {"brownian": True} if sampler.endswith("sde") else {}
        yield from (run(sampler, {"steps": steps, **noise}) for steps in (2, 3, 4))
        karras = {} if sampler == "euler_a" else {"sigmas": "karras"}
        yield run(sampler, {"steps": 10, **karras, "discard": True, **noise})
        yield run(sampler, {"steps": 10, **karras, "round_t": True, **noise})


def compvis(path):
    """DDIM and PLMS with their own rule for steps, and DDIM's img2img."""
    sys.path.insert(0, str(path))
    modules = {name: importlib.import_module(f"ldm.models.diffusion.{name}") for name in ("ddim", "plms")}
    classes = {"ddim": modules["ddim"].DDIMSampler, "plms": modules["plms"].PLMSSampler}
    for name, module in modules.items():
        module.torch = Shim(torch, float32=torch.float64)
        module.tqdm = lambda iterable, **_: iterable
        module.print = lambda *_: None
        classes[name].register_buffer = lambda self, key, value: setattr(self, key, value)

    def run(sampler, case):
        evaluations = []

        def network(x, t, _):
            evaluations.append(float(t[0]))
            return toy(x, t[0])

        alphas = schedule(case)
        previous = torch.cat([torch.ones(1), alphas[:-1]])
        model = types.SimpleNamespace(
            num_timesteps=1000, device="cpu", betas=1 - alphas / previous, alphas_cumprod=alphas, alphas_cumprod_prev=previous,
            apply_model=network)
        draw = normals()
        modules[sampler].noise_like = lambda shape, device, repeat=False: draw(NOISE)
        instance = classes[sampler](model)
        steps, eta, x = case["steps"], case.get("eta", 0.0), NOISE
        if "strength" in case:
            instance.make_schedule(steps, ddim_eta=eta, verbose=False)
            encoded = int(case["strength"] * steps)
            x = instance.stochastic_encode(CLEAN, torch.tensor([encoded]), noise=NOISE)
            start = x.flatten().tolist()
            x = instance.decode(x, None, encoded)
        else:
            start = x.flatten().tolist()
            x, _ = instance.sample(steps, 1, (1, 2, 2), eta=eta, x_T=x, verbose=False)
        assert x.dtype == torch.float64 and torch.isfinite(x).all(), (sampler, case, x)
        record = {"sampler": sampler, **case, "compvis": True, "evaluations": len(evaluations), "initial": start}
        record["x"] = x.flatten().tolist()
        if len(evaluations) <= 10:
            record["timesteps"] = evaluations
        return record

    for sampler in classes:
        for steps in (1, 2, 7, 10, 30, 50, 150, 400):
            yield run(sampler, {"steps": steps})
            yield run(sampler, {"steps": steps, "beta_start": 0.0015, "beta_end": 0.0155})
    for steps in (7, 20, 30):
        yield run("ddim", {"steps": steps, "eta": 1.0})
        yield run("ddim", {"steps": steps, "eta": 0.5})
        for strength in (0.3, 0.75):
            yield run("ddim", {"steps": steps, "strength": strength})


def main(k_diffusion_path, compvis_path):
    records = []
    for sampler in CLASSES:
        for case in cases(sampler):
            records.append(run(sampler, case))
    records += map(ipndm, ipndm_cases())
    records += compvis(compvis_path)
    records += k_diffusion(k_diffusion_path)
    out = pathlib.Path(__file__).parents[2] / "crates/ldm-sampler/tests/goldens"
    out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(r) for r in records)
    (out / "samplers.json").write_text(f"[\n{lines}\n]\n")
    torch.set_default_dtype(real["f32"])
    noise(out)
    brownian(out)
    guidance(out)


def brownian(out):
    """k-diffusion's noise sampler: seeds of one word and two, ends as a Karras schedule has them, questions out of order."""
    sampling = sys.modules["k_diffusion.sampling"]
    records = []
    for seed in (0, 7, 2**40 + 3):
        for low, high, n in ((0.029167, 14.614643, 4), (0.1, 10.0, 20)):
            torch.set_default_dtype(real["f64"])
            asked = [(high, 5.0), (5.0, 1.25), (high, 1.25), (1.25, low), (0.3, 0.30001), (5.0, 1.0), (high, low)]
            sampler = sampling.BrownianTreeNoiseSampler(torch.zeros(n), torch.tensor(low), torch.tensor(high), seed=seed)
            values = [[round(z, 9) for z in sampler(torch.tensor(a), torch.tensor(b)).tolist()] for a, b in asked]
            records.append({"seed": seed, "low": low, "high": high, "asked": asked, "values": values})
    torch.set_default_dtype(real["f32"])
    (out / "brownian.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")


def guidance(out):
    """The rescaled guidance of diffusers' pipelines."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    torch.set_default_dtype(real["f64"])
    generator = torch.Generator().manual_seed(1)
    guided, text = (torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64) * s + 0.2 for s in (3.0, 1.0))
    rescaled = {str(phi): rescale_noise_cfg(guided, text, phi).flatten().tolist() for phi in (0.0, 0.7, 1.0)}
    torch.set_default_dtype(real["f32"])
    record = {"guided": guided.flatten().tolist(), "text": text.flatten().tolist(), "rescaled": rescaled}
    (out / "guidance.json").write_text(json.dumps(record) + "\n")


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


main(*sys.argv[1:])
