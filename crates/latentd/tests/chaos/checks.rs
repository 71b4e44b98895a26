//! What has to be true in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_cluster::Sqlite;
use ldm_core::Tenant;
use ldm_engine::ledger::{Ledger, LedgerLimits, MAX_PAGE, Query};

use crate::driver::Driver;
use crate::process::{Process, said};
use crate::script::{Fault, JOBS, Job, job_of};
use crate::solo;

/// One device was retired and made again, and calls failed whose jobs went on.
pub(crate) fn metrics(process: &Process) {
    let text = String::from_utf8(process.get("/metrics").body).unwrap();
    let sum = |name: &str, label: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert_eq!(sum("latentd_worker_retirements_total", ""), 1.0);
    assert_eq!(sum("latentd_worker_restarts_total", ""), 1.0);
    for kind in ["panicked", "out_of_memory", "device"] {
        assert!(sum("latentd_faults_survived_total", kind) > 0.0, "{kind}:\n{text}");
    }
}

/// Each job ended as the script says, and has the pictures that it has alone.
pub(crate) fn jobs(driver: &Driver) {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pictured: Vec<&Job> = Vec::new();
    for job in &driver.jobs {
        let view = &driver.ended[&job.index];
        let state = view["state"].as_str().unwrap();
        *states.entry(state).or_default() += 1;
        let reason = job.fault.and_then(Fault::reason);
        match state {
            "succeeded" => pictured.push(job),
            "failed" => assert_eq!(view["error"]["code"].as_str(), reason, "job {}: {view}", job.index),
            "canceled" => assert!(driver.stopped.contains_key(&job.index), "nobody stopped job {}", job.index),
            _ => panic!("job {}: {view}", job.index),
        }
        assert!(state != "succeeded" || reason.is_none(), "{job:?} cannot have a picture");
    }
    for (index, answer) in &driver.stopped {
        assert!(answer["state"] != "canceled" || driver.ended[index]["state"] == "canceled", "job {index} came back");
    }
    println!("{states:?}");
    assert!(states["canceled"] > 4 && states["failed"] > 9 && states["succeeded"] > JOBS / 2, "{states:?}");

    let alone = solo::pictures(&pictured);
    for job in pictured {
        let images = driver.ended[&job.index]["images"].as_array().unwrap();
        let expected = &alone[&job.index];
        assert_eq!(images.len(), expected.len());
        for (image, expected) in images.iter().zip(expected) {
            let file = driver.process.get(image["url"].as_str().unwrap());
            assert_eq!(file.status, 200);
            let found = ldm_http::read_picture(&file.body, 1 << 20).unwrap();
            assert!(found == *expected, "{job:?} has another picture than alone");
        }
    }
}

/// What the file holds when nobody writes to it any more is what clients were told.
pub(crate) fn records(driver: &Driver, folder: &Path) {
    let ledger = Sqlite::open(folder, LedgerLimits::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut found, mut before) = (BTreeMap::new(), None);
    loop {
        let query = Query { tenant: Tenant::default(), before, phases: Vec::new(), limit: MAX_PAGE };
        let page = runtime.block_on(ledger.list(&query)).unwrap();
        found.extend(page.jobs.iter().map(|view| (view.name.clone().unwrap(), view.state.name())));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let told = driver.jobs.iter().map(|job| (job.name(), driver.ended[&job.index]["state"].as_str().unwrap()));
    assert_eq!(found, told.collect());
}

/// Every kind of fault was there; what was broken off went on from its checkpoint; no job was ended twice.
pub(crate) fn log(driver: &Driver, first: &[String], second: &[String], still: u64) {
    let both = [first, second].concat();
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    for line in said(&both, "fault") {
        *faults.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    println!("{faults:?}");
    let expected: BTreeSet<&str> =
        driver.jobs.iter().filter_map(|job| job.fault).map(Fault::word).chain(["lost-answer"]).collect();
    assert_eq!(faults.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "not every fault was there");

    // Taken up after so many evaluations.
    let resumed = |lines: &[String], seed: u64| -> Vec<u32> {
        let of = |line: &String| line.split_once(' ').filter(|(of, _)| of.parse() == Ok(seed)).map(|(_, at)| at.parse().unwrap());
        said(lines, "resumed").iter().filter_map(of).collect()
    };
    let broken = said(&both, "broken");
    let [seed] = broken.as_slice() else { panic!("devices broke under {broken:?}") };
    let at = first.iter().position(|line| line.starts_with("broken ")).unwrap();
    let after = resumed(&first[at..], seed.parse().unwrap());
    assert!(after.first().is_some_and(|done| *done > 0), "the job of the lost device began again: {after:?}");
    assert_eq!(said(&both, "still"), [still.to_string()]);
    let after = resumed(second, still);
    assert!(after.first().is_some_and(|done| *done > 0), "the job of the killed process began again: {after:?}");
    let crashes = driver.ended[&job_of(&driver.jobs, still).unwrap().index]["crashes"].as_u64();
    assert_eq!(crashes, Some(1));

    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    said(&both, "ended").into_iter().for_each(|id| *endings.entry(id).or_default() += 1);
    let twice: Vec<_> = endings.iter().filter(|(_, times)| **times > 1).collect();
    assert!(endings.len() > JOBS / 2 && twice.is_empty(), "ended twice: {twice:?}");
}
