//! The executor: models of one device, and jobs run on them together.

use std::rc::Rc;
use std::sync::Arc;

use ldm_core::{Bounds, Catalogue, Failure, FailureKind, Raster, Request, Rounding};
use ldm_engine::{Advance, BatchKey, Executor, Price};
use ldm_nn::Tiling;
use tch::{Kind, Tensor};

use crate::catalogue::samplers;
use crate::conditioning::Conditioning;
use crate::families::{self, ModelError};
use crate::options::{LoadOptions, ModelSource};
use crate::picture::{from_tensor, is_finite};
use crate::run::{Guided, Run};
use crate::system::System;
use crate::tasks::{self, Bench, Paste, Start};

/// Side of the latent that a preview is decoded from, at most: a preview must be cheap.
const PREVIEW_SIDE: i64 = 16;

/// Side of the latent's tiles that a large picture is decoded in, and how far they overlap, in cells.
const TILE: i64 = 64;
const TILE_OVERLAP: i64 = 16;

/// Sees each finished latent `[1, C, H, W]`, as the denoiser has it, and its picture `[1, 3, H, W]` before rounding.
pub type Watch = Box<dyn Fn(&Tensor, &Tensor)>;

/// One device with its models. Not `Send`: it lives on the thread that loaded it.
pub struct DeviceExecutor {
    models: Vec<System>,
    device: tch::Device,
    bounds: Bounds,
    row_cap: u32,
    /// Pictures with a longer side than this many pixels are decoded in tiles.
    tile_from: i64,
    watch: Option<Watch>,
    /// Conditioning of the last call, by the serials of its runs: unchanged while nobody joins or leaves.
    together: Option<(Vec<u64>, Rc<Conditioning>)>,
    serial: u64,
    /// Gradients are off on this thread for as long as the executor lives.
    _no_grad: tch::NoGradGuard,
}

impl DeviceExecutor {
    /// Loads the models onto the device, on the thread that will run them.
    pub fn load(sources: &[ModelSource], options: &LoadOptions) -> Result<Self, ModelError> {
        if let crate::Device::Cuda(index) = options.device
            && (!tch::Cuda::is_available() || index as i64 >= tch::Cuda::device_count())
        {
            return Err(ModelError::NoDevice(options.device.to_string()));
        }
        if let Some(threads) = options.threads {
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let no_grad = tch::no_grad_guard();
        let mut models: Vec<System> = Vec::new();
        for source in sources {
            if models.iter().any(|model| model.about.id == source.id) {
                return Err(ModelError::Mismatch(format!("two models are called {:?}", source.id)));
            }
            let model = families::load(source, options)?;
            tracing::info!(model = source.id, family = model.about.family, parameters = model.about.parameters, "model loaded");
            models.push(model);
        }
        if models.is_empty() {
            return Err(ModelError::Mismatch("no model to load".into()));
        }
        Ok(Self {
            models,
            device: options.device.tch(),
            bounds: options.bounds,
            row_cap: options.row_cap.max(2),
            tile_from: options.tile_from.into(),
            watch: None,
            together: None,
            serial: 0,
            _no_grad: no_grad,
        })
    }

    /// Calls `watch` with everything that is decoded from now on.
    pub fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    fn index(&self, request: &Request) -> Result<usize, Failure> {
        let found = self.models.iter().position(|model| model.about.id == request.model);
        found.ok_or_else(|| Failure::new(FailureKind::Unsupported, format!("model {:?} is not loaded here", request.model)))
    }

    /// Conditioning of all rows of a call, computed anew only when somebody joined or left.
    fn gather(&mut self, runs: &[&mut Run]) -> Rc<Conditioning> {
        let serials: Vec<u64> = runs.iter().map(|run| run.serial).collect();
        if let Some((known, conditioning)) = &self.together
            && *known == serials
        {
            return Rc::clone(conditioning);
        }
        let mut rows = Vec::new();
        for run in runs {
            match &run.conditioning {
                Guided::Off(positive) => rows.push(Rc::clone(positive)),
                Guided::On(negative, positive) => rows.extend([Rc::clone(negative), Rc::clone(positive)]),
            }
        }
        let conditioning = match rows.as_slice() {
            [one] => Rc::clone(one),
            rows => Rc::new(Conditioning::cat(rows)),
        };
        self.together = Some((serials, Rc::clone(&conditioning)));
        conditioning
    }

    fn forget_batch(&mut self) {
        self.together = None;
    }

    /// A latent `[1, C, H, W]` at the denoiser's scale as a picture `[1, 3, f·H, f·W]` in about [−1, 1].
    fn decoded(&self, model: usize, latent: &Tensor) -> Tensor {
        let stage = &self.models[model].stage;
        let (_, _, height, width) = latent.size4().expect("a latent has four dimensions");
        let is_large = height.max(width) * stage.factor() > self.tile_from;
        let latent = latent.to_kind(stage.kind());
        match Tiling::new(TILE, TILE_OVERLAP) {
            Ok(tiling) if is_large => stage.decode_tiled(&latent, tiling),
            _ => stage.decode(&latent),
        }
    }

    /// The finished latent of a run, float32 `[C, H, W]` row-major, scaled as the denoiser sees it.
    pub fn latent(&self, run: &Run) -> Vec<f32> {
        Vec::<f32>::try_from(run.latent().to_device(tch::Device::Cpu).contiguous().flatten(0, -1)).unwrap_or_default()
    }
}

impl Executor for DeviceExecutor {
    type Run = Run;

