//! Names of parameters in original checkpoints, mapped to the canonical ones, which are diffusers'. One file per network.
