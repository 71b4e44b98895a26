//! Pictures side by side in one PNG.

use std::path::Path;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Writes `[B, 3, H, W]` in [−1, 1] as a grid of `columns`, each picture `scale` times as large.
pub(crate) fn save(pictures: &Tensor, columns: i64, scale: i64, path: &Path) -> Result<()> {
    const GAP: i64 = 2;
    let (b, _, height, width) = pictures.size4()?;
    ensure!(b > 0 && columns > 0, "a grid needs pictures");
    let large = pictures.to_kind(Kind::Float).upsample_nearest2d([height * scale, width * scale], None, None);
    let large = large.constant_pad_nd([0, GAP, 0, GAP]);
    let rows = (b + columns - 1) / columns;
    let filler = Tensor::zeros([rows * columns - b, 3, height * scale + GAP, width * scale + GAP], (Kind::Float, large.device()));
    let all = Tensor::cat(&[large, filler], 0).view([rows, columns, 3, height * scale + GAP, width * scale + GAP]);
    let sheet = all.permute([0, 3, 1, 4, 2]).reshape([rows * (height * scale + GAP), columns * (width * scale + GAP), 3]);
    let (h, w) = (sheet.size()[0], sheet.size()[1]);
    image::RgbImage::from_raw(u32::try_from(w)?, u32::try_from(h)?, bytes(&sheet)?)
        .ok_or_else(|| anyhow::anyhow!("a grid of {w}x{h}"))?
        .save(path)?;
    Ok(())
}

/// [−1, 1] → 0..=255, rounded, in the tensor's order.
pub(crate) fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    let levels = ((x.to_kind(Kind::Float) + 1.) * 127.5).round().clamp(0., 255.).to_kind(Kind::Uint8);
    Ok(Vec::<u8>::try_from(levels.contiguous().flatten(0, -1))?)
}
