//! A picture from a prompt: starts from noise alone.

/// What only txt2img needs: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txt2Img;
