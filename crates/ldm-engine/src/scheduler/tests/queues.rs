//! Deficit round robin alone.

use std::time::Duration;

use ldm_core::Tenant;
use proptest::prelude::*;

use crate::scheduler::queue::{Queue, Waiting};

fn job(id: usize, evaluations: u32) -> Waiting<usize> {
    Waiting { id, rows: 1, evaluations }
}

#[test]
fn what_is_peeked_is_taken_and_leaving_changes_the_turn() {
    let (a, b) = (Tenant::new("a"), Tenant::new("b"));
    let mut queue = Queue::new();
    let rank = |serial| (Duration::ZERO, serial);
    queue.push(&a, rank(0), job(0, 5));
    queue.push(&a, rank(1), job(1, 5));
    queue.push(&b, rank(2), job(2, 5));
    assert_eq!(queue.peek().unwrap().1.id, 0);
    queue.take();
    assert_eq!(queue.peek().unwrap().1.id, 2);
    queue.remove(&b, &rank(2));
    assert_eq!(queue.peek().unwrap().1.id, 1);
    queue.take();
    assert!(queue.peek().is_none());
    queue.take();
}

proptest! {
    /// Shreedhar and Varghese: what a tenant was served is what it was given, less its deficit, which is below a largest job. What
    /// two were given differs by one quantum at most.
    #[test]
    fn backlogged_tenants_get_equal_shares(
        costs in proptest::collection::vec(proptest::collection::vec(1..50u32, 40), 2..6),
    ) {
        let mut queue = Queue::new();
        let mut owners = Vec::new();
        for (tenant, jobs) in costs.iter().enumerate() {
            for cost in jobs {
                let id = owners.len();
                queue.push(&Tenant::new(&tenant.to_string()), (Duration::ZERO, id as u64), job(id, *cost));
                owners.push(tenant);
            }
        }
        let largest = f64::from(*costs.iter().flatten().max().unwrap());
        let mut served = vec![0.0; costs.len()];
        let mut left = vec![40; costs.len()];
        while left.iter().all(|left| *left > 0) {
            let (_, next) = queue.peek().unwrap();
            queue.take();
            served[owners[next.id]] += next.cost();
            left[owners[next.id]] -= 1;
            let most = served.iter().copied().fold(0.0, f64::max);
            let least = served.iter().copied().fold(f64::INFINITY, f64::min);
            prop_assert!(most - least <= largest + 1.0, "{served:?}");
        }
    }
}
