//! Sampling while training: a plan run on one batch, all rows alike.

use ldm_nn::{Context, UNet2DCondition};
use ldm_sampler::{Operand, Plan};
use tch::{Kind, Tensor};

/// Runs `plan` from noise `[B, C, H, W]` under guidance; `context` has the rows [unconditional, conditional].
pub(crate) fn sample(
    unet: &UNet2DCondition,
    plan: &Plan,
    noise: &Tensor,
    context: &Context,
    guidance: f64,
    kind: Kind,
) -> Tensor {
    let rows = noise.size()[0];
    let mut registers: Vec<Tensor> = (0..plan.registers).map(|_| noise.zeros_like()).collect();
    registers[0] = noise * plan.init_scale;
    for step in &plan.steps {
        let eval = &step.eval;
        let x = &registers[eval.input];
        let input = (x * eval.c_in).to_kind(kind);
        let t = Tensor::full([rows * 2], eval.timestep, (Kind::Float, noise.device()));
        let out = unet.forward(&Tensor::cat(&[&input, &input], 0), &t, context).to_kind(Kind::Float).chunk(2, 0);
        let out = &out[0] + (&out[1] - &out[0]) * guidance;
        let estimate = x * eval.skip + out * eval.out;
        let fresh = step.noise.then(|| noise.randn_like());
        let combine = |terms: &[(Operand, f64)]| {
            terms.iter().fold(noise.zeros_like(), |sum, (operand, c)| match operand {
                Operand::Register(i) => sum + &registers[*i] * *c,
                Operand::Estimate => sum + &estimate * *c,
                Operand::Noise => fresh.as_ref().map_or(sum.shallow_clone(), |fresh| &sum + fresh * *c),
            })
        };
        let written: Vec<_> = step.update.iter().map(|assign| (assign.to, combine(&assign.terms))).collect();
        for (to, value) in written {
            registers[to] = value;
        }
    }
    &registers[0] * plan.final_scale
}
