//! Writes the OpenAPI document: `cargo run -p ldm-http --example openapi > docs/openapi.json`.

fn main() {
    print!("{}", ldm_http::openapi());
}
