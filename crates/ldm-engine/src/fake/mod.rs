//! An executor without a model, for tests of the engine, of the HTTP edge, and of the service from outside.
//!
//! Its pictures depend on seed and size alone. Words in a prompt make a job go wrong (see [`script`]), [`FakeOptions`] say
//! how long things take, and [`FakeControl`] lets a test hold the device still at a [`Gate`] and count what it did.

mod catalogue;
mod control;
mod gate;
pub mod script;

pub use control::{Call, FakeControl};
pub use gate::Gate;

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Catalogue, Failure, FailureKind, Raster, Request};

use crate::{Advance, BatchKey, Executor, Price};
use script::{At, Script};

/// How a [`FakeExecutor`] behaves; by default nothing takes any time.
#[derive(Clone, Debug)]
pub struct FakeOptions {
    /// How long loading takes.
    pub load: Duration,
    /// Why loading fails, if it does.
    pub load_failure: Option<String>,
    /// How long a preparation takes.
    pub prepare: Duration,
    /// How long a network call takes, whatever its rows.
    pub step: Duration,
    /// How long decoding takes.
    pub decode: Duration,
    /// Rows that a call may hold.
    pub row_cap: u32,
    /// Whether the device is broken after a panic.
    pub probe_fails: bool,
}

impl Default for FakeOptions {
    fn default() -> Self {
        let none = Duration::ZERO;
        Self { load: none, load_failure: None, prepare: none, step: none, decode: none, row_cap: 16, probe_fails: false }
    }
}

/// An executor without a model.
#[derive(Debug)]
pub struct FakeExecutor {
    options: FakeOptions,
    control: Arc<FakeControl>,
}

/// A job in flight.
#[derive(Debug)]
pub struct FakeRun {
    request: Arc<Request>,
    script: Script,
    evaluations: u32,
    evaluations_per_step: u32,
    steps: u32,
}

impl FakeExecutor {
    /// An executor that behaves so.
    pub fn new(options: FakeOptions) -> Self {
        Self { options, control: Arc::new(FakeControl::default()) }
    }

    /// What a test holds the executor by; take it before the executor goes to its thread.
    pub fn control(&self) -> Arc<FakeControl> {
        Arc::clone(&self.control)
    }

    /// What [`Service::start`](crate::Service::start) takes: loads as slowly, and as well, as the options say.
    pub fn loader(self) -> impl FnOnce() -> Result<Self, Failure> + Send + 'static {
        move || {
            self.control.loading.pass();
            pause(self.options.load);
            match &self.options.load_failure {
                Some(reason) => Err(Failure::new(FailureKind::Device, reason.clone())),
                None => Ok(self),
            }
        }
    }

    /// What it offers: the model `fake` for both tasks, sizes 64 to 1024, and a handful of samplers.
    pub fn catalogue_example() -> Catalogue {
        catalogue::example()
    }

    /// The picture that a seed gives.
    pub fn picture(seed: u64, width: u32, height: u32) -> Raster {
        let mut state = seed ^ (u64::from(width) << 32 | u64::from(height));
        let bytes: Vec<u8> = (0..width as usize * height as usize * 3).map(|_| splitmix(&mut state) as u8).collect();
        Raster::new(width, height, bytes).expect("three bytes per pixel")
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a whole generator in four lines.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pause(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

impl Executor for FakeExecutor {
    type Run = FakeRun;

    fn catalogue(&self) -> Catalogue {
        Self::catalogue_example()
    }

    fn price(&self, request: &Request) -> Result<Price, Failure> {
        Script::of(&request.prompt).act(At::Price)?;
        let latent = [4, request.height / 8, request.width / 8];
        let key = BatchKey { model: request.model.clone(), latent, cross: [77, 8] };
        let rows = if request.guidance == 1.0 { 1 } else { 2 };
        Ok(Price { key, rows, row_cap: self.options.row_cap })
    }

    fn prepare(&mut self, request: &Arc<Request>) -> Result<FakeRun, Failure> {
        self.control.prepared(request.seed);
        pause(self.options.prepare);
        let script = Script::of(&request.prompt);
        script.act(At::Prepare)?;
        let strength = request.work.strength().unwrap_or(1.0);
        let steps = ((f64::from(request.steps) * strength) as u32).max(1);
        let evaluations_per_step = if request.sampler == "heun" { 2 } else { 1 };
        Ok(FakeRun { request: Arc::clone(request), script, evaluations: 0, evaluations_per_step, steps })
    }

    fn evaluate(&mut self, runs: &mut [&mut FakeRun]) -> Vec<Result<Advance, Failure>> {
        let rows = runs.iter().map(|run| if run.request.guidance == 1.0 { 1 } else { 2 }).sum();
        self.control.called(Call { seeds: runs.iter().map(|run| run.request.seed).collect(), rows });
        self.control.steps.pass();
        pause(self.options.step);
        let advance = |run: &mut &mut FakeRun| {
            let step = run.evaluations / run.evaluations_per_step + 1;
            run.script.act(At::Step(step))?;
            run.evaluations += 1;
            self.control.stepped(run.request.seed);
            Ok(Advance { step, steps: run.steps, finished: run.evaluations == run.steps * run.evaluations_per_step })
        };
        runs.iter_mut().map(advance).collect()
    }

    fn preview(&mut self, run: &FakeRun) -> Result<Raster, Failure> {
        self.control.previewed(run.request.seed);
        run.script.act(At::Preview)?;
        let shade = (255 * run.evaluations / (run.steps * run.evaluations_per_step)) as u8;
        Ok(Raster::filled(run.request.width / 8, run.request.height / 8, [shade; 3]))
    }

    fn decode(&mut self, run: FakeRun) -> Result<Raster, Failure> {
        self.control.decoding.pass();
        pause(self.options.decode);
        run.script.act(At::Decode)?;
        Ok(Self::picture(run.request.seed, run.request.width, run.request.height))
    }

    fn probe(&mut self) -> Result<(), Failure> {
        self.control.probed();
        if self.options.probe_fails { Err(Failure::new(FailureKind::Device, "the fake device is broken")) } else { Ok(()) }
    }
}
