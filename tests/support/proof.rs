//! How much is tried: a little on every run, much with `GANNET_PROOF=full`. Must not change what is checked.

/// `small`, or `full` when the environment asks for the full proof.
pub(crate) fn scaled(small: u64, full: u64) -> u64 {
    if std::env::var("GANNET_PROOF").is_ok_and(|wish| wish == "full") { full } else { small }
}
