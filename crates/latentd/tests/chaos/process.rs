//! The service as the driver has it: a process, what it tells, and ways to ask it.

use std::fs::File;
use std::io::{BufRead, BufReader, Result};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::SERVE;
use crate::ask::{Answer, DEADLINE, ask, json_lines};

/// The life that ends by a signal.
pub(crate) const FIRST: &str = "first";
/// The one after it.
pub(crate) const SECOND: &str = "second";

pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    told: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// A service on the folder, once it takes jobs. What it logs lies beside the folder.
    pub(crate) fn start(folder: &Path, life: &str) -> Self {
        let log = File::create(folder.with_extension(format!("{life}.log"))).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(SERVE).arg(folder).arg(life).env_remove("RUST_BACKTRACE");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, to) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&told));
        let reader = spawn(move || lines.map_while(Result::ok).for_each(|line| to.lock().unwrap().push(line)));
        let mut process = Self { child, address: String::new(), told, reader: Some(reader) };
        until("it listens", || {
            let said = process.said("listening");
            said.first().map(|address| process.address = address.clone()).is_some()
        });
        until("it is ready", || process.get("/readyz").status == 200);
        process
    }

    /// What follows that word in the lines that begin with it.
    pub(crate) fn said(&self, word: &str) -> Vec<String> {
        said(&self.told(), word)
    }

    /// All lines until now.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(&self.address, "GET", path, "", "").unwrap()
    }

    pub(crate) fn post(&self, path: &str) -> Answer {
        ask(&self.address, "POST", path, "", "").unwrap()
    }

    /// `kill -9`; all that it told.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.end().1
    }

    /// Lets it stop in good order: how it ended, and all that it told.
    pub(crate) fn stop(&mut self) -> (ExitStatus, Vec<String>) {
        drop(self.child.stdin.take());
        self.end()
    }

    fn end(&mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.told())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands a named job in.
pub(crate) fn put(address: &str, name: &str, body: &Value) -> Result<Answer> {
    ask(address, "PUT", &format!("/v1/jobs/{name}"), &json_lines("application/json"), &body.to_string())
}

/// What follows that word in the lines that begin with it.
pub(crate) fn said(lines: &[String], word: &str) -> Vec<String> {
    let rest = |line: &String| line.strip_prefix(word)?.strip_prefix(' ').map(str::to_owned);
    lines.iter().filter_map(rest).collect()
}

/// Waits until that holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}: should hold by now");
        sleep(Duration::from_millis(10));
    }
}
