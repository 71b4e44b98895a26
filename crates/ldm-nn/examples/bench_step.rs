//! One side of `tools/bench/compare.py`: loads a model and runs what standard input asks for, a line at a time.
//!
//! usage: `bench_step MODEL INPUTS f32|bf16 THREADS`. Commands: `unet`, `vae` (answer: seconds of wall clock),
//! `save-unet PATH`, `save-vae PATH`. `INPUTS` is a safetensors file with `x` `t` `tokens` `z`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ldm_nn::memory::Lean;
use ldm_nn::weights::save;
use ldm_nn::{AutoencoderKl, AutoencoderKlConfig, Checkpoint, Context, Layout, UNet2DCondition, UNet2DConditionConfig, Weights};
use tch::{Device, Kind, Tensor};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

struct Bench {
    unet: UNet2DCondition,
    vae: AutoencoderKl,
    context: Context,
    x: Tensor,
    t: Tensor,
    z: Tensor,
}

impl Bench {
    fn load(model: &Path, inputs: &Path, kind: Kind) -> Anyhow<Self> {
        let _lean = Lean::new();
        let weights = |part: &str| {
            let checkpoint = Checkpoint::open(&model.join(part), "diffusion_pytorch_model")?;
            Anyhow::Ok(Weights::from_checkpoint(checkpoint, kind, Device::Cpu, Layout::ChannelsLast))
        };
        let (unet_weights, vae_weights) = (weights("unet")?, weights("vae")?);
        let unet = UNet2DCondition::new(&unet_weights, &UNet2DConditionConfig::read(&model.join("unet/config.json"))?);
        let vae = AutoencoderKl::new(&vae_weights, &AutoencoderKlConfig::read(&model.join("vae/config.json"))?);
        unet_weights.finish()?;
        vae_weights.finish()?;
        let inputs = Checkpoint::open_files([inputs.to_owned()])?;
        // Keys and values of the prompt are computed once per prompt, not per step: they are not part of the step.
        let context = unet.context(&inputs.tensor("tokens").to_kind(kind));
        Ok(Self {
            unet,
            vae,
            context,
            x: inputs.tensor("x").to_kind(kind),
            t: inputs.tensor("t"),
            z: inputs.tensor("z").to_kind(kind),
        })
    }

    fn unet(&self) -> Tensor {
        self.unet.forward(&self.x, &self.t, &self.context)
    }

    fn vae(&self) -> Tensor {
        self.vae.decode(&self.z)
    }
}

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, model, inputs, dtype, threads] = args.as_slice() else { return Err("usage: MODEL INPUTS f32|bf16 THREADS".into()) };
    let kind = if dtype == "f32" { Kind::Float } else { Kind::BFloat16 };
    tch::set_num_threads(threads.parse()?);
    let _no_grad = tch::no_grad_guard();
    let start = Instant::now();
    let bench = Bench::load(Path::new(model), Path::new(inputs), kind)?;
    let mut out = std::io::stdout();
    writeln!(out, "ready {:.3}", start.elapsed().as_secs_f64())?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, path) = line.split_once(' ').unwrap_or((&line, ""));
        let start = Instant::now();
        let result = if command.ends_with("vae") { bench.vae() } else { bench.unet() };
        let seconds = start.elapsed().as_secs_f64();
        if command.starts_with("save-") {
            save([("out", &result)], Kind::Float, &PathBuf::from(path))?;
        }
        writeln!(out, "{seconds:.6}")?;
    }
    Ok(())
}
