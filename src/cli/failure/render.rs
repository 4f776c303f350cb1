//! Failures as text: message, facts, causes one line each, remedy, and the exit code at the right.

use crate::cli::failure::Failure;
use crate::cli::shell::style::{Style, padded, width};
use crate::report::text::plain;

/// Returns the lines of a failure, each with a newline.
#[must_use]
pub fn failure(failure: &Failure, style: Style) -> String {
    let mut lines = vec![format!("{} {}", style.bad("error:"), one_line(&failure.what))];
    let facts = failure.facts.iter().map(|(label, value)| (one_line(label), one_line(value)));
    let facts: Vec<(String, String)> = facts.collect();
    let widest = facts.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
    for (label, value) in &facts {
        lines.push(format!("  {}   {value}", padded(label, widest)).trim_end().to_owned());
    }
    for cause in failure.causes() {
        lines.push(format!("  because {}", one_line(&cause)));
    }
    if let Some(remedy) = &failure.remedy {
        lines.push(format!("  → {}", one_line(remedy)));
    }
    let end = format!("exit {}", failure.exit.code());
    let last = lines.pop().unwrap_or_default();
    // The first line may hold colour escapes, whose characters must not count as columns.
    let painted = lines.is_empty() && style.colour;
    lines.push(if painted { format!("{last}  {end}") } else { style.at_the_right(&last, &end) });
    lines.join("\n") + "\n"
}

/// Joins foreign text to one line that cannot steer the terminal.
fn one_line(text: &str) -> String {
    let joined =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    plain(&joined).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_failure_has_its_own_lines() {
        let shown = Failure::usage("this identity cannot open snapshot 000042")
            .fact("it is encrypted to", "2 owners: SHA256:4b1c…")
            .fact("colleague.key is", "age1mm…03")
            .because(std::io::Error::other("no wrap\nfits\u{1b}[2J"))
            .remedy("an owner can add it: kbak keys add");
        let style = Style { colour: false, width: 60 };
        assert_eq!(
            failure(&shown, style),
            "error: this identity cannot open snapshot 000042\n\
             \u{20} it is encrypted to   2 owners: SHA256:4b1c…\n\
             \u{20} colleague.key is     age1mm…03\n\
             \u{20} because no wrap; fits\\u{1b}[2J\n\
             \u{20} → an owner can add it: kbak keys add                exit 2\n"
        );
    }
}
