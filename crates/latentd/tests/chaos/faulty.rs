//! The real executor, with things that go wrong as the script says.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ldm_core::{Catalogue, Checkpoint, Failure, FailureKind, Raster, Request};
use ldm_engine::{Advance, Decoding, Executor, ModelChange, Prepared, Price, Resident};
use ldm_pipeline::{DeviceExecutor, Given};

use crate::script::{Fault, Job, job_of};

/// Calls of the device that breaks before it may.
const CALLS: u32 = 20;

/// What the devices of a process share.
pub(crate) struct World {
    pub(crate) jobs: Vec<Job>,
    /// Its first device breaks once, and later it stands still.
    pub(crate) is_first: bool,
    /// Seeds whose fault comes once and has come.
    once: Mutex<HashSet<u64>>,
    /// Devices that were made.
    made: AtomicU32,
    is_still: AtomicBool,
}

impl World {
    pub(crate) fn new(jobs: Vec<Job>, is_first: bool) -> Self {
        Self { jobs, is_first, once: Mutex::default(), made: AtomicU32::new(0), is_still: AtomicBool::new(false) }
    }

    /// How many devices were made before.
    pub(crate) fn makes(&self) -> u32 {
        self.made.fetch_add(1, Ordering::SeqCst)
    }

    fn fault_of(&self, request: &Request) -> Option<Fault> {
        job_of(&self.jobs, request.seed)?.fault_of(request.seed)
    }

    fn is_first_time(&self, request: &Request) -> bool {
        self.once.lock().unwrap().insert(request.seed)
    }
}

/// Tells the driver what happens, a line each.
pub(crate) fn tell(line: &str) {
    println!("{line}");
}

fn strikes(fault: Fault, request: &Request) {
    tell(&format!("fault {} {}", fault.word(), request.seed));
}

fn memory<T>(fault: Fault, request: &Request) -> Result<T, Failure> {
    strikes(fault, request);
    Err(Failure::new(FailureKind::OutOfMemory, "no memory, says the script"))
}

/// A job in flight.
pub(crate) struct Run {
    inner: ldm_pipeline::Run,
    request: Arc<Request>,
    fault: Option<Fault>,
    /// Evaluations, in all and still to come.
    all: u32,
    left: u32,
    kept: Cell<u32>,
}

impl Run {
    /// The evaluation that is next, from 0.
    fn next(&self) -> u32 {
        self.all - self.left
    }
}

/// A device on which things go wrong.
pub(crate) struct Faulty {
    inner: DeviceExecutor,
    world: Arc<World>,
    /// It breaks for good, once.
    is_weak: bool,
    is_broken: bool,
    calls: u32,
    /// What the network gives next, a run each.
    given: Rc<RefCell<VecDeque<Option<Fault>>>>,
}

impl Faulty {
    pub(crate) fn new(device: DeviceExecutor, world: Arc<World>) -> Self {
        let given: Rc<RefCell<VecDeque<Option<Fault>>>> = Rc::default();
        let queue = Rc::clone(&given);
        let inner = device.tampered(Box::new(move |given| {
            let Given::Denoised(output) = given else { return };
            let fault = queue.borrow_mut().pop_front().flatten();
            match fault {
                Some(Fault::NotFinite(_, number)) => drop(output.fill_(number)),
                Some(fault) => panic!("{}, says the script", fault.word()),
                None => {}
            }
        }));
        let is_weak = world.makes() == 0 && world.is_first;
        Self { inner, world, is_weak, is_broken: false, calls: 0, given }
    }

    /// The device breaks when enough was done, under a job that has a checkpoint and will end.
    fn breaks(&mut self, runs: &[&mut Run]) -> bool {
        let is_sure = |run: &&&mut Run| {
            let job = job_of(&self.world.jobs, run.request.seed);
            run.kept.get() > 0 && job.is_some_and(|job| job.fault.is_none() && job.cancel_after.is_none())
        };
        let kept = runs.iter().find(is_sure);
        if let Some(run) = kept
            && self.is_weak
            && !self.is_broken
            && self.calls > CALLS
        {
            tell(&format!("broken {}", run.request.seed));
            self.is_broken = true;
        }
        self.is_broken
    }

    /// Stands still in a long job that has a checkpoint, once the broken device has been made again.
    fn stands_still(&self, runs: &[&mut Run]) {
        let world = &self.world;
        let is_time = world.is_first && world.made.load(Ordering::SeqCst) > 2;
        let is_long = |run: &&&mut Run| job_of(&world.jobs, run.request.seed).is_some_and(|job| job.is_long);
        let long = runs.iter().filter(is_long).find(|run| run.kept.get() > 0 && run.next() > 2);
        if let Some(run) = long.filter(|_| is_time)
            && !world.is_still.swap(true, Ordering::SeqCst)
        {
            tell(&format!("still {}", run.request.seed));
            loop {
                std::thread::park();
            }
        }
    }

