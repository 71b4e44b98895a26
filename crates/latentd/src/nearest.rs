//! The known name that somebody probably meant.

/// Of `known`, the name most like `given`; a part after the last dot that is the same counts as the same.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |name: &str| strsim::jaro_winkler(given, name).max(strsim::jaro_winkler(&last(given), &last(name)));
    known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_and_wrong_sections_are_understood() {
        let known = ["server.listen", "server.body_limit_mb", "engine.queue", "log.filter"];
        assert_eq!(nearest("server.lisen", known), Some("server.listen"));
        assert_eq!(nearest("server.queue", known), Some("engine.queue"));
        assert_eq!(nearest("filter", known), Some("log.filter"));
        assert_eq!(nearest("anything", []), None);
    }
}
