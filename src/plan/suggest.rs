//! "Did you mean …?": the known name that is most similar to a mistyped one.

/// Returns the most similar of `names`, if it is similar enough to have been meant.
#[must_use]
pub fn suggest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    names.map(|other| (near(other), other)).filter(|(score, _)| *score > 0.8).max_by(by_score).map(|(_, o)| o)
}

fn by_score(a: &(f64, &str), b: &(f64, &str)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0)
}
