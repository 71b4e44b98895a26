//! The web UI's words for masks, and what becomes of them.

use ldm_core::task::{Fill, Inpaint, Work};
use ldm_core::{Task, Violation};
use ldm_engine::fake::FakeExecutor;
use serde_json::{Value, json};

use super::check;
use super::fields::Fields;
use crate::codec::base64;

/// A PNG of one channel.
fn grey(width: u32, height: u32, data: &[u8]) -> String {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    base64(file)
}

/// What a body asks for: the inpainting, and the size that comes out.
fn asked(body: Value) -> Result<(Inpaint, [u32; 2]), Vec<Violation>> {
    let mut all = json!({
        "init_images": [base64(crate::testing::picture(128, 96))], "width": 64, "height": 64, "steps": 4,
        "mask": grey(128, 96, &[[255; 128 * 48], [0; 128 * 48]].concat()),
    });
    all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let fields: Fields = serde_json::from_value(all).unwrap();
    let requests = check::requests(&fields, None, Task::Img2Img, &FakeExecutor::catalogue_example(), 1 << 20);
    let request = requests.map_err(|error| error.violations)?.remove(0);
    let size = request.size();
    match request.work {
        Work::Inpaint(work) => Ok((work, size)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_web_ui_s_defaults_draw_only_the_masked_area_of_the_picture_as_it_came() {
    let (work, size) = asked(json!({})).unwrap();
    let masking = work.masking;
    assert_eq!((masking.blur, masking.invert, masking.only_masked), ([4.0, 4.0], false, Some(0)));
    assert_eq!((masking.fill, masking.composite), (Fill::Smear, true));
    assert_eq!(([work.init.width(), work.init.height()], size), ([128, 96], [128, 96]));
    let (work, _) = asked(json!({ "inpaint_full_res_padding": 32, "mask_blur_y": 2, "inpainting_mask_invert": 1 })).unwrap();
    assert_eq!((work.masking.only_masked, work.masking.blur, work.masking.invert), (Some(32), [4.0, 2.0], true));
    assert_eq!(work.mask.data()[0], 255, "the mask itself is as it was sent");
    let (work, _) = asked(json!({ "mask_blur": 0, "mask_blur_y": 2 })).unwrap();
    assert_eq!(work.masking.blur, [0.0, 0.0], "one blur for both stands before the two");
}

#[test]
fn a_whole_picture_is_brought_to_the_request_s_size_with_its_mask_and_its_blur() {
    for (mode, blur) in [(0, [2.0, 4.0 * 64.0 / 96.0]), (1, [4.0 * 64.0 / 96.0; 2]), (2, [2.0, 2.0])] {
        let (work, size) = asked(json!({ "inpaint_full_res": 0, "resize_mode": mode, "inpaint_full_res_padding": 32 })).unwrap();
        assert_eq!((work.masking.only_masked, size), (None, [64, 64]));
        assert_eq!([work.init.width(), work.init.height(), work.mask.width(), work.mask.height()], [64; 4]);
        assert!(work.masking.blur.iter().zip(blur).all(|(a, b)| (a - b).abs() < 1e-12), "{mode}: {:?}", work.masking.blur);
    }
}

#[test]
fn masked_content_goes_by_its_number() {
    for (number, fill) in [(0, Fill::Smear), (1, Fill::Original), (2, Fill::LatentNoise), (3, Fill::LatentNothing)] {
        assert_eq!(asked(json!({ "inpainting_fill": number })).unwrap().0.masking.fill, fill);
    }
}

#[test]
fn what_is_wrong_has_the_web_ui_s_names() {
    for (body, field) in [
        (json!({ "inpainting_fill": 4 }), "inpainting_fill"),
        (json!({ "mask_blur": 65 }), "mask_blur"),
        (json!({ "mask_blur": -1, "inpaint_full_res": false }), "mask_blur"),
        (json!({ "inpaint_full_res_padding": 257 }), "inpaint_full_res_padding"),
        (json!({ "inpaint_full_res_padding": -1 }), "inpaint_full_res_padding"),
    ] {
        let fields: Vec<_> = asked(body).unwrap_err().into_iter().map(|bad| bad.field).collect();
        assert_eq!(fields, [field]);
    }
    // Without a mask none of it matters.
    let fields = json!({ "init_images": [base64(crate::testing::picture(8, 8))], "width": 64, "height": 64, "mask_blur": 65 });
    let fields: Fields = serde_json::from_value(fields).unwrap();
    let requests = check::requests(&fields, None, Task::Img2Img, &FakeExecutor::catalogue_example(), 1 << 20).unwrap();
    assert!(matches!(requests[0].work, Work::Img2Img(_)));
}
