//! Signatures as Standard Webhooks has them: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a secret, as the specification wants them.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A line that is no secret; it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// There is none.
    #[error("there is no secret in it; write whsec_ and 24 to 64 bytes in base64, or at least 24 bytes of text")]
    Missing,
    /// One is no secret.
    #[error("line {0} is no secret; write whsec_ and 24 to 64 bytes in base64, or 24 to 64 bytes of text")]
    Line(usize),
}

/// What signs, the newest first.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// Reads secrets, one a line; empty lines and those that begin with `#` are none.
    pub(super) fn read(text: &str) -> Result<Self, InvalidSecret> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let secret = |(at, line): (usize, &str)| {
            let secret = match line.strip_prefix("whsec_") {
                Some(encoded) => STANDARD.decode(encoded).map_err(|_| InvalidSecret::Line(at))?,
                None => line.as_bytes().to_vec(),
            };
            if BYTES.contains(&secret.len()) { Ok(secret) } else { Err(InvalidSecret::Line(at)) }
        };
        let secrets: Vec<_> = lines.map(secret).collect::<Result<_, _>>()?;
        if secrets.is_empty() { Err(InvalidSecret::Missing) } else { Ok(Self(secrets)) }
    }

    /// The header `webhook-signature`: one signature by each secret.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signature = |secret: &Vec<u8>| {
            // HMAC takes keys of every length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("a key of any length"));
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_reference_implementation() {
        // standard-webhooks/libraries, the test vector that all of them share.
        let secrets = Secrets::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    /// What a receiver does, as the specification and docs/operations.md say: nothing older than five minutes, and the signature again.
    fn is_genuine(secrets: &Secrets, [id, timestamp, signature]: [&str; 3], body: &[u8], now: u64) -> bool {
        let Ok(sent) = timestamp.parse::<u64>() else { return false };
        let signed = secrets.sign(id, sent, body);
        now.abs_diff(sent) <= 300 && signature.split(' ').any(|one| signed.split(' ').any(|other| one == other))
    }

    #[test]
    fn forged_and_replayed_calls_are_told_from_genuine_ones() {
        let own = Secrets::read("abcdefghijklmnopqrstuvwx\nanother-secret-of-30-letters-x").unwrap();
        let (body, sent) = (br#"{"state":"succeeded"}"#, 1_700_000_000);
        let signature = own.sign("msg_1", sent, body);
        let genuine = ["msg_1", "1700000000", signature.as_str()];
        assert!(is_genuine(&own, genuine, body, sent + 10));
        let newest = Secrets::read("abcdefghijklmnopqrstuvwx").unwrap();
        assert!(is_genuine(&newest, genuine, body, sent), "one of two secrets is known");
        // Replayed later, and replayed with a time of its own.
        assert!(!is_genuine(&own, genuine, body, sent + 301));
        assert!(!is_genuine(&own, ["msg_1", "1700000301", &signature], body, sent + 301));
        // Forged: another body, another message, another's secret, no signature.
        assert!(!is_genuine(&own, genuine, br#"{"state":"failed"}"#, sent));
        assert!(!is_genuine(&own, ["msg_2", "1700000000", &signature], body, sent));
        let strange = Secrets::read("a-secret-that-is-not-ours-at-all").unwrap().sign("msg_1", sent, body);
        assert!(!is_genuine(&own, ["msg_1", "1700000000", &strange], body, sent));
        assert!(!is_genuine(&own, ["msg_1", "1700000000", ""], body, sent));
    }

    #[test]
    fn each_line_signs_and_a_bad_one_is_named_not_repeated() {
        let both = Secrets::read("# newest\nabcdefghijklmnopqrstuvwx\n\n  whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = both.sign("a", 1, b"{}");
        assert_eq!(signed.split(' ').filter(|one| one.starts_with("v1,")).count(), 2);
        assert_eq!(format!("{both:?}"), "2 secrets");
        for (text, error) in [
            ("", InvalidSecret::Missing),
            ("# none", InvalidSecret::Missing),
            ("short", InvalidSecret::Line(1)),
            ("abcdefghijklmnopqrstuvwx\nwhsec_%", InvalidSecret::Line(2)),
            ("whsec_YQ==", InvalidSecret::Line(1)),
        ] {
            assert_eq!(Secrets::read(text).err(), Some(error), "{text:?}");
        }
    }
}
