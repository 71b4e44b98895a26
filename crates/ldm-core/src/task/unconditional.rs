//! A picture of what the model was trained on: nothing is asked for.

/// What only unconditional sampling needs: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unconditional;
