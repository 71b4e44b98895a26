//! The engine from outside, with the fake executor. Nothing sleeps: gates hold the device still while a test looks.

mod admission;
mod batching;
mod cancelling;
mod chaos;
mod events;
mod failing;
mod rig;
mod starting;
mod stopping;
