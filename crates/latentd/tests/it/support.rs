//! What the tests share: the binary, the tiny model, a folder to write to, a service that runs, and a way to ask it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use crate::ask::Answer;
use crate::ask::{DEADLINE, ask, json_lines};

/// The binary, in an environment that says nothing to it, started at the root of the repository.
pub(crate) fn latentd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(args).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LATENTD_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

/// What a run of the binary gave.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Run {
    ended(latentd(args))
}

/// Runs a command to its end.
pub(crate) fn ended(mut command: Command) -> Run {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A diffusers directory of a model of a million random parameters: 4×16×16 latents, pictures of 64×64.
pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/tiny-sd");

/// An empty folder of that name.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Width and height in the header of a PNG file.
pub(crate) fn png_size(file: &[u8]) -> (u32, u32) {
    assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

/// A service that runs until it is told to stop, or until the test ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    /// A service of the tiny model at a free port, with these variables, once it is ready.
    pub(crate) fn ready(environment: &[(&str, &str)]) -> Self {
        let model = format!("tiny={TINY}");
        let args = ["serve", "--model", &model, "--listen", "127.0.0.1:0", "--log-format", "json", "--threads", "1"];
        let mut command = latentd(&args);
        command.envs(environment.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (told, address) = mpsc::channel();
        let log = spawn(move || {
            let mut log = Vec::new();
            for line in lines.map_while(Result::ok) {
                let json: Value = serde_json::from_str(&line).unwrap_or_default();
                if json["message"] == "listening" {
                    told.send(json["address"].as_str().unwrap().to_owned()).unwrap();
                }
                log.push(line);
            }
            log
        });
        let address = address.recv_timeout(DEADLINE).expect("the service says where it listens");
        let server = Self { child, address, log: Some(log) };
        server.until("it is ready", |server| server.get("/readyz").status == 200);
        server
    }

    /// Waits until that holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < DEADLINE, "{what} should hold by now");
            sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// Waits for its end: how it ended, and what it logged.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let log = self.log.take().unwrap().join().unwrap();
        (self.child.wait().unwrap(), log)
    }

    /// `GET path`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(&self.address, "GET", path, "", "").unwrap()
    }

    /// `POST path`, in JSON.
    pub(crate) fn post(&self, path: &str, accept: &str, body: &Value) -> Answer {
        post(&self.address, path, accept, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `POST path`, in JSON, to that address.
pub(crate) fn post(address: &str, path: &str, accept: &str, body: &Value) -> Answer {
    ask(address, "POST", path, &json_lines(accept), &body.to_string()).unwrap()
}
