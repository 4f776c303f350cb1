//! Colour and alignment of text on a terminal.

/// Colour and width. Marks (✓ ! ✗ →) say the same without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// `true` if colour escapes may be written.
    pub colour: bool,
    /// The width of a line, in columns.
    pub width: usize,
}

impl Style {
    /// Returns the style for a log: no colour, 100 columns.
    #[must_use]
    pub const fn plain() -> Self {
        Self { colour: false, width: 100 }
    }

    /// Colours text as a success.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Colours text as a warning.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Colours text as an error.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Colours text as a less important detail.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Appends `end` at the right edge, or after two spaces if `line`, which has no escapes, is too long.
    #[must_use]
    pub fn at_the_right(self, line: &str, end: &str) -> String {
        let used = width(line) + width(end);
        let gap = self.width.saturating_sub(used).max(2);
        format!("{line}{}{end}", " ".repeat(gap))
    }
}

/// Returns the columns of a text: its characters, which is exact for all that kbak writes itself.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// Pads `text` with spaces to `columns`.
#[must_use]
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}
