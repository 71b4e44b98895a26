//! Which origins may be called, and a URL as far as that is asked.

use std::net::IpAddr;

use axum::http::Uri;

use super::address::is_public;

/// An entry that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; write it like https://example.org, https://*.example.org:8443 or http://10.0.0.7:9000")]
pub struct InvalidOrigin(String);

/// A host as a URL has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    /// In lowercase, without a dot at its end.
    Name(String),
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Some(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        (!name.is_empty() && name.len() <= 253 && name.chars().all(plain)).then_some(Self::Name(name))
    }
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// What `Host` says.
    pub(super) authority: String,
    pub(super) path: String,
}

impl Target {
    /// Reads an `http` or `https` URL without a user in it.
    pub(super) fn read(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        // What is left of it has no user: that would stand before the host.
        let port = match authority.strip_prefix(uri.host()?)? {
            "" if tls => 443,
            "" => 80,
            port => port.strip_prefix(':')?.parse().ok().filter(|port| *port > 0)?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { tls, host: Host::read(uri.host()?)?, port, authority: authority.to_owned(), path })
    }

    /// Its address, if it names one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        }
    }
}

#[derive(Debug)]
enum Pattern {
    Any,
    /// Names that end so, with the dot before them.
    Below(String),
    One(Host),
}

#[derive(Debug)]
struct Entry {
    tls: bool,
    pattern: Pattern,
    port: u16,
}

/// The origins that may be called.
#[derive(Debug)]
pub(super) struct Allowed {
    entries: Vec<Entry>,
    private: bool,
}

/// To which addresses a URL may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    private: bool,
}

impl Admitted {
    pub(super) fn takes(self, address: IpAddr) -> bool {
        self.private || is_public(address)
    }
}

impl Allowed {
    pub(super) fn read(origins: &[String], private: bool) -> Result<Self, InvalidOrigin> {
        let entries = origins.iter().map(|origin| Entry::read(origin).ok_or_else(|| InvalidOrigin(origin.clone())));
        Ok(Self { entries: entries.collect::<Result<_, _>>()?, private })
    }

    /// Whether some origin is encrypted.
    pub(super) fn has_tls(&self) -> bool {
        self.entries.iter().any(|entry| entry.tls)
    }

    /// Whether the URL may be called, and where it may lead.
    pub(super) fn admits(&self, target: &Target) -> Option<Admitted> {
        let listed = |entry: &&Entry| entry.tls == target.tls && entry.port == target.port && entry.pattern.matches(&target.host);
        let mut listed = self.entries.iter().filter(listed).peekable();
        listed.peek()?;
        // An address that is listed as such is meant.
        let meant = listed.any(|entry| matches!(entry.pattern, Pattern::One(Host::Address(_))));
        Some(Admitted { private: self.private || meant })
    }
}

impl Entry {
    fn read(origin: &str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://").unwrap_or(("https", origin));
        let starred = rest.strip_prefix('*');
        // A star is no letter of a URL's host.
        let url = match starred {
            Some(rest) if rest.is_empty() || rest.starts_with([':', '.']) => format!("{scheme}://any{rest}"),
            Some(_) => return None,
            None => format!("{scheme}://{rest}"),
        };
        let target =
            Target::read(&url).filter(|target| target.path == "/" && !origin.ends_with('/') && !origin.contains(['?', '#']))?;
        let pattern = match (starred, target.host) {
            (None, host) => Pattern::One(host),
            (Some(_), Host::Name(name)) if name == "any" => Pattern::Any,
            (Some(_), Host::Name(name)) => Pattern::Below(name.strip_prefix("any")?.to_owned()),
            (Some(_), Host::Address(_)) => return None,
        };
        Some(Self { tls: target.tls, pattern, port: target.port })
    }
}

impl Pattern {
    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, Host::Name(_)) => true,
            // An address has no names below it, and is not just anybody.
            (Self::Any | Self::Below(_), Host::Address(_)) => false,
            (Self::Below(end), Host::Name(name)) => name.len() > end.len() && name.ends_with(end.as_str()),
            (Self::One(one), host) => one == host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &[&str], private: bool) -> Allowed {
        Allowed::read(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>(), private).unwrap()
    }

    #[test]
    fn what_is_listed_may_be_called_and_nothing_else() {
        let some =
            allowed(&["https://a.example", "*.b.example:8443", "http://10.0.0.7:9000", "http://[::1]", "c.example"], false);
        let admits = |url: &str| Target::read(url).and_then(|target| some.admits(&target)).map(|admitted| admitted.private);
        for url in [
            "https://a.example/x?y=1",
            "https://A.EXAMPLE.:443",
            "https://x.b.example:8443/",
            "https://x.y.b.example:8443/",
            "https://c.example/",
        ] {
            assert_eq!(admits(url), Some(false), "{url}");
        }
        for url in ["http://10.0.0.7:9000/hook", "http://[::1]/", "http://[0:0:0:0:0:0:0:1]:80/"] {
            assert_eq!(admits(url), Some(true), "{url}");
        }
        for url in [
            "http://a.example/",
            "https://a.example:444/",
            "https://xa.example/",
            "https://a.example.evil/",
            "https://b.example:8443/",
            "https://xb.example:8443/",
            "https://x.b.example/",
            "https://10.0.0.7:9000/",
            "http://10.0.0.8:9000/",
            "https://user@a.example/",
            "https://a.example@evil/",
            "ftp://a.example/",
            "a.example",
            "https://",
            "https://a.example:0/",
            "https://a.example:/",
            "https://a.example:99999/",
            "//a.example/",
            "https://a.example\\@evil/",
            "https://a%2eexample/",
            "",
        ] {
            assert_eq!(admits(url), None, "{url}");
        }
        let all = allowed(&["https://*", "http://*"], true);
        assert!(all.admits(&Target::read("http://anybody/").unwrap()).unwrap().private);
        assert_eq!(all.admits(&Target::read("http://127.0.0.1/").unwrap()), None, "an address is listed as such");
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "",
            "*",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a?x",
            "https://u@a",
            "ftp://a",
            "https://*a",
            "a.*.b",
            "https://a:x",
            "https://*.10.0.0.1:99999",
            "https://a b",
        ] {
            let read = Allowed::read(&[bad.to_owned()], false);
            if bad == "*" {
                assert!(read.is_ok(), "every name, encrypted");
            } else {
                assert_eq!(read.err(), Some(InvalidOrigin(bad.to_owned())));
            }
        }
    }
}
