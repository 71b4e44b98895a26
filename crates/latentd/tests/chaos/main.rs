//! Two hundred named jobs over HTTP while everything goes wrong: panics, lack of memory, NaN, a device that breaks, answers of the
//! ledger that are lost, cancels, `kill -9`. Every accepted job ends once, with the picture that it has when it runs alone.

#[path = "../it/ask.rs"]
mod ask;
mod checks;
mod driver;
mod faulty;
mod process;
mod script;
mod served;
mod solo;
mod telling;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use driver::Driver;
use process::{FIRST, Process};

/// The only test here.
const NAME: &str = "every_named_job_ends_once_with_the_right_picture";
/// What makes the same program the service; its folder and its life follow.
const SERVE: &str = "--serve-with-faults";
/// Flags of the usual harness that take a value.
const VALUED: [&str; 6] = ["--skip", "--test-threads", "--format", "--color", "--logfile", "--shuffle-seed"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder, life] = args.as_slice()
        && first == SERVE
    {
        served::run(Path::new(folder), life == process::FIRST);
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("{NAME}: test");
    } else if is_wanted(&args) {
        test();
        println!("test {NAME} ... ok");
    }
    ExitCode::SUCCESS
}

/// Whether the filters, if there are any, let the test through.
fn is_wanted(args: &[String]) -> bool {
    let mut is_value = false;
    let filters = args.iter().filter(|arg| {
        let is_filter = !arg.starts_with("--") && !std::mem::take(&mut is_value);
        is_value = VALUED.contains(&arg.as_str());
        is_filter
    });
    let filters: Vec<_> = filters.collect();
    filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter.as_str()))
}

fn test() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let began = Instant::now();

    let mut driver = Driver::new(Process::start(&folder, FIRST), folder.clone());
    let still = driver.until_it_stands_still();
    checks::metrics(&driver.process);
    let (mut driver, first) = driver.kill_and_restart(still);
    println!("killed with {} jobs ended; serving again after {:.1?}", driver.ended.len(), began.elapsed());
    driver.until_all_have_ended();
    println!("all have ended after {:.1?}", began.elapsed());
    checks::jobs(&driver);
    let second = driver.stop();
    checks::records(&driver, &folder);
    checks::log(&driver, &first, &second, still);
    println!("all is checked after {:.1?}", began.elapsed());
}
