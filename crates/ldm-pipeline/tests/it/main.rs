//! The executor from outside: against diffusers' pipelines (`tools/goldens/pipeline.py`), and against itself in company.

mod batching;
mod convert;
mod goldens;
mod lora_goldens;
mod loras;
mod models;
mod repeating;
mod rig;
mod stages;
mod systems;
