//! Training the denoiser and its text encoder on latents of the first stage, with dropped captions.

use anyhow::{Context as _, Result, ensure};
use ldm_nn::{AutoencoderKl, AutoencoderKlConfig, Checkpoint, ClipTextConfig, ClipTokenizer, UNet2DConditionConfig};
use ldm_sampler::{BetaSchedule, NoiseSchedule, PlanSpec, Sampler, ScheduleConfig, SchedulerConfig};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::config::{DiffusionRun, Prediction};
use crate::evaluate::{HELD_OUT_SEED, Score, first_stage, score};
use crate::log::Log;
use crate::optimizer::Optimizer;
use crate::replica::{Part, Replica, gradients};
use crate::scene::{self, Prompt};
use crate::{checkpoint, export, grid, sample, tokenizer};

fn unet_shape(run: &DiffusionRun, vae: &AutoencoderKlConfig) -> UNet2DConditionConfig {
    let shape = &run.unet;
    let kinds = |with: &str, without: &str| -> Vec<String> {
        shape.cross_attention.iter().map(|&cross| if cross { with } else { without }.to_owned()).collect()
    };
    let mut up = kinds("CrossAttnUpBlock2D", "UpBlock2D");
    up.reverse();
    UNet2DConditionConfig {
        sample_size: Some(run.train.size as i64 / vae.factor()),
        in_channels: vae.latent_channels,
        out_channels: vae.latent_channels,
        block_out_channels: shape.block_out_channels.clone(),
        layers_per_block: shape.layers_per_block,
        down_block_types: kinds("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types: up,
        cross_attention_dim: run.text_encoder.hidden_size,
        attention_head_dim: ldm_nn::unet::PerLevel::Same(shape.heads),
        norm_num_groups: shape.norm_num_groups,
        ..UNet2DConditionConfig::default()
    }
}

fn text_shape(run: &DiffusionRun, vocabulary: i64) -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: vocabulary,
        hidden_size: run.text_encoder.hidden_size,
        intermediate_size: run.text_encoder.hidden_size * 4,
        num_hidden_layers: run.text_encoder.layers,
        num_attention_heads: run.text_encoder.heads,
        max_position_embeddings: run.text_encoder.tokens,
        ..ClipTextConfig::default()
    }
}

fn scheduler(run: &DiffusionRun) -> Result<SchedulerConfig> {
    let beta_schedule =
        BetaSchedule::parse(&run.beta_schedule).with_context(|| format!("`beta_schedule` {:?}", run.beta_schedule))?;
    Ok(SchedulerConfig {
        schedule: ScheduleConfig {
            beta_schedule,
            beta_start: run.beta_start,
            beta_end: run.beta_end,
            ..ScheduleConfig::default()
        },
        prediction: match run.prediction {
            Prediction::Epsilon => ldm_sampler::Prediction::Epsilon,
            Prediction::VPrediction => ldm_sampler::Prediction::V,
        },
        steps_offset: 1,
        set_alpha_to_one: Some(false),
        ..SchedulerConfig::default()
    })
}

/// Encoded scenes: means and standard deviations of the posteriors, scaled for the denoiser, and token ids.
struct Data {
    mean: Tensor,
    std: Tensor,
    ids: Tensor,
}

impl Data {
    /// The scenes of the run. Their latents are encoded once and kept for later starts.
    fn new(run: &DiffusionRun, vae: &AutoencoderKl, tokenizer: &ClipTokenizer, device: Device) -> Result<Self> {
        let path = run.train.out.join(format!("latents-{}-{}.safetensors", run.train.seed, run.pictures));
        if !path.is_file() {
            let (mean, std) = Self::encode(run, vae, device);
            ldm_nn::weights::save([("mean", &mean), ("std", &std)], Kind::Float, &path)?;
        }
        let kept = Checkpoint::open_files([path])?;
        let mut ids = Vec::new();
        for index in 0..run.pictures {
            ids.extend(encode(tokenizer, &scene::caption(run.train.seed, index))?);
        }
        let ids = Tensor::from_slice(&ids).view([run.pictures as i64, tokenizer.length() as i64]).to_device(device);
        Ok(Self { mean: kept.tensor("mean").to_device(device), std: kept.tensor("std").to_device(device), ids })
    }

