//! The registry of samplers: one entry each, with every name it goes by and what it can do.

use crate::samplers::{ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, euler_a, heun, lcm, lms, plms, unipc};
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
    /// Whether it draws noise at every step (DDIM does so only when eta is positive).
    pub noise: bool,
    /// Whether it takes eta.
    pub eta: bool,
    /// The sigma schedules it can follow.
    pub schedules: &'static [SigmaSchedule],
    /// The spacing when the model's config names none: the default of the diffusers class.
    pub spacing: Spacing,
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
const ANY: &[SigmaSchedule] = &[SigmaSchedule::Default, SigmaSchedule::Karras, SigmaSchedule::Exponential];

static ENTRIES: [Entry; 11] = [
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
        zero_snr: ZeroSnr::Exact,
        plan: lcm::plan,
    },
];
