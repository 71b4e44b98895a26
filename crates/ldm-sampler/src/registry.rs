//! The registry of samplers: one entry each, with every name it goes by and what it can do.

use crate::samplers::{
    ddim, ddim_inverse, ddpm, deis, dpm2, dpm2_a, dpmpp_2m, dpmpp_2m_sde, dpmpp_2s_a, dpmpp_3m_sde, dpmpp_sde, euler, euler_a,
    heun, ipndm, lcm, lms, plms, tcd, unipc,
};
use crate::spec::Problem;
use crate::{Plan, PlanError, SigmaSchedule, Spacing};

/// A sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020).
    Ddpm,
    /// Denoising diffusion implicit models (Song et al. 2021).
    Ddim,
    /// Pseudo linear multistep (Liu et al. 2022).
    Plms,
    /// Euler's method in sigma (Karras et al. 2022).
    Euler,
    /// Euler with ancestral noise (k-diffusion).
    EulerA,
    /// Heun's method in sigma (Karras et al. 2022).
    Heun,
    /// Linear multistep in sigma (k-diffusion).
    Lms,
    /// DPM-Solver++ multistep of order 2 (Lu et al. 2022b).
    Dpmpp2m,
    /// SDE-DPM-Solver++ multistep of order 2 (Lu et al. 2022b).
    Dpmpp2mSde,
    /// Unified predictor-corrector of order 2 (Zhao et al. 2023).
    Unipc,
    /// Latent consistency sampling (Luo et al. 2023).
    Lcm,
    /// DPM-Solver-2 with a midpoint in ln sigma (k-diffusion; Lu et al. 2022a).
    Dpm2,
    /// DPM2 with ancestral noise (k-diffusion).
    Dpm2A,
    /// DPM-Solver++ single-step of order 2 with ancestral noise (k-diffusion; Lu et al. 2022b).
    Dpmpp2sA,
    /// SDE-DPM-Solver++ with two evaluations per step (k-diffusion; Lu et al. 2022b).
    DpmppSde,
    /// SDE-DPM-Solver++ multistep of order 3 (k-diffusion).
    Dpmpp3mSde,
    /// Diffusion exponential integrator, multistep in ln rho (Zhang & Chen 2023).
    Deis,
    /// Improved pseudo linear multistep (Zhang & Chen 2023).
    Ipndm,
    /// Trajectory consistency sampling (Zheng et al. 2024).
    Tcd,
    /// DDIM run backwards, from a clean latent to its noise (Song et al. 2021).
    DdimInverse,
}

impl Sampler {
    /// The entry of this sampler.
    pub fn entry(self) -> &'static Entry {
        // The table is in the order of the enum; a test sees to it.
        &ENTRIES[self as usize]
    }

    /// The canonical name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }
}

/// Another name of a sampler, which may imply a sigma schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The name, as the tool that uses it spells it.
    pub name: &'static str,
    /// The schedule that the name implies.
    pub schedule: Option<SigmaSchedule>,
}

/// What the diffusers class of a sampler makes of `rescale_betas_zero_snr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZeroSnr {
    /// It does not know the setting.
    Ignored,
    /// The last timestep has no signal.
    Exact,
    /// The last timestep has a trace of signal, so that sigma stays finite.
    Clamped,
}

