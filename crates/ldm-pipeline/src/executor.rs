//! The executor: models of one device, and jobs run on them together.

mod checkpoint;
mod decode;
mod finite;
mod shelf;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Catalogue, Checkpoint, Failure, FailureKind, Mode, Raster, Request};
use ldm_engine::cost::Profile;
use ldm_engine::{Advance, BatchKey, CacheCounts, Decoding, Executor, ModelChange, Prepared, Price, Resident};
use tch::{Kind, Tensor};

use crate::catalogue::samplers;
use crate::conditioning::Conditioning;
use crate::families::ModelError;
use crate::faults::guarded;
use crate::hires::Second;
use crate::options::{LoadOptions, ModelSource};
use crate::run::{Guided, Next, Run};
use crate::tasks::{self, Bench, Start};
use finite::{at_step, finite};
use shelf::Shelf;

/// Sees each finished latent `[1, C, H, W]`, as the denoiser has it, and its picture `[1, 3, H, W]` before rounding.
pub type Watch = Box<dyn Fn(&Tensor, &Tensor)>;

/// What networks gave, before anything is made of it.
pub enum Given<'a> {
    /// The denoiser's output for a call, float32 `[B, C, H, W]`.
    Denoised(&'a mut Tensor),
    /// The first stage's picture `[1, 3, H, W]` in its own dtype, or in tiles' one.
    Decoded(&'a mut Tensor),
}

/// May change what networks give, or panic: how tests make things go wrong.
pub type Tamper = Box<dyn FnMut(Given<'_>)>;

/// One device with its models. Not `Send`: it lives on the thread that loaded it.
pub struct DeviceExecutor {
    pub(crate) shelf: Shelf,
    pub(crate) options: LoadOptions,
    device: tch::Device,
    watch: Option<Watch>,
    tamper: Option<Tamper>,
    /// Conditioning of the last call, by the serials of its runs: unchanged while nobody joins or leaves.
    together: Option<(Vec<u64>, Rc<Conditioning>)>,
    serial: u64,
    /// What rehearsals of a model are made with.
    pub(crate) rehearsal: Option<(String, Run)>,
    /// Gradients are off on this thread for as long as the executor lives.
    _no_grad: tch::NoGradGuard,
}

impl DeviceExecutor {
    /// Describes all models, and loads those that are not lazy onto the device, on the thread that will run them.
    pub fn load(sources: &[ModelSource], options: &LoadOptions) -> Result<Self, ModelError> {
        if let crate::Device::Cuda(index) = options.device
            && (!tch::Cuda::is_available() || index as i64 >= tch::Cuda::device_count())
        {
            return Err(ModelError::NoDevice(options.device.to_string()));
        }
        if let Some(threads) = options.threads {
            // Of this thread alone: OpenMP keeps the number, and a team of threads, for each thread that computes. A thread that has
            // not asked for its number yet takes, at its first operation, whatever was set last in the process: so it asks first.
            let _usual = tch::get_num_threads();
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let no_grad = tch::no_grad_guard();
        if sources.is_empty() {
            return Err(ModelError::Mismatch("no model to load".into()));
        }
        Ok(Self {
            shelf: Shelf::new(sources, options)?,
            options: options.clone(),
            device: options.device.tch(),
            watch: None,
            tamper: None,
            together: None,
            serial: 0,
            rehearsal: None,
            _no_grad: no_grad,
        })
    }

    /// Calls `watch` with everything that is decoded from now on.
    pub fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Calls `tamper` with everything that networks give from now on.
    pub fn tampered(self, tamper: Tamper) -> Self {
        Self { tamper: Some(tamper), ..self }
    }

    fn tamper(&mut self, given: Given<'_>) {
        if let Some(tamper) = &mut self.tamper {
            tamper(given);
        }
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

    /// The denoiser's output for all rows of a call, float32 `[B, C, H, W]`.
    fn network(&mut self, runs: &[&mut Run]) -> Tensor {
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
        let system = &runs[0].system;
        let loras = system.loras.rows(runs.iter().map(|run| (&run.loras, run.conditioning.rows())));
        let mut output = system.denoise(&x, &t, &conditioning, &loras);
        self.tamper(Given::Denoised(&mut output));
        output
    }

    /// One network call for all runs. Whatever goes wrong, a run either advances or stays as it was.
    fn call(&mut self, runs: &mut [&mut Run]) -> Vec<Result<Advance, Failure>> {
        let made = guarded(|| {
            let output = self.network(runs);
            let mut from = 0;
            let mut nexts = Vec::with_capacity(runs.len());
            for run in runs.iter_mut() {
                let rows = run.conditioning.rows();
                nexts.push(guarded(|| Ok(run.next(&output.narrow(0, from, rows)))));
                from += rows;
            }
            finite(nexts)
        });
        match made {
            Ok(nexts) => runs.iter_mut().zip(nexts).map(|(run, next)| self.take(run, next)).collect(),
            Err(failure) => {
                self.forget_batch();
                runs.iter().map(|_| Err(failure.clone())).collect()
            }
        }
    }

    /// The run goes on with what a call made of it, and into its second pass when that was the last of the first.
    fn take(&mut self, run: &mut Run, next: Result<Next, Failure>) -> Result<Advance, Failure> {
        let next = next.map_err(|failure| at_step(run, failure))?;
        let Some(second) = run.turns() else { return Ok(run.take(next)) };
        let (pass, key) = guarded(|| Ok((run.turn(second, &next)?, run.system.key(&second.request)?)))?;
        let advance = run.take(next);
        self.serial += 1;
        run.enter(pass, self.serial);
        let moved = Price { key, rows: run.conditioning.rows() as u32, evaluations: run.left() };
        Ok(Advance { moved: Some(moved), ..advance })
    }

    fn start(&mut self, request: &Arc<Request>) -> Result<Run, Failure> {
        let system = self.shelf.system(&request.model)?;
        let plan = tasks::plan(&system.sketch.scheduler, request)?;
        let mut noise = tasks::noise(request);
        let bench = Bench { stage: &system.stage, concat: &system.concat, request, plan: &plan, noise: &mut noise };
        let Start { latent, concat, keep, paste, overlay, crop } = tasks::start(bench)?;
        let loras = system.loras.choose(request)?;
        let conditioning = system.condition(request, &loras, concat.as_ref())?;
        let mut registers: Vec<Option<Tensor>> = (0..plan.registers).map(|_| None).collect();
        registers[0] = Some(latent);
        self.serial += 1;
        let second = Second::of(&system.sketch, request)?;
        Ok(Run {
            system,
            asked: Arc::clone(request),
            request: Arc::clone(request),
            plan,
            second,
            passed: 0,
            cursor: 0,
            registers,
            noise,
            conditioning,
            loras,
            keep,
            paste,
            overlay,
            crop,
            denoised: None,
            serial: self.serial,
        })
    }

    /// The run with what is left of it.
    fn prepared(run: Run) -> Result<Prepared<Run>, Failure> {
        let key = run.system.key(&run.request)?;
        let price = Price { key, rows: run.conditioning.rows() as u32, evaluations: run.left() };
        Ok(Prepared { run, price })
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
            models: self.shelf.entries.iter().map(|entry| entry.described.about.clone()).collect(),
            samplers: samplers(),
            bounds: self.options.bounds,
        }
    }

    fn price(&self, request: &Request) -> Result<Price, Failure> {
        let entry = self.shelf.find(&request.model)?;
        let sketch = &entry.described.sketch;
        let key = match &entry.system {
            Some(system) => system.key(request)?,
            None => BatchKey { model: entry.name(), latent: sketch.latent(request), cross: sketch.cross(request) },
        };
        let first = tasks::plan(&sketch.scheduler, request)?.evaluations();
        let second = Second::of(sketch, request)?.map_or(0, |second| second.plan.evaluations());
        Ok(Price { key, rows: if sketch.is_guided(request) { 2 } else { 1 }, evaluations: (first + second) as u32 })
    }

    fn working_bytes(&self, request: &Request) -> Option<u64> {
        let described = &self.shelf.find(&request.model).ok()?.described;
        let [_, height, width] = described.sketch.latent(request).map(f64::from);
        let rows = if described.sketch.is_guided(request) { 2 } else { 1 };
        let pixels = f64::from(request.width) * f64::from(request.height);
        Some(described.working.bytes(rows, height * width, pixels))
    }

    fn prepare(&mut self, request: &Arc<Request>) -> Result<Prepared<Run>, Failure> {
        guarded(|| {
            let run = self.start(request)?;
            Self::prepared(run)
        })
    }

    fn evaluate(&mut self, runs: &mut [&mut Run]) -> Vec<Result<Advance, Failure>> {
        match self.options.mode {
            _ if runs.is_empty() => Vec::new(),
            Mode::Fast => self.call(runs),
            Mode::BatchInvariant => runs.iter_mut().flat_map(|run| self.call(&mut [run])).collect(),
        }
    }

    fn preview(&mut self, run: &Run) -> Result<Raster, Failure> {
        guarded(|| self.small_picture(run))
    }

    fn decode(&mut self, run: &mut Run, how: Decoding) -> Result<Raster, Failure> {
        self.forget_batch();
        guarded(|| self.picture(run, how))
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

    fn checkpoint(&mut self, run: &Run) -> Result<Checkpoint, Failure> {
        guarded(|| checkpoint::write(run, &self.options))
    }

    fn restore(&mut self, request: &Arc<Request>, checkpoint: &Checkpoint) -> Result<Prepared<Run>, Failure> {
        guarded(|| {
            let mut run = self.start(request)?;
            if let Err(mismatch) = checkpoint::read(&mut run, checkpoint, &self.options) {
                tracing::warn!(model = request.model, step = checkpoint.step, %mismatch, "the job starts from the beginning");
            }
            Self::prepared(run)
        })
    }

    /// Prompts, the conditioning of the last call, and first stages in float32. What libtorch's allocator keeps for a GPU it lets go of
    /// by itself, before it says that there is none left.
    fn relieve(&mut self) {
        self.forget_batch();
        self.rehearsal = None;
        self.shelf.entries.iter().filter_map(|entry| entry.system.as_ref()).for_each(|system| system.relieve());
    }

    fn recall(&mut self, model: &str) -> Option<Profile> {
        self.kept_profile(model)
    }

    fn rehearse(&mut self, model: &str, rows: u32) -> Result<Option<(BatchKey, Duration)>, Failure> {
        guarded(|| self.timed_call(model, rows)).map(Some)
    }

    fn rehearsed(&mut self, model: &str, profile: &Profile) {
        self.rehearsal = None;
        self.keep_profile(model, profile);
    }

    fn cache(&self) -> CacheCounts {
        let systems = self.shelf.entries.iter().filter_map(|entry| entry.system.as_ref());
        systems
            .map(|system| system.cache())
            .fold(CacheCounts::default(), |all, one| CacheCounts { hits: all.hits + one.hits, misses: all.misses + one.misses })
    }

    fn residents(&self) -> Vec<Resident> {
        self.shelf.residents()
    }

    fn load(&mut self, model: &str) -> Result<(), Failure> {
        guarded(|| self.shelf.load(model))
    }

    fn unload(&mut self, model: &str) {
        self.forget_batch();
        self.rehearsal = None;
        self.shelf.unload(model);
    }

    fn change(&mut self, change: &ModelChange) -> Result<(), Failure> {
        self.forget_batch();
        self.rehearsal = None;
        guarded(|| match change {
            ModelChange::Put(source) => match source.downcast_ref::<ModelSource>() {
                Some(source) => self.shelf.put(source),
                None => Err(Failure::new(FailureKind::Unsupported, "a model is put by its `ModelSource`")),
            },
            ModelChange::Remove(id) => self.shelf.remove(id),
            ModelChange::Reload(id) => self.shelf.reload(id),
        })
    }
}
