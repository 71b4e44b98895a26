//! `kill -9` while jobs are handed in, claimed and ended: what was told to the caller is in the file.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ldm_core::JobId;
use ldm_engine::ledger::contract::{START, block_on, done, job, wide};
use ldm_engine::ledger::{Finish, ManualClock};

use crate::at;

/// Says to the other process: "I am the one that is killed", and where the folder is.
const VICTIM: &str = "LDM_LEDGER_VICTIM";

/// What the victim said last of each job.
fn said(folder: &Path, lines: usize) -> HashMap<JobId, String> {
    let name = "killed::nothing_that_was_told_is_lost_by_kill_9";
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", name, "--nocapture"]).env(VICTIM, folder).stdout(Stdio::piped());
    let mut victim = victim.spawn().unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap()).lines();
    let words = output.map(Result::unwrap).filter_map(|line| {
        let (word, id) = line.rsplit_once("said ")?.1.split_once(' ')?;
        Some((id.parse().ok()?, word.to_owned()))
    });
    let said = words.take(lines).collect();
    victim.kill().unwrap();
    victim.wait().unwrap();
    said
}

/// Hands in, claims and ends for ever; says so after each answer.
async fn be_killed(folder: &Path) {
    let bench = at(folder, wide(), &ManualClock::new(START));
    let node = bench.node().await;
    let say = |word: &str, id| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "said {word} {id}").and_then(|()| out.flush()).unwrap();
    };
    loop {
        say("accepted", bench.accept(job("a")).await);
        say("accepted", bench.accept(job("b")).await);
        for claim in bench.claim(&node, 1).await {
            assert_eq!(bench.ledger.finish(&claim.fence, done()).await.unwrap(), Finish::Recorded);
            say("ended", claim.fence.id);
        }
    }
}

#[test]
fn nothing_that_was_told_is_lost_by_kill_9() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        return block_on(be_killed(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut all = HashMap::new();
    for lines in [40, 101, 7] {
        let said = said(folder.path(), lines);
        assert!(said.values().any(|word| word == "accepted"));
        all.extend(said);
    }
    block_on(async {
        let bench = at(folder.path(), wide(), &ManualClock::new(START));
        for (id, word) in &all {
            let state = bench.state(*id).await;
            match word.as_str() {
                "ended" => assert_eq!(state, "succeeded"),
                // It may have ended before the kill, and nobody was told; then it has ended well.
                _ => assert!(state == "queued" || state == "succeeded", "{id}: {state}"),
            }
        }
        let node = bench.node().await;
        while let Some(claim) = bench.claim(&node, 1).await.pop() {
            all.remove(&claim.fence.id);
            assert_eq!(bench.ledger.finish(&claim.fence, done()).await.unwrap(), Finish::Recorded);
        }
        let load = bench.ledger.load().await.unwrap();
        assert!(load.lanes.is_empty() && load.ended >= 100, "{load:?}");
    });
}
