//! Memory in which weights change their dtype on their way into a packed form, taken from the system once.
//!
//! A converted copy that lives for the length of one call costs more than the conversion: the system hands out its pages one by one,
//! zeroed, and takes them back.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

thread_local! {
    static SCRATCH: RefCell<Option<Tensor>> = const { RefCell::new(None) };
}

/// What `f` makes of `weight` in another dtype. The copy is gone afterwards: `f` gives nothing that points into it.
pub(super) fn converted<T>(weight: &Tensor, kind: Kind, f: impl FnOnce(&Tensor) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let numbers = weight.numel() as i64;
        let fits = |held: &Tensor| held.kind() == kind && held.numel() as i64 >= numbers;
        let held = match scratch.take().filter(fits) {
            Some(held) => held,
            None => Tensor::empty([numbers], (kind, Device::Cpu)),
        };
        let mut copy = held.narrow(0, 0, numbers).view(weight.size().as_slice());
        copy.copy_(weight);
        *scratch = Some(held);
        f(&copy)
    })
}

/// Gives the memory back: loading has ended on this thread.
pub(crate) fn release() {
    SCRATCH.with_borrow_mut(Option::take);
}
