//! The networks from outside: against diffusers and transformers (`tools/goldens/nn.py`), and what loading refuses.

mod attention;
mod configs;
mod context;
mod goldens;
mod layers;
mod loading;
mod parity;
mod precision;
mod tokens;
mod training;
