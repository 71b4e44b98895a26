//! Inpainting's mask options through tiny models of all three kinds, and super-resolution by other factors than the model's own.

use ldm_core::task::{Fill, MaskingDraft};
use ldm_core::{Draft, Plane, Raster, Task};
use ldm_pipeline::{DeviceExecutor, ModelSource};

use crate::rig::{device, draw, load, options};
use crate::systems::made;

fn tiny(model: &str, name: &str) -> DeviceExecutor {
    DeviceExecutor::load(&[ModelSource::new("tiny", made(model, name))], &options()).expect("it loads")
}

fn pattern(width: u32, height: u32) -> Raster {
    let bytes: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
    Raster::new(width, height, bytes).expect("its own size")
}

/// 255 in the middle half of either side.
fn middle(width: u32, height: u32) -> Plane {
    let inside = |at: u32, side: u32| (side / 4..side * 3 / 4).contains(&at);
    let value = |x, y| if inside(x, width) && inside(y, height) { 255 } else { 0 };
    let data: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| value(x, y))).collect();
    Plane::new(width, height, data).expect("its own size")
}

fn inpaint(masking: MaskingDraft) -> Draft {
    Draft {
        init_image: Some(pattern(64, 48)),
        mask: Some(middle(64, 48)),
        masking,
        width: Some(64),
        height: Some(48),
        steps: Some(3),
        sampler: Some("ddim".into()),
        guidance: Some(1.),
        seed: Some(5),
        ..Draft::new(Task::Inpaint)
    }
}

/// Pixels that differ: under the mask, and elsewhere.
fn changed(picture: &Raster, reference: &Raster, mask: &Plane) -> [usize; 2] {
    assert_eq!((picture.width(), picture.height()), (reference.width(), reference.height()));
    let pixels = picture.data().chunks_exact(3).zip(reference.data().chunks_exact(3)).zip(mask.data());
    pixels.fold([0; 2], |mut counts, ((a, b), &mask)| {
        counts[usize::from(mask == 0)] += usize::from(a != b);
        counts
    })
}

#[test]
fn all_kinds_of_inpainting_keep_what_the_mask_leaves_out() {
    let kinds: [(&str, DeviceExecutor); 3] = [
        ("blending", device()),
        ("stable diffusion's", tiny("sd-inpainting", "masking-sd")),
        ("latent diffusion's", tiny("original-inpainting", "masking-original")),
    ];
    for (kind, mut device) in kinds {
        let (init, mask) = (pattern(64, 48), middle(64, 48));
        let usual = draw(&mut device, inpaint(MaskingDraft::default()));
        let [painted, beside] = changed(&usual.picture, &init, &mask);
        assert!(painted > 700 && beside == 0, "{kind}: {painted} of 768 painted, {beside} beside");
        let bare = draw(&mut device, inpaint(MaskingDraft { composite: Some(false), ..MaskingDraft::default() }));
        assert!(bare.latent == usual.latent && changed(&bare.picture, &init, &mask)[1] > 1000, "{kind}");
        assert_eq!(changed(&bare.picture, &usual.picture, &mask)[0], 0, "{kind}: under the mask it is what was drawn");
        // A mask of four pixels more on every side holds all that a blur of 1.5 reaches.
        let faded = draw(&mut device, inpaint(MaskingDraft { blur: Some([1.5; 2]), ..MaskingDraft::default() }));
        let near: Vec<u8> =
            (0..48).flat_map(|y| (0..64).map(move |x| u8::from((12..52).contains(&x) && (8..40).contains(&y)))).collect();
        let near = Plane::new(64, 48, near).expect("its own size");
        assert!(faded.latent == usual.latent && changed(&faded.picture, &init, &near)[1] == 0, "{kind}");
        assert!(changed(&faded.picture, &usual.picture, &mask)[1] > 0, "{kind}: the edge fades");

        let inverted = draw(&mut device, inpaint(MaskingDraft { invert: Some(true), ..MaskingDraft::default() }));
        let other = Draft { mask: Some(mask.map(|value| 255 - value)), ..inpaint(MaskingDraft::default()) };
        assert!(inverted == draw(&mut device, other), "{kind}");
        assert_eq!(changed(&inverted.picture, &init, &mask)[0], 0, "{kind}");
    }
}

