//! The executor from outside: against diffusers' pipelines (`tools/goldens/pipeline.py`), and against itself in company.

mod batching;
mod checkpoints;
mod convert;
mod faults;
mod goldens;
mod hires;
mod invariance;
mod lora_goldens;
mod loras;
mod masking;
mod models;
mod profiles;
mod repeating;
mod residents;
mod rig;
mod stages;
mod systems;
mod workers;
