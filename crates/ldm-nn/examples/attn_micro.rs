//! scratch
use ldm_nn::attention::*;
use tch::{Device, Kind, Tensor};
fn main() {
    tch::set_num_threads(std::env::args().nth(1).unwrap().parse().unwrap());
    let _g = tch::no_grad_guard();
    tch::manual_seed(1);
    for (b, l, keys, h, d) in [(1, 4096, 4096, 2, 40), (1, 1024, 1024, 8, 80), (2, 256, 256, 8, 160), (1, 4096, 77, 8, 40), (2, 64, 64, 8, 160), (1, 4096, 4096, 1, 512), (3, 37, 19, 2, 6)] {
        let r = |l: i64| Tensor::randn([b, l, h * d], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let (q, k, v) = (r(l), r(keys), r(keys));
        let split = |x: &Tensor, l: i64| x.view([b, l, h, d]).transpose(1, 2).to_kind(Kind::Float);
        let exact = fused_attention(&split(&q, l), &split(&k, keys), &split(&v, keys), false).transpose(1, 2).reshape([b, l, h * d]);
        let lib = { let s = |x: &Tensor, l: i64| x.view([b, l, h, d]).transpose(1, 2); fused_attention(&s(&q, l), &s(&k, keys), &s(&v, keys), false).transpose(1, 2).reshape([b, l, h * d]) };
        let out = flash_attention(&q, &k, &v, h);
        let rel = |x: &Tensor| ((x.to_kind(Kind::Float) - &exact).norm() / exact.norm()).double_value(&[]);
        let mut ts = vec![];
        for _ in 0..7 {
            let s = std::time::Instant::now();
            let _ = flash_attention(&q, &k, &v, h);
            ts.push(s.elapsed().as_secs_f64());
        }
        ts.sort_by(f64::total_cmp);
        println!("{b} {l} {keys} {h} {d}: {:.4}s min {:.4} {:.0} GF/s  err {:.2e} lib {:.2e}", ts[3], ts[0], 4. * (b * l * keys * h * d) as f64 / ts[0] / 1e9, rel(&out), rel(&lib));
    }
}
