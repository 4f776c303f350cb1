//! Reads a plan: parses YAML (or JSON, which is YAML) into types, then checks everything that types cannot
//! express.

use serde::de::DeserializeOwned;
use serde_saphyr::{Error as Yaml, MessageFormatter as _, UserMessageFormatter};

use super::problem::{PlanError, Position, Problem, ProblemKind};
use super::schema::FieldDoc;
use super::spec::BackupPlan;
use super::tree::{Place, position, without_numbers};
use super::{recipient, supported, validate};

/// The maximum length of a plan, in bytes. Kubernetes limits a ConfigMap to 1 MiB.
pub const MAX_TEXT: usize = 1 << 20;

/// A valid plan and its warnings.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The plan.
    pub plan: BackupPlan,
    /// Problems that do not make the plan invalid.
    pub warnings: Vec<Problem>,
}

/// Parses and checks a backup plan.
///
/// # Errors
/// Returns all problems in the order of the text, or only the first one if the text cannot be parsed as a
/// plan.
pub fn parse(text: &str) -> Result<Checked, PlanError> {
    let (plan, places) = typed::<BackupPlan>(text, super::schema::fields)?;
    check(plan, Some(&places))
}

/// Parses a plan of one kind; `fields` returns all fields that it may have.
///
/// # Errors
/// Returns the first problem, or all fields that have no value.
pub(super) fn typed<T: DeserializeOwned>(
    text: &str,
    fields: fn() -> Vec<FieldDoc>,
) -> Result<(T, Place), PlanError> {
    if text.len() > MAX_TEXT {
        let message = format!("a plan has at most {MAX_TEXT} bytes, this is {}", text.len());
        return Err(Problem::new(ProblemKind::Syntax, "", message).into());
    }
    // This check is first, so that no later message can quote a line that holds a key.
    if let Some(at) = recipient::find_private_key(text) {
        return Err(private_key(at).into());
    }
    let places: Place = from_yaml(text).map_err(|error| broken(&error))?;
    let problems = nothing_stands(&places);
    if !problems.is_empty() {
        return Err(PlanError { problems });
    }
    let plan: T = from_yaml(text).map_err(|error| problem_of(&error, &places, fields))?;
    Ok((plan, places))
}

/// Checks a plan that was built from arguments.
///
/// # Errors
/// Returns all problems of the plan.
pub fn check_built(plan: BackupPlan) -> Result<Checked, PlanError> {
    check(plan, None)
}

