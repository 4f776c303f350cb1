//! Padmé padding: a padded size reveals at most O(log log n) bits of the length (Nikitin et al., "Reducing
//! Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019, section 4).

/// Returns the padded length of `length` bytes: at most 12 % more, under 3.2 % from 64 KiB on.
#[must_use]
pub fn padded(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1u64 << exponent.saturating_sub(significant)) - 1;
    (length + mask) & !mask
}

/// Pads `bytes` with `filler` to its padded length.
pub(super) fn pad(bytes: &mut Vec<u8>, filler: u8) {
    bytes.resize(usize::try_from(padded(bytes.len() as u64)).unwrap_or(bytes.len()), filler);
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn padding_adds_at_most_12_percent() {
        for (length, want) in [(0, 0), (1, 1), (8, 8), (9, 10), (100, 104), (1000, 1024), (65_537, 67_584)] {
            assert_eq!(padded(length), want, "{length}");
        }
        for length in (2..1 << 20).step_by(997) {
            let got = padded(length);
            assert!(got >= length && got * 100 <= length * 112, "{length} became {got}");
            assert_eq!(padded(got), got, "a padded length stays");
        }
    }
}
