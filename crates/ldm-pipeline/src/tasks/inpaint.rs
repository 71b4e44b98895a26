//! A part of a picture painted anew, in the three ways of denoisers: trained on the latent of the masked picture and the mask
//! (latent-diffusion's inpainting_big), trained on the mask and that latent (Stable Diffusion inpainting), or not trained for it
//! at all, with the rest put back after every step (RePaint without resampling, Lugmayr et al. 2022, Algorithm 1).

use ldm_core::Failure;
use ldm_core::task::{Fill, Inpaint};
use ldm_nn::FirstStage;
use tch::{Kind, Tensor};

use super::{Bench, Keep, Paste, Start};
use crate::masking::Canvas;
use crate::picture::{mask_to_tensor, to_tensor};
use crate::run::draw;
use crate::system::Concat;

/// One mask pixel per latent pixel: the upper left one of its block.
fn shrunk(mask: &Tensor, factor: i64) -> Tensor {
    let (_, _, height, width) = mask.size4().expect("a mask has four dimensions");
    mask.slice(2, 0, height, factor).slice(3, 0, width, factor)
}

pub(super) fn start(bench: &mut Bench<'_>, work: &Inpaint) -> Result<Start, Failure> {
    let (width, height, device) = (bench.request.width, bench.request.height, bench.stage.device());
    let canvas = Canvas::of(work, width, height)?;
    let picture = to_tensor(&canvas.picture, width, height, device)?; // [1, 3, H, W]
    let filled = match work.masking.fill {
        Fill::Smear => to_tensor(&canvas.filled, width, height, device)?,
        _ => picture.shallow_clone(),
    };
    let mask = mask_to_tensor(&canvas.mask, device); // [1, 1, H, W], 1 where it is painted
    let small = shrunk(&mask, bench.stage.factor()); // [1, 1, H/f, W/f]
    let start = match bench.concat {
        Concat::MaskedMask => {
            // scripts/inpaint.py: black under the mask, everything in ±1, no sample but the encoder's own output.
            let masked = (&picture * 0.5 + 0.5) * (-&mask + 1.) * 2. - 1.;
            let encoded = bench.stage.encode(&masked.to_kind(bench.stage.kind())).to_kind(Kind::Float).mode();
            let latent = begun(bench, work, &filled, &small);
            let concat = Tensor::cat(&[encoded, small * 2. - 1.], 1);
            // Pasted before numbers become bytes, as the script does it, where the mask is the edge.
            let hard = work.masking.composite && work.masking.blur == [0.; 2] && work.masking.only_masked.is_none();
            let paste = hard.then_some(Paste { picture, mask });
            Start { concat: Some(concat), paste, ..Start::at(latent) }
        }
        Concat::MaskMasked => {
            // StableDiffusionInpaintPipeline: grey under the mask; the picture's latent only where strength leaves some of it.
            let latent = begun(bench, work, &filled, &small);
            let masked = &picture * mask.lt(0.5).to_kind(Kind::Float);
            let concat = Tensor::cat(&[small, bench.encode(&masked)], 1);
            Start { concat: Some(concat), ..Start::at(latent) }
        }
        Concat::None => {
            let clean = bench.encode(&filled);
            let noise = bench.draw();
            let latent = noised(bench, work, Some(&under(work, &clean, &noise, &small)), &noise);
            // The pipeline samples the masked picture's latent as well, and leaves it: what a sampler draws comes after it.
            if matches!(bench.stage, FirstStage::Kl(_)) {
                let shape = bench.shape();
                let _unused = draw(bench.noise, &shape, device);
            }
            Start { keep: Some(Keep { clean, noise, mask: small }), ..Start::at(latent) }
        }
        _ => return Err(bench.unsupported()),
    };
    Ok(Start { overlay: canvas.overlay, ..start })
}

/// The latent that the plan starts from: of the picture only where strength leaves some of it.
fn begun(bench: &mut Bench<'_>, work: &Inpaint, picture: &Tensor, mask: &Tensor) -> Tensor {
    let clean = (work.strength < 1.).then(|| bench.encode(picture));
    let noise = bench.draw();
    let clean = clean.map(|clean| under(work, &clean, &noise, mask));
    noised(bench, work, clean.as_ref(), &noise)
}

/// The picture's latent with what lies under the mask. Its noise is the job's first, as stable-diffusion-webui has it.
fn under(work: &Inpaint, clean: &Tensor, noise: &Tensor, mask: &Tensor) -> Tensor {
    match work.masking.fill {
        Fill::Original | Fill::Smear => clean.shallow_clone(),
        Fill::LatentNoise => clean + (noise - clean) * mask,
        Fill::LatentNothing => clean * (-mask + 1.),
    }
}

fn noised(bench: &Bench<'_>, work: &Inpaint, clean: Option<&Tensor>, noise: &Tensor) -> Tensor {
    match clean {
        Some(clean) if work.strength < 1. => clean * bench.plan.start.0 + noise * bench.plan.start.1,
        _ => noise * bench.plan.init_scale,
    }
}
