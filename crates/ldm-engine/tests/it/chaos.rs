//! Whatever happens to it, every accepted job ends exactly once.

use ldm_core::{Draft, Event};
use ldm_engine::Limits;
use ldm_engine::fake::FakeOptions;
use proptest::prelude::*;

use crate::rig::{Rig, prompted};

#[derive(Clone, Debug)]
struct Job {
    steps: i64,
    wide: bool,
    guided: bool,
    previews: bool,
    prompt: &'static str,
    /// What its client does.
    client: Client,
}

#[derive(Clone, Copy, Debug)]
enum Client {
    Listens,
    Waits,
    Cancels,
    Leaves,
}

fn job() -> impl Strategy<Value = Job> {
    let prompts = prop_oneof![
        6 => Just(""),
        1 => Just("!panic@2"),
        1 => Just("!nan@1"),
        1 => Just("!fail@prepare"),
        1 => Just("!panic@decode"),
        1 => Just("!panic@preview"),
        1 => Just("!unsupported@price"),
    ];
    let clients =
        prop_oneof![3 => Just(Client::Listens), 2 => Just(Client::Waits), 1 => Just(Client::Cancels), 1 => Just(Client::Leaves)];
    (1..6i64, any::<bool>(), any::<bool>(), any::<bool>(), prompts, clients)
        .prop_map(|(steps, wide, guided, previews, prompt, client)| Job { steps, wide, guided, previews, prompt, client })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_accepted_job_ends_once(
        jobs in proptest::collection::vec(job(), 1..24),
        (queue, running, row_cap) in (1..24usize, 1..6usize, 1..6u32),
        (probe_fails, drains) in (proptest::bool::weighted(0.1), any::<bool>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome: Result<(), TestCaseError> = runtime.block_on(async {
            let options = FakeOptions { probe_fails, ..FakeOptions::default() };
            let rig = Rig::with(Limits { queue, running, rows: row_cap, ..Limits::default() }, options).await;
            let (mut accepted, mut refused, mut listeners) = (0, 0, Vec::new());
            for (seed, job) in jobs.iter().enumerate() {
                let draft = Draft {
                    width: Some(if job.wide { 128 } else { 64 }),
                    guidance: Some(if job.guided { 7.5 } else { 1.0 }),
                    preview_every: job.previews.then_some(1),
                    ..prompted(seed as i64, job.steps, job.prompt)
                };
                let Ok(mut tickets) = rig.service.submit(rig.requests(draft)) else { refused += 1; continue };
                accepted += 1;
                let mut ticket = tickets.remove(0);
                match job.client {
                    Client::Leaves => drop(ticket),
                    Client::Waits => { ticket.finished().await; }
                    Client::Cancels => { ticket.cancel(); listeners.push(ticket); }
                    Client::Listens => { ticket.next().await; listeners.push(ticket); }
                }
            }
            if drains {
                rig.service.drain(std::time::Duration::ZERO).await;
            }
            for mut ticket in listeners {
                let mut endings = 0;
                while let Some(event) = ticket.next().await {
                    endings += usize::from(matches!(event, Event::Ended(_)));
                }
                prop_assert_eq!(endings, 1);
            }
            rig.service.drain(std::time::Duration::MAX).await;
            let load = rig.service.load();
            prop_assert_eq!((load.queued, load.running), (0, 0));
            prop_assert_eq!(accepted + refused, jobs.len());
            prop_assert_eq!(rig.tally.accepted(), accepted);
            prop_assert_eq!(rig.tally.ended().values().sum::<usize>(), accepted);
            Ok(())
        });
        outcome?;
    }
}
