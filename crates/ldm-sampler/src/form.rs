//! Linear forms over registers, the estimate and noise, so that updates can be written in the papers' notation.

use std::ops::{Add, Mul, Sub};

use crate::{Assign, Operand};

/// A linear combination of operands; each operand occurs at most once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(Vec<(Operand, f64)>);

impl Form {
    /// The old value of a register.
    pub(crate) fn register(index: usize) -> Form {
        Form(vec![(Operand::Register(index), 1.0)])
    }

    /// What the evaluation of this step found.
    pub(crate) fn estimate() -> Form {
        Form(vec![(Operand::Estimate, 1.0)])
    }

    /// Fresh standard normal noise.
    pub(crate) fn noise() -> Form {
        Form(vec![(Operand::Noise, 1.0)])
    }

    /// The assignment `registers[to] <- self`, without vanishing terms.
    pub(crate) fn into(self, to: usize) -> Assign {
        let terms = self.0.into_iter().filter(|(_, coefficient)| *coefficient != 0.0).collect();
        Assign { to, terms }
    }
}

impl Mul<&Form> for f64 {
    type Output = Form;

    fn mul(self, form: &Form) -> Form {
        Form(form.0.iter().map(|(operand, coefficient)| (*operand, self * coefficient)).collect())
    }
}

impl Add for Form {
    type Output = Form;

    fn add(mut self, other: Form) -> Form {
        for (operand, coefficient) in other.0 {
            match self.0.iter_mut().find(|(known, _)| *known == operand) {
                Some((_, sum)) => *sum += coefficient,
                None => self.0.push((operand, coefficient)),
            }
        }
        self
    }
}

impl Sub for Form {
    type Output = Form;

    fn sub(self, other: Form) -> Form {
        self + -1.0 * &other
    }
}
