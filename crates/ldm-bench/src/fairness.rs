//! How evenly tenants were served.

/// Jain's fairness index of `shares`: (Σx)² / (n Σx²), 1 when all are equal, 1/n when one has everything
/// (Jain, Chiu, Hawe 1984). `None` when nobody got anything.
pub fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    (squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// The max-min fair division of `total` among those demands: nobody gets more than it asked for, and what is left over is
/// divided evenly among those who asked for more (Bertsekas, Gallager, Data Networks, 6.5.2).
pub fn max_min(demands: &[f64], total: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by(|&a, &b| demands[a].total_cmp(&demands[b]));
    let (mut left, mut shares) = (total, vec![0.0; demands.len()]);
    for (served, &who) in order.iter().enumerate() {
        shares[who] = demands[who].min(left / (demands.len() - served) as f64).max(0.0);
        left -= shares[who];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_of_hand_figures() {
        assert_eq!(jain(&[2.0, 2.0, 2.0]), Some(1.0));
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[1.0, 2.0, 3.0]), Some(36.0 / 42.0));
        assert_eq!((jain(&[]), jain(&[0.0, 0.0])), (None, None));
    }

    #[test]
    fn modest_demands_are_met_and_the_rest_is_shared() {
        assert_eq!(max_min(&[10.0, 2.0, 10.0], 12.0), [5.0, 2.0, 5.0]);
        assert_eq!(max_min(&[1.0, 2.0], 12.0), [1.0, 2.0]);
        assert_eq!(max_min(&[100.0, 1.0], 20.0), [19.0, 1.0]);
        assert!(max_min(&[], 1.0).is_empty());
    }
}
