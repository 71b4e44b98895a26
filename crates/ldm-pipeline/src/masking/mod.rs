//! The pixels of inpainting: what the task is shown, and how the picture that it draws is laid back.

mod blur;
mod region;
mod smear;
#[cfg(test)]
mod tests;

use ldm_core::task::{Fill, Inpaint};
use ldm_core::{Failure, FailureKind, Plane, Raster};

use crate::picture::{resized, resized_plane};
use region::{Place, Region};

/// What an inpainting works on, all at the request's size.
pub(crate) struct Canvas {
    /// The picture.
    pub(crate) picture: Raster,
    /// The picture as it lies under the mask at the start.
    pub(crate) filled: Raster,
    /// 255 where it is painted, 0 elsewhere.
    pub(crate) mask: Plane,
    /// How what is drawn becomes the picture that comes out; `None` if it is that.
    pub(crate) overlay: Option<Overlay>,
}

/// How a drawn picture is laid over the one that came in.
pub(crate) struct Overlay {
    /// What lies under it, as large as what comes out.
    under: Raster,
    /// How much of the drawn picture shows: 0 is none, 255 is all.
    shown: Plane,
    /// Where the drawn picture goes, if not over all of it.
    place: Option<Place>,
}

impl Canvas {
    /// For a request of that size.
    pub(crate) fn of(work: &Inpaint, width: u32, height: u32) -> Result<Self, Failure> {
        match work.masking.only_masked {
            None => Self::whole(work, width, height),
            Some(padding) => Self::part(work, padding, width, height),
        }
    }

    fn whole(work: &Inpaint, width: u32, height: u32) -> Result<Self, Failure> {
        let masking = &work.masking;
        let picture = resized(&work.init, width, height)?;
        let mask = masking.painted(&resized_plane(&work.mask, width, height)?);
        let overlay = masking.composite.then(|| {
            // What is painted shows whole, and fades out beyond its edge (`mask_for_overlay`, twice the blurred mask).
            let shown = blur::gaussian(&mask, masking.blur).map(|value| value.saturating_mul(2));
            Overlay { under: picture.clone(), shown, place: None }
        });
        Ok(Self { filled: filled(masking.fill, &picture, &mask), picture, mask, overlay })
    }

    /// Of the masked area with so many pixels around it (`inpaint_full_res`).
    fn part(work: &Inpaint, padding: u32, width: u32, height: u32) -> Result<Self, Failure> {
        let masking = &work.masking;
        let mask = masking.painted(&work.mask);
        let blurred = blur::gaussian(&mask, masking.blur);
        // A mask that its blur makes invisible is taken as it is; one with nothing to paint has been refused.
        let (shown, area) = match Region::of(&blurred) {
            Some(area) => (blurred, Some(area)),
            None => (mask.clone(), Region::of(&mask)),
        };
        let Some(area) = area else { return Err(Failure::new(FailureKind::Unsupported, "the mask has nothing to paint")) };
        let size = [mask.width(), mask.height()];
        let place = Place::new(area.padded(padding, size).expanded([width, height], size), [width, height]);
        let picture = place.cut(&work.init)?;
        let mask = masking.painted(&place.cut_plane(&work.mask)?);
        let shown = match masking.composite {
            true => shown,
            false => place.region.covered(size),
        };
        let overlay = Some(Overlay { under: work.init.clone(), shown, place: Some(place) });
        Ok(Self { filled: filled(masking.fill, &picture, &mask), picture, mask, overlay })
    }
}

fn filled(fill: Fill, picture: &Raster, mask: &Plane) -> Raster {
    match fill {
        Fill::Smear => smear::smeared(picture, mask),
        Fill::Original | Fill::LatentNoise | Fill::LatentNothing => picture.clone(),
    }
}

impl Overlay {
    /// The picture that comes out. Where nothing of `drawn` shows, the bytes are those that lie under it.
    pub(crate) fn over(&self, drawn: &Raster) -> Result<Raster, Failure> {
        let Self { under, shown, place } = self;
        let (drawn, region) = match place {
            None => (drawn.clone(), Region::whole([under.width(), under.height()])),
            Some(place) => (place.back(drawn)?, place.region),
        };
        let mut bytes = under.data().to_vec();
        let (width, [left, top]) = (under.width() as usize, [region.left, region.top].map(|side| side as usize));
        for (y, row) in drawn.data().chunks_exact(region.width as usize * 3).enumerate() {
            let from = (top + y) * width + left;
            let shown = &shown.data()[from..from + region.width as usize];
            let below = bytes[from * 3..(from + region.width as usize) * 3].chunks_exact_mut(3);
            for ((below, above), &share) in below.zip(row.chunks_exact(3)).zip(shown) {
                for (below, &above) in below.iter_mut().zip(above) {
                    *below = mixed(*below, above, share);
                }
            }
        }
        Raster::new(under.width(), under.height(), bytes).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
    }
}

/// `share` of 255 parts of the upper one, to the nearest level.
fn mixed(below: u8, above: u8, share: u8) -> u8 {
    let share = u32::from(share);
    ((u32::from(below) * (255 - share) + u32::from(above) * share + 127) / 255) as u8
}
