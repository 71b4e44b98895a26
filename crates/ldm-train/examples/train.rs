fn main() -> anyhow::Result<()> {
    ldm_train::denormals::flush();
    let args: Vec<String> = std::env::args().collect();
    let path = std::path::Path::new(&args[2]);
    match args[1].as_str() {
        "autoencoder" => ldm_train::autoencoder::train(&ldm_train::AutoencoderRun::read(path)?, tch::Device::Cpu),
        _ => ldm_train::diffusion::train(&ldm_train::DiffusionRun::read(path)?, tch::Device::Cpu),
    }
}
