//! The file: opened again, copied while it is open, damaged, too new, foreign, taken, and bounded.

use ldm_cluster::{OpenError, Sqlite};
use ldm_engine::ledger::contract::{SECOND, START, block_on, done, job, object, queued_at, wide};
use ldm_engine::ledger::{Finish, JobState, LedgerLimits, ManualClock, NewJob, Outcome, Reaped, Retention, WORKER_LOST};
use rusqlite::Connection;

use crate::at;

#[test]
fn what_was_accepted_is_there_after_a_restart_and_runs_at_once() {
    block_on(async {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
        let bench = at(folder.path(), wide(), &clock);
        let first = bench.accept(NewJob { name: Some("cat".into()), ..job("a") }).await;
        let (second, third) = (bench.accept(job("a")).await, bench.accept(job("b")).await);
        let node = bench.node().await;
        let claims = bench.claim(&node, 2).await;
        bench.ledger.finish(&claims[1].fence, done()).await.unwrap();
        bench.ledger.checkpoint(&claims[0].fence, object("ckpt/x/1"), 12).await.unwrap();
        let ended = bench.view(claims[1].fence.id).await;
        drop(bench);

        let bench = at(folder.path(), wide(), &clock);
        // No time has passed: the dead node's lease would not have ended yet.
        assert_eq!(bench.ledger.reap().await.unwrap(), Reaped::default());
        assert_eq!(bench.view(ended.id).await, ended);
        let view = bench.view(first).await;
        assert!(queued_at(&view, 0) && view.crashes == 1 && view.name.as_deref() == Some("cat"));
        let again = bench.claim(&bench.node().await, 1).await.remove(0);
        assert_eq!((again.fence.id, again.step, again.alone), (first, 12, true));
        assert_eq!((again.ckpt, again.inputs), (Some(object("ckpt/x/1")), claims[0].inputs.clone()));
        assert_eq!(bench.ledger.finish(&claims[0].fence, done()).await.unwrap(), Finish::Superseded);
        assert_eq!(bench.ledger.finish(&again.fence, done()).await.unwrap(), Finish::Recorded);
        let left = if ended.id == second { third } else { second };
        assert_eq!(bench.claim(&bench.node().await, 1).await.remove(0).fence.id, left);
    });
}

#[test]
fn the_third_restart_with_the_same_job_fails_it() {
    block_on(async {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
        let mut id = None;
        for _ in 0..3 {
            let bench = at(folder.path(), wide(), &clock);
            if id.is_none() {
                id = Some(bench.accept(job("a")).await);
            }
            bench.claim(&bench.node().await, 1).await.remove(0);
        }
        let view = at(folder.path(), wide(), &clock).view(id.unwrap()).await;
        assert!(matches!(view.state, JobState::Ended(Outcome::Failed { reason, .. }) if reason == WORKER_LOST));
    });
}

#[test]
fn a_copy_of_the_open_files_holds_all_that_was_accepted() {
    block_on(async {
        let (folder, copy, clock) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), ManualClock::new(START));
        let bench = at(folder.path(), wide(), &clock);
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(bench.accept(job("a")).await);
        }
        // As the power fails: the file and its log as they are now, without the end of the process.
        for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
            std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        let copy = at(copy.path(), wide(), &clock);
        assert_eq!(copy.ledger.get(&ids).await.unwrap().len(), 50);
    });
}

#[test]
fn one_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let first = Sqlite::open(folder.path(), wide()).unwrap();
    assert!(matches!(Sqlite::open(folder.path(), wide()).err(), Some(OpenError::Taken(_))));
    drop(first);
    Sqlite::open(folder.path(), wide()).unwrap();
}

#[test]
fn a_damaged_a_newer_and_a_foreign_file_are_refused_and_left_alone() {
    let refused = |spoil: &dyn Fn(&std::path::Path)| {
        let folder = tempfile::tempdir().unwrap();
        drop(Sqlite::open(folder.path(), wide()).unwrap());
        let file = folder.path().join("ledger.sqlite3");
        spoil(&file);
        let before = std::fs::read(&file).unwrap();
        let error = Sqlite::open(folder.path(), wide()).err().expect("refused");
        assert_eq!(std::fs::read(&file).unwrap(), before);
        error
    };
    let sql = |sql: &'static str| move |file: &std::path::Path| Connection::open(file).unwrap().execute_batch(sql).unwrap();
    let newer = refused(&sql("INSERT INTO schema_version VALUES (99, 0)"));
    assert!(matches!(newer, OpenError::Newer { found: 99, known: 1, .. }), "{newer}");
    let foreign = refused(&sql("PRAGMA application_id = 7"));
    assert!(matches!(foreign, OpenError::Foreign(_)), "{foreign}");
    let noise = refused(&|file| std::fs::write(file, [7; 4096]).unwrap());
    assert!(matches!(noise, OpenError::Corrupt { .. }), "{noise}");
    let torn = refused(&|file| {
        let mut bytes = std::fs::read(file).unwrap();
        let at = bytes.len() / 2;
        bytes[at..].fill(0xa5);
        std::fs::write(file, bytes).unwrap();
    });
    assert!(matches!(torn, OpenError::Corrupt { .. }), "{torn}");
}

#[test]
fn the_file_stays_bounded() {
    block_on(async {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
        let bench = at(folder.path(), LedgerLimits { records: 200, ..wide() }, &clock);
        let keep = Retention { ttl: 3_600 * SECOND, count: 50, bytes: u64::MAX };
        for _ in 0..20 {
            for _ in 0..50 {
                let id = bench.accept(NewJob { spec: "x".repeat(20_000), ..job("a") }).await;
                bench.ledger.cancel(id).await.unwrap();
            }
            let stale = bench.ledger.prune(&keep).await.unwrap();
            let ids: Vec<_> = stale.iter().map(|stale| stale.id).collect();
            bench.ledger.forget(&ids).await.unwrap();
        }
        assert_eq!(bench.ledger.load().await.unwrap().ended, 50);
        drop(bench);
        let size = |name| std::fs::metadata(folder.path().join(name)).map_or(0, |meta| meta.len());
        // 1,000 specs of 20 kB came through; 50 stay.
        assert!(size("ledger.sqlite3") < 4 << 20, "{} bytes", size("ledger.sqlite3"));
        assert!(size("ledger.sqlite3-wal") <= 8 << 20, "{} bytes", size("ledger.sqlite3-wal"));
    });
}
