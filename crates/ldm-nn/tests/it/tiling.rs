//! Tiled encoding and decoding: diffusers' numbers, and the untiled ones where one tile covers all.

use ldm_nn::{FirstStage, Layout, Tiling};
use tch::{Kind, Tensor};

use crate::first_stages::{Spelling, golden, near, stage};
use crate::goldens::LAYOUTS;

fn vae(test: &str) -> FirstStage {
    stage("kl-f4", Spelling::Diffusers, Kind::Float, Layout::ChannelsLast, test)
}

#[test]
fn tiles_are_blended_as_diffusers_does() {
    let (vae, tiling) = (vae("tiled"), Tiling::for_size(32, 4).expect("tiles"));
    assert_eq!(tiling, Tiling::new(8, 2).expect("tiles"));
    let scale = vae.scaling_factor();
    let moments = golden("tiled.moments").chunk(2, 1);
    let encoded = vae.encode_tiled(&golden("tiled.x"), tiling);
    near("mean", &(encoded.mode() / scale), &moments[0]);
    let noise = Tensor::ones_like(&moments[0]);
    near("sample", &(encoded.sample(|_| noise.shallow_clone()) / scale), &(&moments[0] + (&moments[1] * 0.5).exp()));
    near("decode", &vae.decode_tiled(&(golden("tiled.z") * scale), tiling), &golden("tiled.output"));
}

/// The numbers that the golden's program counts out.
fn counted(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|at| (((at * 37 + at / 7 * 11) % 255) as f64 / 127.5 - 1.) as f32).collect();
    Tensor::from_slice(&numbers).view(shape)
}

#[test]
fn a_large_latent_in_tiles_is_that_of_diffusers() {
    // Tiles of the size that is served, 256×256 pixels.
    let tiling = Tiling::new(64, 16).expect("tiles");
    let every = |x: &Tensor, step: i64| x.slice(2, None, None, step).slice(3, None, None, step);
    let moments = golden("large.moments").chunk(2, 1);
    for layout in LAYOUTS {
        let vae = stage("kl-f4", Spelling::Diffusers, Kind::Float, layout, "large");
        let scale = vae.scaling_factor();
        let encoded = vae.encode_tiled(&counted(&[1, 3, 544, 608]), tiling);
        near(&format!("mean {layout:?}"), &every(&(encoded.mode() / scale), 4), &moments[0]);
        let decoded = vae.decode_tiled(&(counted(&[1, 3, 136, 152]) * scale), tiling);
        assert_eq!(decoded.size(), [1, 3, 544, 608]);
        near(&format!("decode {layout:?}"), &every(&decoded, 16), &golden("large.output"));
    }
}

#[test]
fn one_tile_is_the_whole() {
    let vae = vae("one-tile");
    let (x, z) = (golden("tiled.x"), golden("tiled.z"));
    let (height, width) = (z.size()[2], z.size()[3]);
    for tile in [height.max(width), 64] {
        let tiling = Tiling::new(tile, tile / 4).expect("tiles");
        assert_eq!(vae.decode_tiled(&z, tiling), vae.decode(&z), "{tile}");
    }
    let tiling = Tiling::new(19, 4).expect("tiles");
    assert_eq!(vae.encode_tiled(&x, tiling).mode(), vae.encode(&x).mode());
}

#[test]
fn every_stage_can_be_tiled_at_any_size() {
    for name in ["kl-f16", "vq-f8", "taesd"] {
        // The original checkpoint of TAESD has no discriminator.
        let stage = stage(name, Spelling::Diffusers, Kind::Float, Layout::ChannelsLast, "any");
        let (f, channels) = (stage.factor(), stage.latent_channels());
        for (tile, overlap) in [(1, 0), (2, 1), (3, 1), (4, 0), (5, 2)] {
            let tiling = Tiling::new(tile, overlap).expect("tiles");
            let (height, width) = (7, 3);
            let x = Tensor::rand([1, 3, height * f, width * f], (Kind::Float, tch::Device::Cpu)) * 2. - 1.;
            let z = stage.encode_tiled(&x, tiling).mode();
            assert_eq!(z.size(), [1, channels, height, width], "{name} {tiling:?}");
            let y = stage.decode_tiled(&z, tiling);
            assert_eq!(y.size(), x.size(), "{name} {tiling:?}");
            assert!(y.isfinite().all().int64_value(&[]) == 1, "{name} {tiling:?}");
        }
    }
}

#[test]
fn tiles_near_the_whole_where_they_are_wide() {
    // TAESD sees no further than its convolutions reach: with that much overlap the middle of a tile is as if untiled.
    let tiny = stage("taesd", Spelling::Diffusers, Kind::Float, Layout::ChannelsLast, "wide");
    let z = golden("taesd.z").narrow(0, 0, 1).repeat([1, 1, 1, 8]); // [1, 4, 8, 48]
    let (whole, tiled) = (tiny.decode(&z), tiny.decode_tiled(&z, Tiling::new(32, 16).expect("tiles")));
    let error = (&whole - &tiled).abs();
    println!("largest {:?}", error.max());
    assert!(error.max().double_value(&[]) < 0.2 * whole.abs().max().double_value(&[]));
    // The first pixels are those of the first tile, whose other edge is far away.
    near("the first pixels", &tiled.narrow(3, 0, 32), &whole.narrow(3, 0, 32));
}

#[test]
fn tiles_that_cannot_be_are_refused() {
    for (tile, overlap, key) in [(0, 0, "tile"), (-1, 0, "tile"), (1 << 40, 0, "tile"), (8, 5, "overlap"), (8, -1, "overlap")] {
        let message = Tiling::new(tile, overlap).expect_err("refused").to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
    assert!(Tiling::for_size(4, 8).is_err());
    assert!(Tiling::for_size(64, 0).is_ok());
}
