//! Links libtorch itself, not only the parts whose symbols are used, and says where its files lie.
//!
//! The linker would drop `libtorch.so`, of which no symbol is used; kept, it brings `libtorch_cuda.so` in when the CUDA
//! build's files are on the library path, so that one binary serves both.

use std::env;
use std::path::{Path, absolute};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !linux {
        return;
    }
    // An installed binary looks beside itself first.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Some(libtorch) = env::var_os("LIBTORCH")
        && let Ok(libtorch) = absolute(Path::new(&libtorch))
    {
        let lib = libtorch.join("lib").display().to_string();
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-link-arg-bins=-L{lib}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,--push-state,--no-as-needed,-ltorch,--pop-state");
}
