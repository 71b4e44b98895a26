//! Tests of ldm-sampler: closed forms, diffusers goldens, torch's noise, the registry, and what is refused.

mod convergence;
mod goldens;
mod noise;
mod refusals;
mod registry;
mod schedules;
mod table;
mod toy;
