//! Tests of ldm-sampler: closed forms, goldens of other libraries, torch's noise, the registry, and what is refused.

mod brownian;
mod convergence;
mod goldens;
mod guidance;
mod noise;
mod refusals;
mod registry;
mod schedules;
mod table;
mod toy;
