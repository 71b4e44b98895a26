//! Group normalisation (Wu & He 2018) of NHWC maps with statistics in float64, and the SiLU that mostly follows in the same pass.
//!
//! ATen's kernel for channels_last sums squares in float32, which over 512² pixels loses two digits (`docs/benchmarks.md`). Here
//! squares of float32 and bfloat16 are exact, and so are the numbers less a mean that is close to them.

use std::arch::x86_64::*;

use tch::{Device, Kind, Tensor};

use super::avx512::{LANES, Shared, available, exp2, read, write};
use super::team;

/// Numbers in a piece of work. Pieces do not depend on the number of threads, nor on other pictures.
const PIECE: usize = 1 << 15;
/// Registers of channels that are summed together: their sums fill half of the registers there are.
const TOGETHER: usize = 4;

/// Whether [`group_norm`] takes `channels` of `kind`.
pub(super) fn fits(kind: Kind, channels: i64) -> bool {
    available() && matches!(kind, Kind::Float | Kind::BFloat16) && channels > 0 && channels % LANES as i64 == 0
}

/// Parameters `[C]`, and the number of groups.
#[derive(Clone, Copy)]
pub(super) struct Parameters<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: &'a Tensor,
    pub(super) groups: i64,
    pub(super) eps: f64,
}

/// `[B, C, H, W]` → the same with NHWC strides; followed by SiLU where `SILU` says so.
///
/// # Panics
/// When [`fits`] is false, or a shape does not fit.
pub(super) fn group_norm<const SILU: bool>(x: &Tensor, parameters: Parameters<'_>) -> Tensor {
    let (b, channels, height, width) = x.size4().expect("a feature map has four dimensions");
    assert!(fits(x.kind(), channels) && x.device() == Device::Cpu);
    let Parameters { weight, bias, groups, eps } = parameters;
    assert!(groups > 0 && channels % groups == 0 && weight.size() == [channels] && bias.size() == [channels]);
    let nhwc = x.permute([0, 2, 3, 1]).contiguous();
    let out = Tensor::empty([b, height, width, channels], (x.kind(), Device::Cpu));
    let [weight, bias] = [weight, bias].map(|x| x.to_kind(Kind::Float).contiguous());
    let (pixels, channels) = ((height * width) as usize, channels as usize);
    let span = (PIECE / channels).clamp(1, pixels.max(1));
    let job = Job {
        input: Shared(nhwc.data_ptr().cast()),
        output: Shared(out.data_ptr().cast()),
        weight: Shared(weight.data_ptr().cast()),
        bias: Shared(bias.data_ptr().cast()),
        pictures: b as usize,
        pixels,
        channels,
        groups: groups as usize,
        span,
        spans: pixels.div_ceil(span),
        eps,
    };
    if x.kind() == Kind::BFloat16 {
        job.run::<true, SILU>()
    } else {
        job.run::<false, SILU>()
    }
    out.permute([0, 3, 1, 2])
}

/// Numbers of one dtype at these addresses: input and output contiguous NHWC; weight and bias `[C]` in float32.
struct Job {
    input: Shared<u8>,
    output: Shared<u8>,
    weight: Shared<f32>,
    bias: Shared<f32>,
    pictures: usize,
    /// Of one picture.
    pixels: usize,
    channels: usize,
    groups: usize,
    /// Pixels of a piece of work, and pieces of a picture.
    span: usize,
    spans: usize,
    eps: f64,
}

impl Job {
    fn run<const HALF: bool, const SILU: bool>(&self) {
        let channels = self.channels;
        // Of each piece: `[2][C]`, sums and sums of squares.
        let mut sums = vec![0f64; self.pictures * self.spans * 2 * channels];
        let sums_at = Shared(sums.as_mut_ptr());
        team::each(self.pictures * self.spans, &|piece| {
            let (offset, pixels) = self.place::<HALF>(piece);
            // SAFETY: the processor has the instructions (`fits`), the pixels exist, and every piece has its own sums.
            unsafe { self.sum::<HALF>(self.input.get().add(offset), pixels, sums_at.get().add(piece * 2 * channels)) };
        });
        // Of each picture: `[3][C]`, what is taken off, the factor, what is added.
        let mut affine = vec![0f32; self.pictures * 3 * channels];
        for (affine, sums) in affine.chunks_exact_mut(3 * channels).zip(sums.chunks_exact(self.spans * 2 * channels)) {
            for group in 0..self.groups {
                self.settle(group, sums, affine);
            }
        }
        team::each(self.pictures * self.spans, &|piece| {
            let (offset, pixels) = self.place::<HALF>(piece);
            let affine = &affine[piece / self.spans * 3 * channels..][..3 * channels];
            // SAFETY: as above; every piece writes its own pixels.
            unsafe { self.apply::<HALF, SILU>(self.input.get().add(offset), pixels, affine, self.output.get().add(offset)) };
        });
    }

    /// Where a piece begins, in bytes, and its number of pixels.
    fn place<const HALF: bool>(&self, piece: usize) -> (usize, usize) {
        let (picture, first) = (piece / self.spans, piece % self.spans * self.span);
        let size = if HALF { 2 } else { 4 };
        ((picture * self.pixels + first) * self.channels * size, self.span.min(self.pixels - first))
    }

