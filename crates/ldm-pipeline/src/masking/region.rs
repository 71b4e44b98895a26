//! The part of a picture that is drawn when only the masked area is (`modules/masking.py` of stable-diffusion-webui), and its way to the
//! request's size and back.

use ldm_core::{Failure, FailureKind, Plane, Raster};

use crate::picture::{resized, resized_plane};

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// One side of a rectangle: from, to (which is not part of it).
type Span = [i64; 2];

/// The span made longer by `more`, a half of it on either side, pushed back inside `0..length` where it runs out, and cut where it is too
/// long for it.
fn widened([from, to]: Span, more: i64, length: i64) -> Span {
    let (mut from, mut to) = (from - more / 2, to + more - more / 2);
    if to >= length {
        from -= to - length;
        to = length;
    }
    if from < 0 {
        to -= from;
        from = 0;
    }
    [from, to.min(length)]
}

impl Region {
    /// All of a picture of that size.
    pub(super) fn whole([width, height]: [u32; 2]) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// The smallest one that holds every value that is not 0; `None` if there is none.
    pub(super) fn of(plane: &Plane) -> Option<Self> {
        let rows = || plane.data().chunks_exact(plane.width().max(1) as usize).enumerate();
        let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, None, 0);
        for (y, row) in rows() {
            let Some(first) = row.iter().position(|&value| value != 0) else { continue };
            let last = row.iter().rposition(|&value| value != 0).unwrap_or(first);
            (left, right) = (left.min(first), right.max(last));
            (top, bottom) = (top.or(Some(y)), y);
        }
        let top = top?;
        let side = |from: usize, to: usize| (to + 1 - from) as u32;
        Some(Self { left: left as u32, top: top as u32, width: side(left, right), height: side(top, bottom) })
    }

    /// With so many pixels more on every side, where the picture has them (`get_crop_region`).
    pub(super) fn padded(self, padding: u32, [width, height]: [u32; 2]) -> Self {
        let span = |from: u32, side: u32, length: u32| {
            let to = from.saturating_add(side).saturating_add(padding).min(length);
            let from = from.saturating_sub(padding);
            (from, to - from)
        };
        let ((left, width), (top, height)) = (span(self.left, self.width, width), span(self.top, self.height, height));
        Self { left, top, width, height }
    }

    /// Made wider or higher, to the shape of a picture of `size`, as far as one of `within` allows (`expand_crop_region`).
    pub(super) fn expanded(self, size: [u32; 2], within: [u32; 2]) -> Self {
        let sides = [self.width, self.height].map(i64::from);
        let [across, down] = size.map(f64::from);
        let mut spans = [[i64::from(self.left), 0], [i64::from(self.top), 0]];
        spans.iter_mut().zip(sides).for_each(|(span, side)| span[1] = span[0] + side);
        let wider = sides[0] as f64 / sides[1] as f64 > across / down;
        let (axis, wanted) = if wider { (1, sides[0] as f64 * down / across) } else { (0, sides[1] as f64 * across / down) };
        spans[axis] = widened(spans[axis], (wanted - sides[axis] as f64) as i64, within[axis].into());
        let [[left, right], [top, bottom]] = spans.map(|span| span.map(|at| at.max(0) as u32));
        Self { left, top, width: right - left, height: bottom - top }
    }

    /// What a picture shows there; it holds the rectangle.
    fn of_picture(self, picture: &Raster) -> Result<Raster, Failure> {
        Raster::new(self.width, self.height, self.of_data::<3>(picture.data(), picture.width())).map_err(wrong)
    }

    /// Pixels of `C` bytes, of rows of `width`.
    fn of_data<const C: usize>(self, data: &[u8], width: u32) -> Vec<u8> {
        let rows = data.chunks_exact(width.max(1) as usize * C).skip(self.top as usize).take(self.height as usize);
        rows.flat_map(|row| &row[self.left as usize * C..][..self.width as usize * C]).copied().collect()
    }

    /// 255 inside, 0 outside, of a picture of that size.
    pub(super) fn covered(self, [width, height]: [u32; 2]) -> Plane {
        let inside = |at: u32, from: u32, side: u32| (from..from + side).contains(&at);
        let value = |x, y| if inside(x, self.left, self.width) && inside(y, self.top, self.height) { 255 } else { 0 };
        let data: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| value(x, y))).collect();
        // A value per pixel.
        Plane::new(width, height, data).unwrap_or_else(|_| Plane::filled(width, height, 255))
    }
}

/// Where a region lies in a picture of the request's size: as large as fits, in the middle, with what is at its edges in the margins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) region: Region,
    /// The region in the request's picture.
    inner: Region,
    size: [u32; 2],
}

impl Place {
    pub(super) fn new(region: Region, size: [u32; 2]) -> Self {
        let [width, height] = size.map(f64::from);
        let scale = (width / f64::from(region.width.max(1))).min(height / f64::from(region.height.max(1)));
        let side = |side: u32, most: u32| ((f64::from(side) * scale).round() as u32).clamp(1, most.max(1));
        let (width, height) = (side(region.width, size[0]), side(region.height, size[1]));
        let inner = Region { left: (size[0].max(1) - width) / 2, top: (size[1].max(1) - height) / 2, width, height };
        Self { region, inner, size }
    }

    /// The region of a picture, at the request's size.
    pub(super) fn cut(&self, picture: &Raster) -> Result<Raster, Failure> {
        let part = resized(&self.region.of_picture(picture)?, self.inner.width, self.inner.height)?;
        Raster::new(self.size[0], self.size[1], self.spread::<3>(part.data())).map_err(wrong)
    }

    /// The same of a mask.
    pub(super) fn cut_plane(&self, plane: &Plane) -> Result<Plane, Failure> {
        let Region { width, height, .. } = self.region;
        let part = Plane::new(width, height, self.region.of_data::<1>(plane.data(), plane.width())).map_err(wrong)?;
        let part = resized_plane(&part, self.inner.width, self.inner.height)?;
        Plane::new(self.size[0], self.size[1], self.spread::<1>(part.data())).map_err(wrong)
    }

    /// Pixels of `C` bytes of the inner part over all of the request's size: what is at its edges goes on in the margins.
    fn spread<const C: usize>(&self, part: &[u8]) -> Vec<u8> {
        let Region { left, top, width, height } = self.inner;
        let within = |at: u32, from: u32, side: u32| at.saturating_sub(from).min(side - 1) as usize;
        let mut out = Vec::with_capacity(self.size[0] as usize * self.size[1] as usize * C);
        for y in 0..self.size[1] {
            let row = &part[within(y, top, height) * width as usize * C..][..width as usize * C];
            for x in 0..self.size[0] {
                out.extend_from_slice(&row[within(x, left, width) * C..][..C]);
            }
        }
        out
    }

    /// What was drawn at the request's size, as the region.
    pub(super) fn back(&self, drawn: &Raster) -> Result<Raster, Failure> {
        resized(&self.inner.of_picture(drawn)?, self.region.width, self.region.height)
    }
}

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Device, error.to_string())
}