    fn catalogue(&self) -> Catalogue {
        Catalogue {
            models: self.models.iter().map(|model| model.about.clone()).collect(),
            samplers: samplers(),
            bounds: self.bounds,
        }
    }

    fn price(&self, request: &Request) -> Result<Price, Failure> {
        let model = &self.models[self.index(request)?];
        let guided = model.is_guided(request);
        let key = BatchKey {
            model: request.model.clone(),
            latent: model.latent(request).map(|side| side as u32),
            cross: model.conditioner.shape(request, guided)?,
        };
        Ok(Price { key, rows: if guided { 2 } else { 1 }, row_cap: self.row_cap })
    }

    fn prepare(&mut self, request: &Arc<Request>) -> Result<Run, Failure> {
        let index = self.index(request)?;
        let model = &mut self.models[index];
        let plan = tasks::plan(&model.scheduler, request)?;
        let mut noise = tasks::noise(request);
        let bench = Bench { stage: &model.stage, concat: &model.concat, request, plan: &plan, noise: &mut noise };
        let Start { latent, concat, keep, paste, crop } = tasks::start(bench)?;
        let loras = model.loras.choose(request)?;
        let conditioning = model.condition(request, &loras, concat.as_ref())?;
        let mut registers: Vec<Option<Tensor>> = (0..plan.registers).map(|_| None).collect();
        registers[0] = Some(latent);
        self.serial += 1;
        Ok(Run {
            model: index,
            request: Arc::clone(request),
            plan,
            cursor: 0,
            registers,
            noise,
            conditioning,
            loras,
            keep,
            paste,
            crop,
            denoised: None,
            serial: self.serial,
        })
    }

    fn evaluate(&mut self, runs: &mut [&mut Run]) -> Vec<Result<Advance, Failure>> {
        let Some(first) = runs.first() else { return Vec::new() };
        let model = first.model;
        let (mut inputs, mut timesteps) = (Vec::new(), Vec::new());
        for run in runs.iter() {
            let (x, t) = run.input();
            for _ in 0..run.conditioning.rows() {
                inputs.push(x.shallow_clone());
                timesteps.push(t);
            }
        }
        let x = Tensor::cat(&inputs, 0); // [B, C, H, W]
        let t = Tensor::from_slice(&timesteps).to_device(self.device); // [B]
        let conditioning = self.gather(runs);
        let model = &self.models[model];
        let loras = model.loras.rows(runs.iter().map(|run| (&run.loras, run.conditioning.rows())));
        let output = model.denoise(&x, &t, &conditioning, &loras);
        let mut from = 0;
        let mut answers = Vec::with_capacity(runs.len());
        for run in runs.iter_mut() {
            let rows = run.conditioning.rows();
            answers.push(Ok(run.advance(&output.narrow(0, from, rows))));
            from += rows;
        }
        answers
    }

    fn preview(&mut self, run: &Run) -> Result<Raster, Failure> {
        let Some(denoised) = &run.denoised else {
            return Err(Failure::new(FailureKind::Unsupported, "no estimate of the clean latent is kept"));
        };
        let (_, _, height, width) = denoised.size4().map_err(|error| Failure::new(FailureKind::Device, error.to_string()))?;
        let shrink = (height.max(width) / PREVIEW_SIDE).max(1);
        let small = if shrink == 1 {
            denoised.shallow_clone()
        } else {
            denoised.avg_pool2d([shrink, shrink], [shrink, shrink], [0, 0], false, true, None)
        };
        let picture = match &self.models[run.model].preview {
            Some(preview) => preview.decode(&small.to_kind(preview.kind())),
            None => self.decoded(run.model, &small),
        };
        from_tensor(&picture, Rounding::Round)
    }

    fn decode(&mut self, run: Run) -> Result<Raster, Failure> {
        self.forget_batch();
        let latent = run.latent();
        if !is_finite(&latent) {
            return Err(Failure::new(FailureKind::NotFinite, "the latent holds NaN or infinity"));
        }
        let mut picture = self.decoded(run.model, &latent).to_kind(Kind::Float); // [1, 3, H, W]
        if let Some([height, width]) = run.crop {
            picture = picture.narrow(2, 0, height).narrow(3, 0, width);
        }
        if let Some(Paste { picture: under, mask }) = &run.paste {
            picture = under + (picture.clamp(-1., 1.) - under) * mask;
        }
        if let Some(watch) = &self.watch {
            watch(&latent, &picture);
        }
        from_tensor(&picture, run.request.rounding)
    }

    fn probe(&mut self) -> Result<(), Failure> {
        self.forget_batch();
        let sum = Tensor::ones([8], (Kind::Float, self.device)).f_sum(Kind::Float).and_then(|sum| sum.f_double_value(&[]));
        match sum {
            Ok(8.) => Ok(()),
            Ok(other) => Err(Failure::new(FailureKind::Device, format!("eight ones add up to {other}"))),
            Err(error) => Err(Failure::new(FailureKind::Device, error.to_string())),
        }
    }
}