/// What there is to know about a sampler.
#[derive(Debug)]
pub struct Entry {
    /// The sampler.
    pub sampler: Sampler,
    /// The canonical name: lower case, underscores.
    pub name: &'static str,
    /// The name for people.
    pub label: &'static str,
    /// Its other names: A1111's and diffusers'.
    pub aliases: &'static [Alias],
    /// The nominal order of convergence (1 for the stochastic ones).
    pub order: usize,
    /// Whether it draws noise (DDIM and TCD do so only when eta is positive).
    pub noise: bool,
    /// Whether it takes eta.
    pub eta: bool,
    /// The sigma schedules it can follow.
    pub schedules: &'static [SigmaSchedule],
    /// The spacing when the model's config names none: the default of the diffusers class.
    pub spacing: Spacing,
    /// The spacings it can follow.
    pub spacings: &'static [Spacing],
    /// Whether its noise can be the increments of a Brownian path.
    pub brownian: bool,
    pub(crate) zero_snr: ZeroSnr,
    pub(crate) plan: fn(&Problem<'_>) -> Result<Plan, PlanError>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub struct Resolved {
    /// The sampler's entry.
    pub entry: &'static Entry,
    /// The sigma schedule that the name implies.
    pub schedule: Option<SigmaSchedule>,
}

/// All samplers.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The sampler that a name stands for, whatever its case, spaces, underscores and dashes ("DPM++" equals "dpmpp").
pub fn resolve(name: &str) -> Option<Resolved> {
    // No name is long; what is, is not looked at.
    if name.len() > 128 {
        return None;
    }
    let wanted = key(name);
    ENTRIES.iter().find_map(|entry| {
        let alias = entry.aliases.iter().find(|alias| key(alias.name) == wanted);
        let own = key(entry.name) == wanted || key(entry.label) == wanted;
        let schedule = alias.and_then(|alias| alias.schedule);
        (own || alias.is_some()).then_some(Resolved { entry, schedule })
    })
}

fn key(name: &str) -> String {
    let kept = name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-'));
    kept.map(|c| if c == '+' { 'p' } else { c.to_ascii_lowercase() }).collect()
}

const fn plain(name: &'static str) -> Alias {
    Alias { name, schedule: None }
}

const fn with_karras(name: &'static str) -> Alias {
    Alias { name, schedule: Some(SigmaSchedule::Karras) }
}

const fn with_exponential(name: &'static str) -> Alias {
    Alias { name, schedule: Some(SigmaSchedule::Exponential) }
}

const SPACED: &[SigmaSchedule] = &[SigmaSchedule::Default];
const ANY: &[SigmaSchedule] = &[SigmaSchedule::Default, SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta];

/// The spacings of diffusers.
const DIFFUSERS: &[Spacing] = &[Spacing::Leading, Spacing::Trailing, Spacing::Linspace];
/// Those and CompVis' own, for the samplers that CompVis has.
const WITH_COMPVIS: &[Spacing] = &[Spacing::Leading, Spacing::Trailing, Spacing::Linspace, Spacing::Compvis];
/// Those and k-diffusion's own, for samplers in sigma space.
const WITH_K_DIFFUSION: &[Spacing] = &[Spacing::Leading, Spacing::Trailing, Spacing::Linspace, Spacing::KDiffusion];
/// Those of diffusers' DDIMInverseScheduler.
const INVERSE: &[Spacing] = &[Spacing::Leading, Spacing::Trailing];
/// Distilled samplers have their own timesteps, and any spacing is the same to them.
const INDIFFERENT: &[Spacing] = DIFFUSERS;

static ENTRIES: [Entry; 20] = [
    Entry {
        sampler: Sampler::Ddpm,
        name: "ddpm",
        label: "DDPM",
        aliases: &[plain("DDPMScheduler"), plain("ancestral")],
        order: 1,
        noise: true,
        eta: false,
        schedules: SPACED,
        spacing: Spacing::Leading,
        spacings: DIFFUSERS,
        brownian: false,
        zero_snr: ZeroSnr::Exact,
        plan: ddpm::plan,
    },
    Entry {
        sampler: Sampler::Ddim,
        name: "ddim",
        label: "DDIM",
        aliases: &[plain("DDIMScheduler"), plain("k_ddim")],
        order: 1,
        noise: false,
        eta: true,
        schedules: SPACED,
        spacing: Spacing::Leading,
        spacings: WITH_COMPVIS,
        brownian: false,
        zero_snr: ZeroSnr::Exact,
        plan: ddim::plan,
    },
    Entry {
        sampler: Sampler::Plms,
        name: "plms",
        label: "PLMS",
        aliases: &[plain("PNDM"), plain("PNDMScheduler"), plain("k_plms")],
        order: 2,
        noise: false,
        eta: false,
        schedules: SPACED,
        spacing: Spacing::Leading,
        spacings: WITH_COMPVIS,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: plms::plan,
    },
    Entry {
        sampler: Sampler::Euler,
        name: "euler",
        label: "Euler",
        aliases: &[
            plain("EulerDiscreteScheduler"),
            plain("k_euler"),
            with_karras("Euler Karras"),
            with_exponential("Euler Exponential"),
        ],
        order: 1,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Clamped,
        plan: euler::plan,
    },
    Entry {
        sampler: Sampler::EulerA,
        name: "euler_a",
        label: "Euler a",
        aliases: &[
            plain("EulerAncestralDiscreteScheduler"),
            plain("Euler ancestral"),
            plain("k_euler_a"),
            plain("k_euler_ancestral"),
        ],
        order: 1,
        noise: true,
        eta: false,
        schedules: SPACED,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Clamped,
        plan: euler_a::plan,
    },
    Entry {
        sampler: Sampler::Heun,
        name: "heun",
        label: "Heun",
        aliases: &[
            plain("HeunDiscreteScheduler"),
            plain("k_heun"),
            with_karras("Heun Karras"),
            with_exponential("Heun Exponential"),
        ],
        order: 2,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: heun::plan,
    },
    Entry {
        sampler: Sampler::Lms,
        name: "lms",
        label: "LMS",
        aliases: &[
            plain("LMSDiscreteScheduler"),
            plain("k_lms"),
            with_karras("LMS Karras"),
            with_karras("k_lms_ka"),
            with_exponential("LMS Exponential"),
        ],
        order: 4,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: lms::plan,
    },
    Entry {
        sampler: Sampler::Dpmpp2m,
        name: "dpmpp_2m",
        label: "DPM++ 2M",
        aliases: &[
            plain("DPMSolverMultistepScheduler"),
            plain("DPMSolverMultistep"),
            plain("dpmsolver++"),
            plain("k_dpmpp_2m"),
            with_karras("DPM++ 2M Karras"),
            with_karras("k_dpmpp_2m_ka"),
            with_exponential("DPM++ 2M Exponential"),
        ],
        order: 2,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Clamped,
        plan: dpmpp_2m::plan,
    },
    Entry {
        sampler: Sampler::Dpmpp2mSde,
        name: "dpmpp_2m_sde",
        label: "DPM++ 2M SDE",
        aliases: &[
            plain("sde-dpmsolver++"),
            plain("k_dpmpp_2m_sde"),
            with_karras("DPM++ 2M SDE Karras"),
            with_karras("k_dpmpp_2m_sde_ka"),
            with_exponential("DPM++ 2M SDE Exponential"),
            with_exponential("k_dpmpp_2m_sde_exp"),
        ],
        order: 1,
        noise: true,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: true,
        zero_snr: ZeroSnr::Clamped,
        plan: dpmpp_2m_sde::plan,
    },
    Entry {
        sampler: Sampler::Unipc,
        name: "unipc",
        label: "UniPC",
        aliases: &[
            plain("UniPCMultistepScheduler"),
            plain("UniPCMultistep"),
            with_karras("UniPC Karras"),
            with_exponential("UniPC Exponential"),
        ],
        order: 2,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Clamped,
        plan: unipc::plan,
    },
    Entry {
        sampler: Sampler::Lcm,
        name: "lcm",
        label: "LCM",
        aliases: &[plain("LCMScheduler"), plain("k_lcm")],
        order: 1,
        noise: true,
        eta: false,
        schedules: SPACED,
        spacing: Spacing::Leading,
        spacings: INDIFFERENT,
        brownian: false,
        zero_snr: ZeroSnr::Exact,
        plan: lcm::plan,
    },
    Entry {
        sampler: Sampler::Dpm2,
        name: "dpm2",
        label: "DPM2",
        aliases: &[
            plain("KDPM2DiscreteScheduler"),
            plain("k_dpm_2"),
            with_karras("DPM2 Karras"),
            with_karras("k_dpm_2_ka"),
            with_exponential("DPM2 Exponential"),
        ],
        order: 2,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: dpm2::plan,
    },
    Entry {
        sampler: Sampler::Dpm2A,
        name: "dpm2_a",
        label: "DPM2 a",
        aliases: &[
            plain("KDPM2AncestralDiscreteScheduler"),
            plain("DPM2 ancestral"),
            plain("k_dpm_2_a"),
            plain("k_dpm_2_ancestral"),
            with_karras("DPM2 a Karras"),
            with_karras("k_dpm_2_a_ka"),
            with_exponential("DPM2 a Exponential"),
        ],
        order: 1,
        noise: true,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: dpm2_a::plan,
    },
    Entry {
        sampler: Sampler::Dpmpp2sA,
        name: "dpmpp_2s_a",
        label: "DPM++ 2S a",
        aliases: &[
            plain("DPM++ 2S ancestral"),
            plain("k_dpmpp_2s_a"),
            plain("k_dpmpp_2s_ancestral"),
            with_karras("DPM++ 2S a Karras"),
            with_karras("k_dpmpp_2s_a_ka"),
            with_exponential("DPM++ 2S a Exponential"),
        ],
        order: 1,
        noise: true,
        eta: false,
        schedules: ANY,
        spacing: Spacing::KDiffusion,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Clamped,
        plan: dpmpp_2s_a::plan,
    },
    Entry {
        sampler: Sampler::DpmppSde,
        name: "dpmpp_sde",
        label: "DPM++ SDE",
        aliases: &[
            plain("DPMSolverSDEScheduler"),
            plain("k_dpmpp_sde"),
            with_karras("DPM++ SDE Karras"),
            with_karras("k_dpmpp_sde_ka"),
            with_exponential("DPM++ SDE Exponential"),
        ],
        order: 1,
        noise: true,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: true,
        zero_snr: ZeroSnr::Ignored,
        plan: dpmpp_sde::plan,
    },
    Entry {
        sampler: Sampler::Dpmpp3mSde,
        name: "dpmpp_3m_sde",
        label: "DPM++ 3M SDE",
        aliases: &[
            plain("k_dpmpp_3m_sde"),
            with_karras("DPM++ 3M SDE Karras"),
            with_karras("k_dpmpp_3m_sde_ka"),
            with_exponential("DPM++ 3M SDE Exponential"),
            with_exponential("k_dpmpp_3m_sde_exp"),
        ],
        order: 1,
        noise: true,
        eta: false,
        schedules: ANY,
        spacing: Spacing::KDiffusion,
        spacings: WITH_K_DIFFUSION,
        brownian: true,
        zero_snr: ZeroSnr::Clamped,
        plan: dpmpp_3m_sde::plan,
    },
    Entry {
        sampler: Sampler::Deis,
        name: "deis",
        label: "DEIS",
        aliases: &[
            plain("DEISMultistepScheduler"),
            plain("DEISMultistep"),
            with_karras("DEIS Karras"),
            with_exponential("DEIS Exponential"),
        ],
        order: 2,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: deis::plan,
    },
    Entry {
        sampler: Sampler::Ipndm,
        name: "ipndm",
        label: "iPNDM",
        aliases: &[plain("IPNDMScheduler"), with_karras("iPNDM Karras"), with_exponential("iPNDM Exponential")],
        order: 4,
        noise: false,
        eta: false,
        schedules: ANY,
        spacing: Spacing::Linspace,
        spacings: WITH_K_DIFFUSION,
        brownian: false,
        zero_snr: ZeroSnr::Ignored,
        plan: ipndm::plan,
    },
    Entry {
        sampler: Sampler::Tcd,
        name: "tcd",
        label: "TCD",
        aliases: &[plain("TCDScheduler"), plain("k_tcd")],
        order: 1,
        noise: false,
        eta: true,
        schedules: SPACED,
        spacing: Spacing::Leading,
        spacings: INDIFFERENT,
        brownian: false,
        zero_snr: ZeroSnr::Exact,
        plan: tcd::plan,
    },
    Entry {
        sampler: Sampler::DdimInverse,
        name: "ddim_inverse",
        label: "DDIM inversion",
        aliases: &[plain("DDIMInverseScheduler")],
        order: 1,
        noise: false,
        eta: false,
        schedules: SPACED,
        spacing: Spacing::Leading,
        spacings: INVERSE,
        brownian: false,
        zero_snr: ZeroSnr::Exact,
        plan: ddim_inverse::plan,
    },
];
