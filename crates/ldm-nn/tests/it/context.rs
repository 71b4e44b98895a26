//! Keys and values are computed once for a prompt, then cut and joined as batches come and go.

use ldm_nn::unet::Context;
use ldm_nn::{Layout, UNet2DCondition};
use tch::{Kind, Tensor};

use crate::goldens::{MODELS, close, tensor, unet};

fn forward(unet: &UNet2DCondition, model: &str, rows: &[i64], context: &Context) -> Tensor {
    let rows = Tensor::from_slice(rows);
    let (x, t) = (tensor(&format!("{model}.unet.0.x")), tensor(&format!("{model}.unet.0.t")));
    unet.forward(&x.index_select(0, &rows), &t.index_select(0, &rows), context)
}

#[test]
fn cut_and_joined_contexts_are_those_of_the_prompts() {
    for model in MODELS {
        let unet = unet(model, Kind::Float, Layout::ChannelsLast);
        let reference = tensor(&format!("{model}.unet.0.output"));
        let tokens = tensor(&format!("{model}.clip.output"));
        let whole = unet.context(&tokens);
        assert_eq!(whole.len(), 3);
        assert!(!whole.is_empty());

        let alone: Vec<_> = (0..3).map(|row| unet.context(&tokens.narrow(0, row, 1))).collect();
        let joined = Context::cat(&alone.iter().collect::<Vec<_>>());
        assert_eq!(joined.len(), 3);
        close("joined", &forward(&unet, model, &[0, 1, 2], &joined), &reference, 1e-5);

        let cut = whole.rows(1, 2);
        assert_eq!(cut.len(), 2);
        close("cut", &forward(&unet, model, &[1, 2], &cut), &reference.narrow(0, 1, 2), 1e-5);

        // In another order, from both: a row that leaves and one that joins.
        let swapped = Context::cat(&[&whole.rows(2, 1), &alone[0]]);
        let picked = reference.index_select(0, &Tensor::from_slice(&[2i64, 0]));
        close("swapped", &forward(&unet, model, &[2, 0], &swapped), &picked, 1e-5);
    }
}

#[test]
fn prompts_matter() {
    let unet = unet("tiny-sd", Kind::Float, Layout::ChannelsLast);
    let context = unet.context(&tensor("tiny-sd.clip.output"));
    let other = Context::cat(&[&context.rows(1, 1), &context.rows(0, 1), &context.rows(2, 1)]);
    let output = forward(&unet, "tiny-sd", &[0, 1, 2], &other);
    let reference = tensor("tiny-sd.unet.0.output");
    assert!(crate::goldens::error(&output, &reference) > 1e-3);
    close("the row that kept its prompt", &output.narrow(0, 2, 1), &reference.narrow(0, 2, 1), 1e-5);
}
