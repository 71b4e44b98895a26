//! Names of parameters in original checkpoints, mapped to the canonical ones, which are diffusers'. One file per network.

pub mod bert;
pub mod clip;
pub mod first_stage;
pub mod inverse;
pub mod unet;
