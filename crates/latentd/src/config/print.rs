//! A configuration as its file: what `serve --print-config` prints, and what `config/latentd.toml` is for the defaults.

use std::fmt::Write;

use super::Config;
use super::models::KEYS;
use super::settings::{SECTIONS, all};

const HEAD: &str = "\
# The settings of `latentd serve`, here with their defaults; `latentd serve --print-config` prints those in force.
#
# A flag beats an environment variable, that beats this file (--config or LATENTD_CONFIG), and that the default.
# The variable of a setting is LATENTD_<SECTION>_<KEY>, for example LATENTD_SERVER_LISTEN; lists stand between commas, and
# an empty variable counts as none. LATENTD_MODELS takes id=dir,id2=dir2; RUST_LOG sets log.filter.
# Unknown keys and variables are errors.
";

/// The file that sets `config`.
pub(crate) fn print(config: &Config) -> String {
    // Writing to a string does not fail.
    let mut out = HEAD.to_owned();
    for (section, about) in SECTIONS {
        let _ = write!(out, "\n# {about}\n[{section}]\n");
        for setting in all().filter(|setting| setting.parts().0 == section) {
            let _ = writeln!(out, "# {}\n{} = {}", setting.comment, setting.parts().1, (setting.get)(config));
        }
    }
    out += "\n# The models, one table each; the first is the default.\n";
    for (at, model) in config.models.iter().enumerate() {
        out += if at == 0 { "[[models]]\n" } else { "\n[[models]]\n" };
        for key in &KEYS {
            if at == 0 {
                let _ = writeln!(out, "# {}", key.comment);
            }
            let _ = writeln!(out, "{} = {}", key.name, (key.get)(model));
        }
    }
    out
}
