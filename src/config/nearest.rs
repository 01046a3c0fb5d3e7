//! The sentence for a key that does not exist: it names the one that was probably meant.

/// Names the nearest of the `known` keys, by its full name or by its last part.
pub fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &&str| {
        strsim::jaro_winkler(known, key).max(0.99 * strsim::jaro_winkler(&last(known), &last(key)))
    };
    let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|known| likeness(known) > 0.75) {
        Some(known) if known == key => format!("unknown key {key:?} in quotes; write {key} without them"),
        Some(known) => format!("unknown key {key:?}; did you mean {known:?}?"),
        None => format!("unknown key {key:?}; `gemmapod-signal settings` lists all that there are"),
    }
}
