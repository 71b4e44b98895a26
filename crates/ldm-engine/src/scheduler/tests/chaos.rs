//! Whatever comes, leaves and fails: no job is lost, each ends once, and the bounds are kept (the simulator asserts them).

use std::time::Duration;

use ldm_core::{Priority, Tenant};
use proptest::prelude::*;

use super::sim::{End, Sim, Truth, key};
use crate::Price;
use crate::cost::Costs;
use crate::scheduler::{Ask, Policy};

#[derive(Clone, Debug)]
struct Plan {
    arrival: u32,
    shape: usize,
    rows: u32,
    evaluations: u32,
    tenant: u8,
    batch: bool,
    deadline: Option<u32>,
    alone: bool,
    cancelled: Option<u32>,
    fault: Option<u32>,
    /// After how many evaluations its latent changes its shape.
    moves: Option<u32>,
}

const SIDES: [u32; 3] = [32, 64, 96];

fn plan() -> impl Strategy<Value = Plan> {
    use proptest::option::weighted;
    let what = (0..3usize, 1..4u32, 1..12u32, 0..4u8, any::<bool>(), weighted(0.3, 1..2000u32), proptest::bool::weighted(0.1));
    let luck = (weighted(0.2, 0..2000u32), weighted(0.15, 0..12u32), weighted(0.1, 1..6u32));
    (0..1500u32, what, luck).prop_map(|(arrival, what, (cancelled, fault, moves))| {
        let (shape, rows, evaluations, tenant, batch, deadline, alone) = what;
        Plan { arrival, shape, rows, evaluations, tenant, batch, deadline, alone, cancelled, fault, moves }
    })
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}

fn ask_of(plan: &Plan) -> Ask {
    let submitted = milliseconds(plan.arrival);
    Ask {
        price: Price { key: key(SIDES[plan.shape]), rows: plan.rows, evaluations: plan.evaluations },
        tenant: Tenant::new(&plan.tenant.to_string()),
        priority: if plan.batch { Priority::Batch } else { Priority::Interactive },
        submitted,
        deadline: plan.deadline.map(|after| submitted + milliseconds(after)),
        alone: plan.alone,
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let batches =
        (1..6usize, 0..300u64).prop_map(|(size, window)| Policy::RequestBatches { size, window: Duration::from_millis(window) });
    prop_oneof![6 => Just(Policy::Steps), 1 => batches, 1 => Just(Policy::OneAtATime)]
}

/// Moves, cancels, and gives up on whoever's time has come.
fn disturb(sim: &mut Sim, plans: &[Plan]) {
    for (id, plan) in plans.iter().enumerate() {
        let Some(fate) = sim.fates.get(&id).filter(|fate| fate.ended.is_empty()) else { continue };
        let done = plan.evaluations - fate.left;
        let there = key(SIDES[(plan.shape + 1) % 3]);
        if plan.cancelled.is_some_and(|at| milliseconds(at) <= sim.now) {
            sim.end(id, End::Cancelled);
        } else if plan.moves == Some(done) && fate.left > 0 && fate.ask.price.key != there {
            let price = Price { key: there, rows: plan.rows, evaluations: fate.left };
            sim.scheduler.moved(id, price.clone(), &sim.costs);
            sim.fate(id).ask.price = price;
        }
    }
    for id in sim.scheduler.overdue(sim.now) {
        sim.end(id, End::Failed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_job_ends_once(
        plans in proptest::collection::vec(plan(), 1..40),
        (running, max_rows, knee) in (1..9usize, 1..17u32, 1..17u32),
        policy in policy(),
        runs_out in proptest::option::weighted(0.3, 2..16u32),
    ) {
        let truth = Truth { step: 0.05, knee, prepare: 0.01, decode: 0.02 };
        let mut sim = Sim::new(truth, Costs::new(max_rows), running, policy);
        for (id, plan) in plans.iter().enumerate() {
            sim.faults.extend(plan.fault.map(|left| (id, left)));
        }
        let mut order: Vec<usize> = (0..plans.len()).collect();
        order.sort_by_key(|id| plans[*id].arrival);
        let mut coming = order.into_iter().peekable();
        let (mut rounds, mut forecasts) = (0, 0);
        while coming.peek().is_some() || !sim.scheduler.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 5000, "the scheduler never comes to rest");
            while let Some(id) = coming.next_if(|id| milliseconds(plans[*id].arrival) <= sim.now) {
                let forecast = sim.scheduler.forecast(&ask_of(&plans[id]), sim.now, &sim.costs);
                prop_assert!(forecast.start >= sim.now && forecast.finish >= forecast.start);
                forecasts += 1;
                sim.admit(id, ask_of(&plans[id]));
            }
            disturb(&mut sim, &plans);
            let mut waiting = sim.scheduler.waiting();
            waiting.sort_unstable();
            let unstarted = sim.fates.iter().filter(|(_, fate)| fate.started.is_none() && fate.ended.is_empty());
            prop_assert_eq!(waiting, unstarted.map(|(id, _)| *id).collect::<Vec<_>>());
            if !sim.work() {
                sim.now += Duration::from_millis(1);
                let next = coming.peek().map(|id| milliseconds(plans[*id].arrival));
                let is_batched = matches!(policy, Policy::RequestBatches { .. });
                prop_assert!(sim.scheduler.is_empty() || is_batched, "idle with jobs here");
                sim.now = next.filter(|_| !is_batched).map_or(sim.now, |next| next.max(sim.now));
            } else if let (Some(rows), Some(call)) = (runs_out, sim.calls.last())
                && call.rows >= rows
            {
                let shape = sim.fates[&call.ids[0]].ask.price.key.clone();
                sim.costs.out_of_memory(&shape, call.rows);
            }
            prop_assert!(sim.scheduler.outstanding(&sim.costs).is_finite());
        }
        prop_assert_eq!(forecasts, plans.len());
        prop_assert!(sim.fates.values().all(|fate| fate.ended.len() == 1), "each ends once");
        prop_assert!(sim.scheduler.lanes.is_empty() && sim.scheduler.index.is_empty());
        prop_assert_eq!((sim.scheduler.on_device, sim.scheduler.batch_on_device), (0, 0));
    }
}
