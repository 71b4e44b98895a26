//! The networks from outside: against their references (`tools/goldens/nn.py`, `first_stages.py`), and what loading refuses.

mod adapters;
mod attention;
mod conditioners;
mod configs;
mod context;
mod first_stages;
mod goldens;
mod layers;
mod loading;
mod parity;
mod precision;
mod prompts;
mod tiling;
mod tokens;
mod training;
mod unets;