    /// A random batch at random timesteps, in parts.
    fn batch(&self, run: &DiffusionRun, empty: &Tensor, alphas_cumprod: &Tensor) -> Vec<Part> {
        let (batch, device) = (run.train.batch, self.mean.device());
        let chosen = Tensor::randint(self.mean.size()[0], [batch], (Kind::Int64, device));
        let mean = self.mean.index_select(0, &chosen); // [B, C, H, W]
        let x0 = &mean + self.std.index_select(0, &chosen) * mean.randn_like();
        let dropped = Tensor::rand([batch, 1], (Kind::Float, device)).lt(run.caption_dropout);
        let ids = empty.where_self(&dropped, &self.ids.index_select(0, &chosen)); // [B, L]
        let t = Tensor::randint(alphas_cumprod.size()[0], [batch], (Kind::Int64, device));
        let alpha_bar = alphas_cumprod.index_select(0, &t).view([batch, 1, 1, 1]);
        let (alpha, sigma) = (alpha_bar.sqrt(), (-&alpha_bar + 1.).sqrt());
        let noise = x0.randn_like();
        let x = &alpha * &x0 + &sigma * &noise;
        let snr = &alpha_bar / (-&alpha_bar + 1.);
        let target = match run.prediction {
            Prediction::Epsilon => noise,
            Prediction::VPrediction => alpha * noise - sigma * x0,
        };
        let weight = match (run.min_snr_gamma, run.prediction) {
            (None, _) => snr.ones_like(),
            (Some(gamma), Prediction::Epsilon) => snr.clamp_max(gamma) / snr,
            (Some(gamma), Prediction::VPrediction) => snr.clamp_max(gamma) / (snr + 1.),
        };
        let size = batch / run.parts;
        (0..run.parts)
            .map(|part| {
                let of = |all: &Tensor| all.narrow(0, part * size, size);
                Part { x: of(&x), t: of(&t), ids: of(&ids), target: of(&target), weight: of(&weight) }
            })
            .collect()
    }

    fn encode(run: &DiffusionRun, vae: &AutoencoderKl, device: Device) -> (Tensor, Tensor) {
        const PART: u64 = 64;
        let (size, scale) = (run.train.size, vae.config().scaling_factor);
        let bar = indicatif::ProgressBar::new(run.pictures).with_message("encoding");
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        let mut start = 0;
        while start < run.pictures {
            let n = PART.min(run.pictures - start) as usize;
            let (pixels, _) = scene::render_batch(run.train.seed, start, n, size);
            let pictures = Tensor::from_slice(&pixels).view([n as i64, 3, size as i64, size as i64]).to_device(device);
            let posterior = tch::no_grad(|| vae.encode(&pictures.to_kind(run.train.dtype.kind()))).to_kind(Kind::Float);
            mean.push(posterior.mode() * scale);
            std.push(posterior.std() * scale);
            start += n as u64;
            bar.set_position(start);
        }
        bar.finish_and_clear();
        (Tensor::cat(&mean, 0), Tensor::cat(&std, 0))
    }
}

fn encode(tokenizer: &ClipTokenizer, text: &str) -> Result<Vec<i64>> {
    let tokens = tokenizer.encode(text).map_err(anyhow::Error::msg)?;
    ensure!(tokens.cut == 0, "`text_encoder.tokens` is too small for the caption {text:?}");
    Ok(tokens.ids)
}

