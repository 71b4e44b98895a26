//! Jobs run alone, in this process, on a device without faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use ldm_core::{Raster, Request};
use ldm_engine::{Decoding, Executor};
use ldm_pipeline::DeviceExecutor;

use crate::script::Job;
use crate::served::device;

/// The pictures of each job, by its index. Two threads share the work.
pub(crate) fn pictures(jobs: &[&Job]) -> BTreeMap<usize, Vec<Raster>> {
    let draw = |jobs: &[&Job]| -> Vec<(usize, Vec<Raster>)> {
        let mut device = device().unwrap();
        jobs.iter().map(|job| (job.index, all(&mut device, job))).collect()
    };
    let (some, others) = jobs.split_at(jobs.len() / 2);
    std::thread::scope(|scope| {
        let there = scope.spawn(move || draw(others));
        let mut pictures: BTreeMap<_, _> = draw(some).into_iter().collect();
        pictures.extend(there.join().unwrap());
        pictures
    })
}

fn all(device: &mut DeviceExecutor, job: &Job) -> Vec<Raster> {
    let requests = job.draft().check(&device.catalogue()).unwrap();
    requests.into_iter().map(|request| picture(device, &Arc::new(request))).collect()
}

fn picture(device: &mut DeviceExecutor, request: &Arc<Request>) -> Raster {
    let mut run = device.prepare(request).unwrap().run;
    while device.evaluate(&mut [&mut run]).remove(0).unwrap().left > 0 {}
    device.decode(&mut run, Decoding::Usual).unwrap()
}
