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

use ldm_core::{Catalogue, Checkpoint, Failure, FailureKind, Raster, Request};

use crate::cost::Profile;
use crate::{Advance, BatchKey, Decoding, Executor, ModelChange, Prepared, Price, Resident};
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
    /// How much longer it takes for each row.
    pub row: Duration,
    /// Rows with which a call runs out of memory.
    pub memory_rows: u32,
    /// Whether calls can be rehearsed; they are said to take as long as others, and take no time.
    pub rehearses: bool,
    /// Whether the device is broken after a panic.
    pub probe_fails: bool,
    /// Models, and whether they are loaded at the start; each takes 100 bytes. One called `pixel` makes pictures of one pixel.
    pub models: Vec<(String, bool)>,
}

impl Default for FakeOptions {
    fn default() -> Self {
        let none = Duration::ZERO;
        Self {
            load: none,
            load_failure: None,
            prepare: none,
            step: none,
            decode: none,
            row: none,
            memory_rows: u32::MAX,
            rehearses: false,
            probe_fails: false,
            models: vec![("fake".to_owned(), true)],
        }
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
}

/// Steps that are run, and network calls of each.
fn steps(request: &Request) -> (u32, u32) {
    let strength = request.work.strength().unwrap_or(1.0);
    (((f64::from(request.steps) * strength) as u32).max(1), if request.sampler == "heun" { 2 } else { 1 })
}

fn evaluations(request: &Request) -> u32 {
    let (steps, each) = steps(request);
    steps * each
}

fn rows(request: &Request) -> u32 {
    if request.guidance == 1.0 { 1 } else { 2 }
}

fn price(request: &Request, evaluations: u32) -> Price {
    let latent = [4, (request.height / 8).max(1), (request.width / 8).max(1)];
    Price { key: BatchKey { model: request.model.clone(), latent, cross: [77, 8] }, rows: rows(request), evaluations }
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

    /// What [`Worker::new`](crate::Worker::new) takes: a new executor at every start, under the same control.
    pub fn maker(self) -> impl FnMut() -> Result<Self, Failure> + Send + 'static {
        move || Self { options: self.options.clone(), control: Arc::clone(&self.control) }.loader()()
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

    fn set_loaded(&mut self, model: &str, is: bool) {
        if let Some((_, loaded)) = self.options.models.iter_mut().find(|(id, _)| id == model) {
            *loaded = is;
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
        let mut catalogue = Self::catalogue_example();
        let model = catalogue.models.remove(0);
        catalogue.models = self.options.models.iter().map(|(id, _)| catalogue::model(&model, id)).collect();
        catalogue
    }

    fn price(&self, request: &Request) -> Result<Price, Failure> {
        let script = Script::of(&request.prompt);
        script.act(At::Price)?;
        Ok(price(request, evaluations(request)))
    }

    fn working_bytes(&self, request: &Request) -> Option<u64> {
        Some(u64::from(rows(request)) * u64::from(request.width) * u64::from(request.height))
    }

    fn prepare(&mut self, request: &Arc<Request>) -> Result<Prepared<FakeRun>, Failure> {
        self.control.prepared(request.seed);
        pause(self.options.prepare);
        if !self.options.models.iter().any(|(id, loaded)| *loaded && *id == request.model) {
            return Err(Failure::new(FailureKind::Unsupported, format!("model {:?} is not loaded", request.model)));
        }
        let script = Script::of(&request.prompt);
        script.act(At::Prepare)?;
        if self.control.preparations().iter().filter(|seed| **seed == request.seed).count() == 1 {
            script.act(At::First)?;
        }
        let run = FakeRun { request: Arc::clone(request), script, evaluations: 0 };
        Ok(Prepared { run, price: price(request, evaluations(request)) })
    }

    fn evaluate(&mut self, runs: &mut [&mut FakeRun]) -> Vec<Result<Advance, Failure>> {
        let rows = runs.iter().map(|run| rows(&run.request)).sum();
        self.control.called(Call { seeds: runs.iter().map(|run| run.request.seed).collect(), rows });
        self.control.steps.pass();
        pause(self.options.step + self.options.row * rows);
        if rows > self.options.memory_rows {
            let failure = Failure::new(FailureKind::OutOfMemory, format!("{rows} rows are too many"));
            return runs.iter().map(|_| Err(failure.clone())).collect();
        }
        let advance = |run: &mut &mut FakeRun| {
            let (steps, each) = steps(&run.request);
            let step = run.evaluations / each + 1;
            run.script.act(At::Step(step))?;
            run.evaluations += 1;
            self.control.stepped(run.request.seed);
            Ok(Advance { step, steps, left: steps * each - run.evaluations, moved: None })
        };
        runs.iter_mut().map(advance).collect()
    }

    fn preview(&mut self, run: &FakeRun) -> Result<Raster, Failure> {
        self.control.previewed(run.request.seed);
        run.script.act(At::Preview)?;
        let shade = (255 * run.evaluations / evaluations(&run.request)) as u8;
        Ok(Raster::filled((run.request.width / 8).max(1), (run.request.height / 8).max(1), [shade; 3]))
    }

    fn decode(&mut self, run: &mut FakeRun, how: Decoding) -> Result<Raster, Failure> {
        self.control.decoding.pass();
        pause(self.options.decode);
        if how == Decoding::Usual {
            run.script.act(At::Usual)?;
        }
        run.script.act(At::Decode)?;
        Ok(Self::picture(run.request.seed, run.request.width, run.request.height))
    }

    fn checkpoint(&mut self, run: &FakeRun) -> Result<Checkpoint, Failure> {
        let step = run.evaluations / steps(&run.request).1;
        Ok(Checkpoint { step, bytes: run.evaluations.to_le_bytes().as_slice().into() })
    }

    fn restore(&mut self, request: &Arc<Request>, checkpoint: &Checkpoint) -> Result<Prepared<FakeRun>, Failure> {
        let Prepared { mut run, price } = self.prepare(request)?;
        if let Ok(done) = checkpoint.bytes.as_ref().try_into() {
            run.evaluations = u32::from_le_bytes(done);
        }
        let left = price.evaluations.saturating_sub(run.evaluations);
        Ok(Prepared { run, price: Price { evaluations: left, ..price } })
    }

    fn relieve(&mut self) {
        self.control.relieved();
    }

    fn recall(&mut self, model: &str) -> Option<Profile> {
        self.control.profile().filter(|profile| profile.keys.iter().any(|key| key.key.model == model))
    }

    fn rehearse(&mut self, model: &str, rows: u32) -> Result<Option<(BatchKey, Duration)>, Failure> {
        if !self.options.rehearses {
            return Ok(None);
        }
        self.control.rehearse(rows);
        self.control.rehearsing.pass();
        if rows > self.options.memory_rows {
            return Err(Failure::new(FailureKind::OutOfMemory, format!("{rows} rows are too many")));
        }
        let took = self.options.step + self.options.row * rows;
        Ok(Some((BatchKey { model: model.to_owned(), latent: [4, 64, 64], cross: [77, 8] }, took)))
    }

    fn rehearsed(&mut self, _model: &str, profile: &Profile) {
        self.control.keep(profile.clone());
    }

    fn residents(&self) -> Vec<Resident> {
        let resident = |(id, loaded): &(String, bool)| Resident { id: id.clone(), loaded: *loaded, bytes: 100 };
        self.options.models.iter().map(resident).collect()
    }

    fn load(&mut self, model: &str) -> Result<(), Failure> {
        pause(self.options.load);
        self.control.loaded(model);
        self.set_loaded(model, true);
        Ok(())
    }

    fn unload(&mut self, model: &str) {
        self.control.unloaded(model);
        self.set_loaded(model, false);
    }

    fn change(&mut self, change: &ModelChange) -> Result<(), Failure> {
        match change {
            ModelChange::Put(source) => {
                let source = source.downcast_ref::<String>();
                let id = source.ok_or_else(|| Failure::new(FailureKind::Unsupported, "a fake model is a name"))?;
                self.options.models.retain(|(known, _)| known != id);
                self.options.models.push((id.clone(), true));
            }
            ModelChange::Remove(id) => self.options.models.retain(|(known, _)| known != id),
            ModelChange::Reload(id) => self.set_loaded(id, true),
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<(), Failure> {
        self.control.probed();
        if self.options.probe_fails { Err(Failure::new(FailureKind::Device, "the fake device is broken")) } else { Ok(()) }
    }
}