fn check(plan: BackupPlan, places: Option<&Place>) -> Result<Checked, PlanError> {
    let mut problems = validate::problems(&plan);
    problems.extend(supported::problems(&plan));
    for problem in &mut problems {
        problem.at = places.and_then(|places| places.of(&problem.field));
    }
    problems.sort_by_key(|problem| problem.at);
    if problems.iter().any(|problem| problem.refused) {
        problems.retain(|problem| problem.refused);
        return Err(PlanError { problems });
    }
    Ok(Checked { plan, warnings: problems })
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, Yaml> {
    // No snippets: an error must not quote lines of a file that should hold no secret, but may.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

/// Returns a problem for each field without a value: it could mean the defaults or an empty value.
fn nothing_stands(places: &Place) -> Vec<Problem> {
    let problem = |(field, at): (String, _)| {
        if field.is_empty() {
            return Problem::new(ProblemKind::Empty, "", "there is no plan in this text")
                .remedy("docs/plan.md shows one");
        }
        Problem::new(ProblemKind::BadValue, field, "nothing stands here")
            .remedy("write {} for a block of defaults, [] for an empty list, or leave the field out")
            .at(at)
    };
    // In a merge patch null removes a field (RFC 7396), and a JSON patch may set a field to it.
    let patches = |field: &str| {
        let field = without_numbers(field);
        field.starts_with("spec.modify[].merge.") || field.starts_with("spec.modify[].patch[].value")
    };
    places.without_value().into_iter().filter(|(field, _)| !patches(field)).map(problem).collect()
}

fn private_key(at: Position) -> Problem {
    let message = recipient::RecipientError::PrivateKey.to_string();
    Problem::new(ProblemKind::PrivateKey, "", message)
        .at(Some(at))
        .remedy("put the public key there, and count this private key as known to whoever saw the file")
}

/// Describes a text that is not YAML, repeats a key, or holds several documents.
fn broken(error: &Yaml) -> Problem {
    let error = error.without_snippet();
    let at = error.location().and_then(position);
    let problem = match error {
        Yaml::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a field");
            Problem::new(ProblemKind::Duplicate, "", format!("{key} stands here a second time"))
        }
        Yaml::MultipleDocuments { .. } => {
            Problem::new(ProblemKind::Syntax, "", "a second document begins; a plan's file holds one plan")
                .remedy("put each plan into a file of its own")
        }
        other => {
            let message = UserMessageFormatter.format_message(other);
            Problem::new(ProblemKind::Syntax, "", format!("this is not YAML: {message}"))
        }
    };
    problem.at(at)
}

/// Describes YAML that is not a plan.
fn problem_of(error: &Yaml, places: &Place, fields: fn() -> Vec<FieldDoc>) -> Problem {
    let error = error.without_snippet();
    let at = error.location().and_then(position);
    let field = at.and_then(|at| places.field_at(at)).unwrap_or_default();
    let problem = match error {
        Yaml::SerdeUnknownField { field: name, expected, .. } => {
            // The path ends with the name, so the message adds only the parent.
            let message = format!("there is no field {name}{}", within(&field, name));
            return unknown(ProblemKind::UnknownField, message, name, expected).at(at);
        }
        Yaml::SerdeMissingField { field: name, .. } => return missing(name, at, places, fields),
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            let message = format!("{variant} is none of the values that may stand here");
            unknown(ProblemKind::BadValue, message, variant, expected)
        }
        Yaml::SerdeInvalidType { unexpected, expected, .. }
        | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            Problem::new(ProblemKind::BadValue, "", format!("{unexpected} stands here; expected {expected}"))
        }
        Yaml::Unexpected { expected, .. } => {
            let wanted = match *expected {
                "mapping start" => "a block of fields (name: value)",
                "sequence start" => "a list",
                "string scalar" | "scalar" => "a single value",
                other => other,
            };
            let message = format!("something else stands here; expected {wanted}");
            Problem::new(ProblemKind::BadValue, "", message)
        }
        Yaml::Message { msg, .. } => Problem::new(ProblemKind::BadValue, "", msg.clone()),
        other => {
            Problem::new(ProblemKind::BadValue, "", UserMessageFormatter.format_message(other).into_owned())
        }
    };
    Problem { field, ..problem }.at(at)
}

/// Returns ` in spec.databases[1]` for a field whose own path is known.
fn within(path: &str, name: &str) -> String {
    match path.strip_suffix(name).and_then(|parent| parent.strip_suffix('.')) {
        Some(parent) if !parent.is_empty() => format!(" in {parent}"),
        _ => String::new(),
    }
}

fn unknown(kind: ProblemKind, message: String, name: &str, expected: &[&'static str]) -> Problem {
    let remedy = match suggest(name, expected.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are: {}", expected.join(", ")),
    };
    Problem::new(kind, "", message).remedy(remedy)
}

/// Describes a missing field. The parser gives only its name, the schema gives its place.
fn missing(name: &str, at: Option<Position>, places: &Place, fields: fn() -> Vec<FieldDoc>) -> Problem {
    let lacking = fields().into_iter().filter(|field| field.required).find_map(|field| {
        let parent = field.path.strip_suffix(name)?;
        let parent = if parent.is_empty() { parent } else { parent.strip_suffix('.')? };
        places.lacking(parent, name).into_iter().next()
    });
    let (parent, at) = lacking.unwrap_or((String::new(), at));
    Problem::new(ProblemKind::MissingField, parent, format!("{name} is missing"))
        .remedy(missing_remedy(name))
        .at(at)
}

fn missing_remedy(name: &str) -> String {
    match name {
        "apiVersion" => "begin the file with apiVersion: kbak.dev/v1".into(),
        "kind" => "add kind: BackupPlan".into(),
        "recipients" => "add the owners' public keys: kbak keygen makes one".into(),
        "writer" | "keyFile" => "add writer: {keyFile: …}, made by kbak init".into(),
        _ => "see kbak plan schema, or docs/plan.md".into(),
    }
}

/// Returns the most similar of `names`, if it is similar enough to have been meant.
#[must_use]
pub fn suggest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    names.map(|other| (near(other), other)).filter(|(score, _)| *score > 0.8).max_by(by_score).map(|(_, o)| o)
}

fn by_score(a: &(f64, &str), b: &(f64, &str)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0)
}
