//! The change of one layer: a product of two thin matrices, or of a thin convolution and a 1×1 one.

use tch::{Device, Kind, Tensor};

/// `scale · up · (mid ·) down`, the change of a weight.
#[derive(Debug)]
pub struct LowRank {
    /// `[rank, input]`; of a convolution `[rank, input, h, w]`, or `[rank, input, 1, 1]` where there is a middle.
    pub(super) down: Tensor,
    /// `[rank, rank, h, w]`: the kernel of a convolution in CP form (LyCORIS, `lora_mid`).
    pub(super) mid: Option<Tensor>,
    /// `[output, rank]`; of a convolution `[output, rank, 1, 1]`.
    pub(super) up: Tensor,
    /// alpha / rank.
    pub(super) scale: f64,
}

/// `parameter` in the dtype of `x`.
fn cast(parameter: &Tensor, x: &Tensor) -> Tensor {
    if parameter.kind() == x.kind() { parameter.shallow_clone() } else { parameter.to_kind(x.kind()) }
}

/// A matrix, or a 1×1 convolution as one.
fn matrix(x: &Tensor) -> Tensor {
    x.flatten(1, -1)
}

impl LowRank {
    /// alpha / rank.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The rank.
    pub fn rank(&self) -> i64 {
        self.down.size()[0]
    }

    /// The same numbers by another handle.
    pub(super) fn handle(&self) -> Self {
        let mid = self.mid.as_ref().map(Tensor::shallow_clone);
        Self { down: self.down.shallow_clone(), mid, up: self.up.shallow_clone(), scale: self.scale }
    }

    pub(super) fn to(&self, kind: Kind, device: Device) -> Self {
        let to = |x: &Tensor| x.to_device(device).to_kind(kind);
        Self { down: to(&self.down), mid: self.mid.as_ref().map(to), up: to(&self.up), scale: self.scale }
    }

    /// Of a linear layer or a 1×1 convolution: `[…, input]` → `[…, output]`, without the scale.
    pub(crate) fn tokens(&self, x: &Tensor) -> Tensor {
        let none = None::<Tensor>;
        x.linear(&matrix(&cast(&self.down, x)), none.as_ref()).linear(&matrix(&cast(&self.up, x)), none.as_ref())
    }

    /// Of a convolution: `[B, input, H, W]` → `[B, output, H', W']`, without the scale.
    pub(crate) fn filter(&self, x: &Tensor, stride: i64, padding: i64) -> Tensor {
        let conv = |x: &Tensor, weight: &Tensor, stride: i64, padding: i64| {
            x.conv2d(&cast(weight, x), None::<Tensor>, [stride; 2], [padding; 2], [1, 1], 1)
        };
        let h = match &self.mid {
            Some(mid) => conv(&conv(x, &self.down, 1, 0), mid, stride, padding),
            None => conv(x, &self.down, stride, padding),
        };
        conv(&h, &self.up, 1, 0)
    }

    /// What is added to the weight at strength 1: float32 `[output, input · h · w]`.
    pub fn delta(&self) -> Tensor {
        let float = |x: &Tensor| x.to_device(Device::Cpu).to_kind(Kind::Float);
        let (down, up) = (matrix(&float(&self.down)), matrix(&float(&self.up)));
        let product = match &self.mid {
            None => up.matmul(&down),
            Some(mid) => {
                // up[o, p] · mid[p, q, h·w] · down[q, i] → [o, i, h·w]
                let mid = float(mid).flatten(2, 3);
                let product = Tensor::einsum("op,pqk,qi->oik", &[up, mid, down], None::<i64>);
                product.flatten(1, 2)
            }
        };
        product * self.scale
    }
}
