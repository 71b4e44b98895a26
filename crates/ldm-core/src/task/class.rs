//! A picture of a class.

use super::img2img::required;
use crate::{Violation, Violations};

/// What only class-conditional sampling needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The class, from 0.
    pub class: u32,
}

impl Class {
    /// Checks the class; `None` when it is wrong.
    pub(crate) fn check(class: Option<i64>, classes: u32, bad: &mut Violations) -> Option<Self> {
        let class = required("class", class, bad)?;
        match u32::try_from(class) {
            Ok(class) if class < classes => Some(Self { class }),
            _ => {
                let limit = format!("0..={}", i64::from(classes) - 1);
                bad.push(Violation::new("class", format!("`class` must be {limit}, not {class}"), limit, class));
                None
            }
        }
    }
}
