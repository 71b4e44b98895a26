//! The file: opened again, copied while it is open, damaged, too new, foreign, taken, and bounded.

use ldm_cluster::{OpenError, Sqlite};
use ldm_engine::ledger::contract::{SECOND, START, block_on, done, job, object, queued_at, wide};
use ldm_engine::ledger::{
    Clock, Finish, Hook, JobState, LedgerLimits, ManualClock, NewJob, Outcome, Phase, Reaped, Retention, WORKER_LOST,
};
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
fn a_file_of_the_first_version_is_brought_up_to_date() {
    block_on(async {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
        let old = Connection::open(folder.path().join("ledger.sqlite3")).unwrap();
        old.execute_batch(include_str!("../../src/sqlite/schema_1.sql")).unwrap();
        let id = ldm_core::JobId::new();
        let insert = "INSERT INTO job (id, tenant, class, model, bucket, cost_ms, spec, inputs, fingerprint, created, vft, bytes) \
                      VALUES (?, 'a', 0, 'tiny', '64', 1000, '{}', '[]', zeroblob(32), 0, 1000, 2)";
        old.execute(insert, [id.to_string()]).unwrap();
        old.execute_batch(
            "CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, applied INTEGER NOT NULL) STRICT; \
             INSERT INTO schema_version VALUES (1, 0); PRAGMA application_id = 0x6c646d6c",
        )
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let view = at(folder.path(), wide(), &clock).view(id).await;
            assert!(queued_at(&view, 0) && view.note.is_empty());
        }
        let bench = at(folder.path(), wide(), &clock);
        bench.ledger.finish(&bench.take(&bench.node().await).await.fence, done()).await.unwrap();
        assert_eq!((bench.state(id).await, bench.ledger.load().await.unwrap().untold), ("succeeded", 0));
    });
}

#[test]
fn what_was_to_be_told_is_told_after_a_restart_at_once() {
    block_on(async {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(START));
        let bench = at(folder.path(), wide(), &clock);
        let hook = || Some(Hook { url: "https://example.org".into(), endings: Phase::ENDINGS.to_vec() });
        let (told, late) = (NewJob { hook: hook(), ..job("a") }, NewJob { hook: hook(), ..job("a") });
        let (told, late) = (bench.accept(told).await, bench.accept(late).await);
        bench.ledger.cancel(told).await.unwrap();
        bench.ledger.cancel(late).await.unwrap();
        let taken = bench.ledger.take_hooks(2).await.unwrap();
        let of = |id| taken.iter().find(|delivery| delivery.job == id).unwrap();
        assert!(bench.ledger.settle_hook(of(late), Some(clock.now().after(90 * SECOND))).await.unwrap());
        drop(bench);

        // Its teller died; what was put off waits all the same.
        let bench = at(folder.path(), wide(), &clock);
        let again = bench.ledger.take_hooks(2).await.unwrap();
        assert_eq!(again.iter().map(|delivery| (delivery.job, delivery.attempt)).collect::<Vec<_>>(), [(told, 2)]);
        clock.advance(90 * SECOND);
        assert_eq!(bench.ledger.take_hooks(9).await.unwrap().len(), 2);
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
    assert!(matches!(newer, OpenError::Newer { found: 99, known: 2, .. }), "{newer}");
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
