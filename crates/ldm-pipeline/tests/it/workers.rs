//! Several workers in one process: each has its own threads and its own copy of what is packed, and draws the same pictures.

use std::sync::{Arc, Barrier};

use ldm_core::Draft;
use ldm_engine::Executor;
use ldm_pipeline::LoadOptions;

use crate::rig::{Finished, device, directory, draft, load, options, request, solo};

fn jobs() -> Vec<Draft> {
    let with = |sampler: &str, seed| Draft { sampler: Some(sampler.into()), seed: Some(seed), ..draft("a photo of a cat") };
    vec![with("euler_a", 1), with("dpmpp_2m", 2), with("dpmpp_2m_sde", 3)]
}

#[test]
fn two_workers_at_once_draw_the_same_pictures() {
    let mut alone = device();
    let reference: Vec<Finished> = jobs().into_iter().map(|draft| crate::rig::draw(&mut alone, draft)).collect();
    let both = Arc::new(Barrier::new(2));
    let work = || {
        let both = Arc::clone(&both);
        std::thread::spawn(move || {
            let mut device = device();
            both.wait();
            let pictures: Vec<_> = jobs().into_iter().map(|draft| crate::rig::draw(&mut device, draft)).collect();
            pictures
        })
    };
    let workers = [work(), work()];
    for worker in workers {
        assert!(worker.join().expect("it draws") == reference);
    }
}

#[test]
fn each_worker_has_its_own_number_of_threads() {
    let both = Arc::new(Barrier::new(2));
    let work = |threads: usize| {
        let both = Arc::clone(&both);
        std::thread::spawn(move || {
            let tiny = directory().join("tiny-sd");
            let mut device = load(&tiny, &LoadOptions { threads: Some(threads), ..options() }).expect("it loads");
            // Both have said their number by now, and both compute.
            both.wait();
            let job = request(&device, draft("a cat"));
            solo(&mut device, &job);
            both.wait();
            assert!(device.probe().is_ok());
            tch::get_num_threads()
        })
    };
    let workers = [work(1), work(2)];
    assert_eq!(workers.map(|worker| worker.join().expect("it ends")), [1, 2]);
}
