//! The client: hands all jobs in, stops some, kills the service in between, and waits for all to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ask::{Answer, DEADLINE};
use crate::process::{Process, SECOND, put, until};
use crate::script::{JOBS, Job, job_of, jobs};

/// Jobs that are handed in before the first of them has ended.
const AHEAD: usize = 60;
/// Jobs that are handed in while the process is killed.
const AT_ONCE: usize = 10;
/// States that are the last.
const LAST: [&str; 4] = ["succeeded", "failed", "canceled", "expired"];

/// What the client knows.
pub(crate) struct Driver {
    pub(crate) jobs: Vec<Job>,
    pub(crate) process: Process,
    folder: PathBuf,
    /// What the service calls the jobs that were handed in.
    ids: Vec<Option<String>>,
    sent: usize,
    /// Jobs as they were when they had ended, by index.
    pub(crate) ended: BTreeMap<usize, Value>,
    /// What the service said when a job was to stop.
    pub(crate) stopped: BTreeMap<usize, Value>,
    progress: Instant,
}

impl Driver {
    pub(crate) fn new(process: Process, folder: PathBuf) -> Self {
        let (ids, ended, stopped) = (vec![None; JOBS], BTreeMap::new(), BTreeMap::new());
        Self { jobs: jobs(), process, folder, ids, sent: 0, ended, stopped, progress: Instant::now() }
    }

    pub(crate) fn id(&self, index: usize) -> &str {
        self.ids[index].as_deref().expect("it was handed in")
    }

    fn put(&mut self, index: usize) {
        let job = &self.jobs[index];
        let answer = put(&self.process.address, &job.name(), &job.body()).unwrap();
        self.accepted(index, &answer);
    }

    /// However often it is handed in, it is one job.
    fn accepted(&mut self, index: usize, answer: &Answer) {
        let json = answer.json();
        assert!([200, 202].contains(&answer.status), "job {index}: {} {json}", answer.status);
        let id = json["id"].as_str().unwrap().to_owned();
        assert!(answer.head.contains(&format!("x-job-id: {id}")), "{}", answer.head);
        let known = self.ids[index].get_or_insert_with(|| id.clone());
        assert_eq!(*known, id, "job {index} has two ids");
    }

    /// Hands in what there is room for, looks at all jobs, stops those that are to stop now.
    fn turn(&mut self) {
        while self.sent < JOBS.min(self.ended.len() + AHEAD) {
            self.put(self.sent);
            self.sent += 1;
        }
        let before = self.ended.len();
        self.look();
        if self.ended.len() > before {
            self.progress = Instant::now();
        }
        assert!(self.progress.elapsed() < DEADLINE, "{} of {JOBS} jobs have ended, and no other does", self.ended.len());
        let due = |job: &&Job| job.cancel_after.is_some_and(|after| after <= self.ended.len());
        let due: Vec<usize> = self.jobs[..self.sent].iter().filter(due).map(|job| job.index).collect();
        due.into_iter().for_each(|index| self.cancel(index));
        sleep(Duration::from_millis(100));
    }

    fn cancel(&mut self, index: usize) {
        if !self.stopped.contains_key(&index) {
            let answer = self.process.post(&format!("/v1/jobs/{}/cancel", self.jobs[index].name()));
            assert_eq!(answer.status, 200);
            self.stopped.insert(index, answer.json());
        }
    }

    /// Looks at every job. One that has ended stays exactly as it is.
    fn look(&mut self) -> Vec<usize> {
        let (mut path, mut running) = ("/v1/jobs?limit=50".to_owned(), Vec::new());
        loop {
            let page = self.process.get(&path).json();
            for job in page["jobs"].as_array().unwrap() {
                let index: usize = job["name"].as_str().unwrap().trim_start_matches("job-").parse().unwrap();
                assert_eq!(job["id"], self.id(index), "two jobs have the name of job {index}");
                let state = job["state"].as_str().unwrap();
                if state == "running" {
                    running.push(index);
                }
                if LAST.contains(&state) {
                    let before = self.ended.entry(index).or_insert_with(|| job.clone());
                    assert_eq!(before, job, "job {index} ended twice");
                } else {
                    assert!(!self.ended.contains_key(&index), "job {index} had ended and is {state}");
                }
            }
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/jobs?limit=50&before={next}"),
                None => return running,
            }
        }
    }

    /// Until a device of the first process stands still, in a job whose checkpoint the ledger knows: its seed.
    pub(crate) fn until_it_stands_still(&mut self) -> u64 {
        let seed = loop {
            self.turn();
            assert!(self.ended.len() < JOBS, "it never stood still");
            if let [seed] = self.process.said("still").as_slice() {
                break seed.parse().unwrap();
            }
        };
        let index = job_of(&self.jobs, seed).unwrap().index;
        let kept = format!("{} ", self.id(index));
        until("the ledger knows the checkpoint", || self.process.said("kept").iter().any(|line| line.starts_with(&kept)));
        seed
    }

    /// Kills the process while jobs are handed in and others are told to stop, and starts it again: all that the first told.
    pub(crate) fn kill_and_restart(mut self, still: u64) -> (Self, Vec<String>) {
        let still = job_of(&self.jobs, still).unwrap().index;
        let running = self.look();
        running.into_iter().filter(|index| *index != still).take(2).for_each(|index| self.cancel(index));
        assert!(self.sent + AT_ONCE <= JOBS, "there is something left to do");
        let next = self.sent..self.sent + AT_ONCE;
        let bodies: Vec<(usize, String, Value)> = self.jobs[next].iter().map(|job| (job.index, job.name(), job.body())).collect();
        let (answers, answered) = mpsc::channel();
        let address = self.process.address.clone();
        let client = spawn(move || {
            for (index, name, body) in bodies {
                answers.send((index, put(&address, &name, &body))).unwrap();
            }
        });
        let mut heard = vec![answered.recv().unwrap(), answered.recv().unwrap()];
        let Self { process, .. } = self;
        let told = process.kill();
        client.join().unwrap();
        heard.extend(answered.try_iter());

        let process = Process::start(&self.folder, SECOND);
        let mut driver = Self { process, sent: self.sent + AT_ONCE, progress: Instant::now(), ..self };
        // What was accepted is there. Of the rest nobody knows: it is handed in again, as some of the others are.
        for (index, answer) in heard {
            if let Ok(answer) = answer {
                driver.accepted(index, &answer);
            }
        }
        driver.jobs.iter().take(driver.sent).map(|job| job.index).collect::<Vec<_>>().into_iter().for_each(|index| {
            if driver.ids[index].is_none() || index % 5 == 0 {
                driver.put(index);
            }
        });
        (driver, told)
    }

    pub(crate) fn until_all_have_ended(&mut self) {
        while self.ended.len() < JOBS {
            self.turn();
        }
    }

    /// Has the process stop in good order: all that it told.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        let (status, told) = self.process.stop();
        assert!(status.success(), "it ended with {status}");
        told
    }
}