    fn prepared(&mut self, request: &Arc<Request>, checkpoint: Option<&Checkpoint>) -> Result<Prepared<Run>, Failure> {
        let fault = self.world.fault_of(request);
        match fault {
            Some(fault @ Fault::Prepare) => {
                strikes(fault, request);
                panic!("preparing, says the script");
            }
            Some(fault @ Fault::PrepareMemory) if self.world.is_first_time(request) => return memory(fault, request),
            _ => {}
        }
        let all = self.inner.price(request)?.evaluations;
        let Prepared { run, price } = match checkpoint {
            None => self.inner.prepare(request)?,
            Some(checkpoint) => self.inner.restore(request, checkpoint)?,
        };
        let left = price.evaluations;
        if checkpoint.is_some() {
            tell(&format!("resumed {} {}", request.seed, all - left));
        }
        let request = Arc::clone(request);
        Ok(Prepared { run: Run { inner: run, request, fault, all, left, kept: Cell::new(0) }, price })
    }

    /// What the script says of the whole call.
    fn call(&self, runs: &[&mut Run]) -> Result<(), Failure> {
        let in_company = runs.len() > 1;
        for run in runs {
            let Some(fault) = run.fault else { continue };
            let now = run.next();
            match fault {
                Fault::Call(at) if at == now => {
                    strikes(fault, &run.request);
                    panic!("a call, says the script");
                }
                Fault::Company(at) if at == now && in_company && self.world.is_first_time(&run.request) => {
                    strikes(fault, &run.request);
                    panic!("a call with others in it, says the script");
                }
                Fault::CompanyMemory(at) if at == now && in_company => return memory(fault, &run.request),
                Fault::Memory(at) if at == now => return memory(fault, &run.request),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Executor for Faulty {
    type Run = Run;

    fn catalogue(&self) -> Catalogue {
        self.inner.catalogue()
    }

    fn price(&self, request: &Request) -> Result<Price, Failure> {
        self.inner.price(request)
    }

    fn prepare(&mut self, request: &Arc<Request>) -> Result<Prepared<Run>, Failure> {
        self.prepared(request, None)
    }

    fn restore(&mut self, request: &Arc<Request>, checkpoint: &Checkpoint) -> Result<Prepared<Run>, Failure> {
        self.prepared(request, Some(checkpoint))
    }

    fn evaluate(&mut self, runs: &mut [&mut Run]) -> Vec<Result<Advance, Failure>> {
        self.calls += 1;
        let failed = |runs: &[&mut Run], failure: &Failure| runs.iter().map(|_| Err(failure.clone())).collect();
        if self.breaks(runs) {
            return failed(runs, &Failure::new(FailureKind::Device, "CUDA error: unspecified launch failure, says the script"));
        }
        self.stands_still(runs);
        if let Err(failure) = self.call(runs) {
            return failed(runs, &failure);
        }
        let given = |run: &&mut Run| {
            let now = run.next();
            let fault = run.fault.filter(|fault| matches!(fault, Fault::Network(at) | Fault::NotFinite(at, _) if *at == now));
            fault.inspect(|fault| strikes(*fault, &run.request))
        };
        *self.given.borrow_mut() = runs.iter().map(given).collect();
        let mut inner: Vec<_> = runs.iter_mut().map(|run| &mut run.inner).collect();
        let answers = self.inner.evaluate(&mut inner);
        for (run, answer) in runs.iter_mut().zip(&answers) {
            run.left = answer.as_ref().map_or(run.left, |advance| advance.left);
        }
        answers
    }

    fn preview(&mut self, run: &Run) -> Result<Raster, Failure> {
        self.inner.preview(&run.inner)
    }

    fn decode(&mut self, run: &mut Run, how: Decoding) -> Result<Raster, Failure> {
        match run.fault {
            Some(fault @ Fault::Decode) => {
                strikes(fault, &run.request);
                panic!("decoding, says the script");
            }
            Some(fault @ Fault::DecodeMemory) if how == Decoding::Usual => memory(fault, &run.request),
            Some(fault @ Fault::NoPicture) => memory(fault, &run.request),
            _ => self.inner.decode(&mut run.inner, how),
        }
    }

    fn probe(&mut self) -> Result<(), Failure> {
        if self.is_broken {
            return Err(Failure::new(FailureKind::Device, "broken for good, says the script"));
        }
        self.inner.probe()
    }

    fn checkpoint(&mut self, run: &Run) -> Result<Checkpoint, Failure> {
        if let Some(fault @ Fault::Checkpoint) = run.fault {
            strikes(fault, &run.request);
            panic!("a checkpoint, says the script");
        }
        run.kept.set(run.kept.get() + 1);
        self.inner.checkpoint(&run.inner)
    }

    fn relieve(&mut self) {
        self.inner.relieve();
    }

    fn residents(&self) -> Vec<Resident> {
        self.inner.residents()
    }

    fn load(&mut self, model: &str) -> Result<(), Failure> {
        self.inner.load(model)
    }

    fn unload(&mut self, model: &str) {
        self.inner.unload(model);
    }

    fn change(&mut self, change: &ModelChange) -> Result<(), Failure> {
        self.inner.change(change)
    }
}