/// Trains until the configured number of steps, resuming where a checkpoint says, and exports a whole model to `out/model`
/// at every checkpoint.
///
/// When `stop` says so after a step, the state is kept for the next start.
/// `workers` threads share the parts of each batch; what is learned does not depend on their number.
pub fn train(run: &DiffusionRun, device: Device, workers: usize, stop: &dyn Fn() -> bool) -> Result<()> {
    let settings = &run.train;
    std::fs::create_dir_all(&settings.out)?;
    let model = settings.out.join("model");
    let vocabulary = tokenizer::write(&model.join("tokenizer"), &scene::vocabulary(), run.text_encoder.tokens)?;
    let tokenizer = ClipTokenizer::read(&model.join("tokenizer"), run.text_encoder.tokens as usize)?;
    let vae = first_stage(&run.first_stage, device)?;
    let (unet_config, text_config) = (unet_shape(run, vae.config()), text_shape(run, vocabulary));
    unet_config.check()?;
    text_config.check()?;

    tch::manual_seed(settings.seed as i64);
    let mut replicas = vec![Replica::new(&unet_config, &text_config, run.init.as_deref(), device)?];
    let mut optimizer = Optimizer::new(&replicas[0].variables, settings);
    for _ in 1..workers.min(run.parts as usize) {
        let replica = Replica::new(&unet_config, &text_config, None, device)?;
        optimizer.attach(&replica.variables);
        replicas.push(replica);
    }
    if replicas.len() > 1 {
        tch::set_num_threads(1);
    }
    let unet_count = replicas[0].unet_count;
    let stage = Stage { vae, tokenizer, scheduler: scheduler(run)?, kind: settings.dtype.kind() };
    let start = checkpoint::resume(&settings.out, run, &mut optimizer)?;

    let mut log = Log::new(&settings.out, settings.steps, start, settings.log_every)?;
    log.line(json!({"parameters": optimizer.len(), "start": start}))?;
    let data = Data::new(run, &stage.vae, &stage.tokenizer, device)?;
    let empty = Tensor::from_slice(&encode(&stage.tokenizer, "")?).to_device(device);
    let table: Vec<f32> = NoiseSchedule::new(&stage.scheduler.schedule)?.alphas_cumprod().iter().map(|&a| a as f32).collect();
    let alphas_cumprod = Tensor::from_slice(&table).to_device(device);

    for step in start..settings.steps {
        settings.seed_step(step);
        let (loss, gradient) = gradients(&mut replicas, data.batch(run, &empty, &alphas_cumprod), stage.kind);
        let norm = optimizer.step(gradient, step);
        log.step(step + 1, loss, settings.learning_rate_at(step), norm)?;
        let last = step + 1 == settings.steps;
        if (step + 1) % settings.sample_every == 0 || last {
            let (pictures, score) = optimizer.with_average(|| stage.measure(run, &replicas[0], 25))?;
            log.line(json!({"step": step + 1, "score": score}))?;
            let shown = pictures.narrow(0, 0, pictures.size()[0].min(50));
            grid::save(&shown, 10, 2, &settings.out.join(format!("samples-{:06}.png", step + 1)))?;
        }
        let stopped = stop() && !last;
        if (step + 1) % settings.checkpoint_every == 0 || last || stopped {
            checkpoint::save(&settings.out, step + 1, run, &optimizer)?;
            let averaged = optimizer.averaged();
            export::unet(&model, &unet_config, run.unet.heads, &averaged[..unet_count])?;
            export::text_encoder(&model, &text_config, &averaged[unet_count..])?;
            export::index(&model, run, settings.size, stage.vae.config().factor())?;
            std::fs::create_dir_all(model.join("vae"))?;
            for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
                std::fs::copy(run.first_stage.join("vae").join(file), model.join("vae").join(file))?;
            }
        }
        if stopped {
            return Ok(());
        }
    }
    log.finish();
    Ok(())
}

/// What is not trained.
struct Stage {
    vae: AutoencoderKl,
    tokenizer: ClipTokenizer,
    scheduler: SchedulerConfig,
    kind: Kind,
}

impl Stage {
    /// Pictures for held-out prompts and how many show what they should.
    fn measure(&self, run: &DiffusionRun, networks: &Replica, steps: usize) -> Result<(Tensor, Score)> {
        const PART: usize = 25;
        let prompts = scene::held_out_prompts(run.prompts, HELD_OUT_SEED);
        let plan = ldm_sampler::plan(&self.scheduler, &PlanSpec::new(Sampler::Ddim, steps))?;
        let side = run.train.size as i64 / self.vae.config().factor();
        let device = self.vae.device();
        let pictures = tch::no_grad(|| -> Result<Vec<Tensor>> {
            prompts
                .chunks(PART)
                .map(|part: &[Prompt]| {
                    let n = part.len() as i64;
                    let mut ids = Vec::new();
                    for text in std::iter::repeat_n("", part.len()).chain(part.iter().map(|prompt| prompt.text.as_str())) {
                        ids.extend(encode(&self.tokenizer, text)?);
                    }
                    let ids = Tensor::from_slice(&ids).view([2 * n, -1]).to_device(device);
                    let context = networks.unet.context(&networks.text.forward_as(&ids, self.kind));
                    let noise = Tensor::randn([n, self.vae.config().latent_channels, side, side], (Kind::Float, device));
                    let z = sample::sample(&networks.unet, &plan, &noise, &context, run.card.guidance, self.kind);
                    Ok(self.vae.decode(&(z / self.vae.config().scaling_factor)).clamp(-1., 1.))
                })
                .collect()
        })?;
        let pictures = Tensor::cat(&pictures, 0);
        let score = score(&pictures, &prompts)?;
        Ok((pictures, score))
    }
}
