//! Colour, where there is a terminal that wants it.

/// Whether to colour. Marks (✓ ! ✗ →) say the same without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether escapes may be written.
    pub colour: bool,
    /// Where lines end, in columns.
    pub width: usize,
}

impl Style {
    /// For a log: no colour, 100 columns.
    #[must_use]
    pub const fn plain() -> Self {
        Self { colour: false, width: 100 }
    }

    /// Something good.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something to look at.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Something bad.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something less important.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// `line`, with `end` at the right edge, or two spaces behind a line that is too long for it.
    /// `line` holds no escapes.
    #[must_use]
    pub fn at_the_right(self, line: &str, end: &str) -> String {
        let used = width(line) + width(end);
        let gap = self.width.saturating_sub(used).max(2);
        format!("{line}{}{end}", " ".repeat(gap))
    }
}

/// Columns of a text: characters, which is exact for all that kbak writes itself.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// `text` with spaces behind it, to `columns`.
#[must_use]
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}