    /// Sums and sums of squares of each channel over a piece.
    ///
    /// # Safety
    /// The processor is [`available`]; `from` points to `pixels` pixels, `to` to `[2][C]` numbers.
    #[target_feature(enable = "avx512f")]
    unsafe fn sum<const HALF: bool>(&self, from: *const u8, pixels: usize, to: *mut f64) {
        let mut channel = 0;
        while channel < self.channels {
            // SAFETY: as many channels from `channel` on exist.
            unsafe {
                if self.channels - channel >= TOGETHER * LANES {
                    self.sum_channels::<HALF, TOGETHER>(from, pixels, channel, to);
                    channel += TOGETHER * LANES;
                } else {
                    self.sum_channels::<HALF, 1>(from, pixels, channel, to);
                    channel += LANES;
                }
            }
        }
    }

    /// The same of `16 V` channels from `first` on.
    ///
    /// # Safety
    /// As of [`sum`](Self::sum); the channels exist.
    #[target_feature(enable = "avx512f")]
    unsafe fn sum_channels<const HALF: bool, const V: usize>(&self, from: *const u8, pixels: usize, first: usize, to: *mut f64) {
        let size = if HALF { 2 } else { 4 };
        let (mut sums, mut squares) = ([[_mm512_setzero_pd(); 2]; V], [[_mm512_setzero_pd(); 2]; V]);
        for pixel in 0..pixels {
            for v in 0..V {
                // SAFETY: by the contract.
                let x = unsafe { read::<HALF>(from.add((pixel * self.channels + first + v * LANES) * size)) };
                let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
                for (half, x) in [_mm512_castps512_ps256(x), upper].into_iter().enumerate() {
                    let x = _mm512_cvtps_pd(x);
                    sums[v][half] = _mm512_add_pd(sums[v][half], x);
                    squares[v][half] = _mm512_fmadd_pd(x, x, squares[v][half]);
                }
            }
        }
        for v in 0..V {
            for half in 0..2 {
                // SAFETY: by the contract; eight numbers each.
                unsafe {
                    let to = to.add(first + v * LANES + half * LANES / 2);
                    _mm512_storeu_pd(to, sums[v][half]);
                    _mm512_storeu_pd(to.add(self.channels), squares[v][half]);
                }
            }
        }
    }

    /// From the sums of a picture's pieces what [`apply`](Self::apply) does to the channels of `group`.
    fn settle(&self, group: usize, sums: &[f64], affine: &mut [f32]) {
        let (channels, size) = (self.channels, self.channels / self.groups);
        let of_group = group * size..(group + 1) * size;
        let (mut sum, mut square) = (0., 0.);
        for piece in sums.chunks_exact(2 * channels) {
            let (sums, squares) = piece.split_at(channels);
            sum += sums[of_group.clone()].iter().sum::<f64>();
            square += squares[of_group.clone()].iter().sum::<f64>();
        }
        let count = (self.pixels * size) as f64;
        let mean = sum / count;
        let variance = square / count - mean * mean;
        // Not `max`, which takes NaN away.
        let variance = if variance < 0. { 0. } else { variance };
        let factor = 1. / (variance + self.eps).sqrt();
        let middle = mean as f32;
        for channel in of_group {
            // SAFETY: `C` numbers of each.
            let (weight, bias) = unsafe { (*self.weight.get().add(channel), *self.bias.get().add(channel)) };
            let factor = factor * f64::from(weight);
            affine[channel] = middle;
            affine[channels + channel] = factor as f32;
            affine[2 * channels + channel] = (f64::from(bias) - (mean - f64::from(middle)) * factor) as f32;
        }
    }

    /// (x − what is taken off) · factor + what is added, and SiLU of it.
    ///
    /// # Safety
    /// The processor is [`available`]; `from` and `to` point to `pixels` pixels; `affine` are `[3][C]` numbers.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn apply<const HALF: bool, const SILU: bool>(&self, from: *const u8, pixels: usize, affine: &[f32], to: *mut u8) {
        let size = if HALF { 2 } else { 4 };
        for pixel in 0..pixels {
            for channel in (0..self.channels).step_by(LANES) {
                let at = (pixel * self.channels + channel) * size;
                // SAFETY: 16 channels from `channel` on exist everywhere.
                unsafe {
                    let affine = affine.as_ptr().add(channel);
                    let [middle, factor, shift] = [0, 1, 2].map(|row| _mm512_loadu_ps(affine.add(row * self.channels)));
                    let y = _mm512_fmadd_ps(_mm512_sub_ps(read::<HALF>(from.add(at)), middle), factor, shift);
                    write::<HALF>(to.add(at), if SILU { silu(y) } else { y });
                }
            }
        }
    }
}

/// x / (1 + e^−x).
#[inline]
#[target_feature(enable = "avx512f")]
fn silu(x: __m512) -> __m512 {
    // From 2^126 on the quotient is nothing anyway. The second of two operands is kept when one is NaN.
    let power = _mm512_min_ps(_mm512_set1_ps(126.), _mm512_mul_ps(x, _mm512_set1_ps(-std::f32::consts::LOG2_E)));
    _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.), exp2::<7>(power)))
}
