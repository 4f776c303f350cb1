//! Writes to standard output: tables for people, JSON and YAML for programs, raw bytes. A closed pipe ends
//! the program with exit code 0.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::report::text::plain;

/// The format of lists and reports on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Writes to standard output through a buffer, and flushes it.
pub(crate) fn write(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    check_write(write(&mut out).and_then(|()| out.flush()))
}

/// Handles the result of a write to standard output. If the reader has closed the pipe, as `| head` does,
/// the program ends at once with exit code 0.
pub(crate) fn check_write(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(Exit::Partial, "standard output accepted only a part").because(error)),
    }
}

/// Fails with `exit` if standard output was closed at the program's start, for verbs that produce only
/// data. The runtime replaces a closed one by `/dev/null`, opened for reading too.
pub(crate) fn require_open(exit: Exit) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let out = io::stdout();
    let both = rustix::fs::fcntl_getfl(&out).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR));
    let null = std::fs::metadata("/dev/null").map(|meta| meta.rdev());
    let is_null = rustix::fs::fstat(&out).is_ok_and(|stat| null.is_ok_and(|null| null == stat.st_rdev));
    if !both || !is_null {
        return Ok(());
    }
    Err(Failure::new(exit, "standard output is closed, and this verb writes to it")
        .remedy("redirect it to a file or a pipe; > /dev/null discards it"))
}

/// Writes text to standard output.
pub(crate) fn write_text(text: &str) -> Result<(), Failure> {
    write(|out| out.write_all(text.as_bytes()))
}

/// Writes a value as JSON or YAML.
pub(crate) fn write_value<T: Serialize>(value: &T, format: OutputFormat) -> Result<(), Failure> {
    let shown = match format {
        OutputFormat::Yaml => serde_saphyr::to_string(value).map_err(unserialisable)?,
        _ => serde_json::to_string_pretty(value).map_err(unserialisable)? + "\n",
    };
    write_text(&shown)
}

/// Renders one of many values: a line of JSON, or a YAML document after `---`.
pub(crate) fn render_line<T: Serialize>(value: &T, format: OutputFormat) -> Result<String, Failure> {
    match format {
        OutputFormat::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(unserialisable)?;
            Ok(format!("---\n{}", text.trim_end()))
        }
        _ => serde_json::to_string(value).map_err(unserialisable),
    }
}

fn unserialisable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Bug, "the report cannot be serialised").because(error.to_string())
}

/// Writes rows as a table, or `values` line by line.
pub(crate) fn write_lines<T: Serialize>(
    format: OutputFormat,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<String>>,
    values: &[T],
) -> Result<(), Failure> {
    if format == OutputFormat::Table {
        return write_text(&render_table(columns, rows));
    }
    let lines: Vec<String> =
        values.iter().map(|value| render_line(value, format)).collect::<Result<_, _>>()?;
    write_text(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// A column of a table, with its heading.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Text, aligned to the left.
    Left(&'static str),
    /// Numbers, aligned to the right.
    Right(&'static str),
}

/// Writes rows as a table, or `value` as JSON or YAML.
pub(crate) fn write_list<T: Serialize>(
    format: OutputFormat,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<String>>,
    whole: &T,
) -> Result<(), Failure> {
    if format == OutputFormat::Table {
        write_text(&render_table(columns, rows))
    } else {
        write_value(whole, format)
    }
}

/// Renders rows under headings, two spaces apart. Cells are never truncated.
fn render_table(columns: &[Column], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let name = |column: &Column| match *column {
        Column::Left(name) | Column::Right(name) => name,
    };
    table.set_header(columns.iter().map(name));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell).into_owned()));
    }
    for (number, column) in columns.iter().enumerate() {
        if let Some(cells) = table.column_mut(number) {
            cells.set_padding((0, 2));
            if matches!(column, Column::Right(_)) {
                cells.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}