#[test]
fn only_the_masked_area_is_drawn_at_the_request_s_size() {
    let mut device = device();
    let (init, mut mask) = (pattern(200, 120), vec![0; 200 * 120]);
    (40..60).for_each(|y| mask[y * 200 + 150..y * 200 + 170].fill(255));
    let mask = Plane::new(200, 120, mask).expect("its own size");
    let only = MaskingDraft { only_masked: Some(true), padding: Some(10), ..MaskingDraft::default() };
    let with = |masking| Draft {
        init_image: Some(init.clone()),
        mask: Some(mask.clone()),
        width: Some(64),
        height: Some(64),
        ..inpaint(masking)
    };
    let out = draw(&mut device, with(only));
    let [painted, beside] = changed(&out.picture, &init, &mask);
    assert!(painted > 380 && beside == 0, "{painted} of 400 painted, {beside} beside");
    assert_eq!(out.latent.len(), draw(&mut device, inpaint(MaskingDraft::default())).latent.len() / 48 * 64);
    // The same area, cut out beforehand.
    let rows = (30..70).map(|y| &init.data()[(y * 200 + 140) * 3..(y * 200 + 180) * 3]);
    let cut = Raster::new(40, 40, rows.collect::<Vec<_>>().concat()).expect("its own size");
    let rows = (30..70).map(|y| &mask.data()[y * 200 + 140..y * 200 + 180]);
    let cut_mask = Plane::new(40, 40, rows.collect::<Vec<_>>().concat()).expect("its own size");
    let same = Draft { init_image: Some(cut), mask: Some(cut_mask), ..with(MaskingDraft::default()) };
    assert!(draw(&mut device, same).latent == out.latent);
    let bare = draw(&mut device, with(MaskingDraft { composite: Some(false), ..only }));
    let [_, beside] = changed(&bare.picture, &init, &mask);
    assert!(beside > 1000 && beside <= 40 * 40 - 400, "{beside}");
}

#[test]
fn what_lies_under_the_mask_is_where_drawing_starts() {
    for (kind, mut device) in [("blending", device()), ("stable diffusion's", tiny("sd-inpainting", "masking-fill"))] {
        let mut with = |fill: Fill, strength| {
            let masking = MaskingDraft { fill: Some(fill), ..MaskingDraft::default() };
            draw(&mut device, Draft { strength: Some(strength), ..inpaint(masking) })
        };
        let latents: Vec<_> = Fill::ALL.into_iter().map(|fill| with(fill, 0.7).latent).collect();
        for (i, latent) in latents.iter().enumerate() {
            assert!(latents[..i].iter().all(|other| other != latent), "{kind}: {:?} starts as another does", Fill::ALL[i]);
        }
        // A strength of 1 starts from noise alone, but what a blending model puts back was encoded with the smeared colours.
        let [original, noise, nothing] =
            [Fill::Original, Fill::LatentNoise, Fill::LatentNothing].map(|fill| with(fill, 1.0).latent);
        assert!(original == noise && original == nothing, "{kind}");
    }
}

#[test]
fn latent_diffusion_s_inpainting_starts_from_the_picture_below_full_strength() {
    let mut device = tiny("original-inpainting", "masking-strength");
    let mut with = |init: Raster| {
        let draft = Draft { init_image: Some(init), strength: Some(0.5), steps: Some(4), ..inpaint(MaskingDraft::default()) };
        draw(&mut device, draft).latent
    };
    // Two pictures that are alike but for what is under the mask.
    let mut other = pattern(64, 48).data().to_vec();
    (20..28).for_each(|y| other[(y * 64 + 20) * 3..(y * 64 + 44) * 3].fill(0));
    assert!(with(pattern(64, 48)) != with(Raster::new(64, 48, other).expect("its own size")));
}

#[test]
fn super_resolution_takes_other_factors_than_the_model_s_own() {
    let path = made("ldm-super-resolution", "masking-factors");
    let mut device = load(&path, &options()).expect("it loads");
    let with = |scale: Option<i64>, low: Raster| Draft {
        lr_image: Some(low),
        scale,
        steps: Some(2),
        sampler: Some("ddim".into()),
        guidance: Some(1.),
        seed: Some(3),
        ..Draft::new(Task::SuperResolution)
    };
    let usual = draw(&mut device, with(None, pattern(16, 24)));
    let own = i64::from(usual.picture.width() / 16);
    assert!(own >= 2 && usual == draw(&mut device, with(Some(own), pattern(16, 24))));
    let smaller = draw(&mut device, with(Some(own - 1), pattern(16, 24)));
    assert!(smaller.latent == usual.latent, "the same is drawn, and made smaller");
    assert_eq!([smaller.picture.width(), smaller.picture.height()].map(i64::from), [16 * (own - 1), 24 * (own - 1)]);
    // 17 and 23 are no multiples of anything.
    let larger = draw(&mut device, with(Some(own + 1), pattern(17, 23)));
    assert_eq!([larger.picture.width(), larger.picture.height()].map(i64::from), [17 * (own + 1), 23 * (own + 1)]);
    let twice = draw(&mut device, with(Some(own * 2), pattern(8, 12)));
    assert_eq!([twice.picture.width(), twice.picture.height()], [usual.picture.width(), usual.picture.height()]);
}
