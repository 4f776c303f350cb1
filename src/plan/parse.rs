//! Reads a plan: parses YAML (or JSON, which is YAML) into types, then checks what types cannot express.

use serde::de::DeserializeOwned;
use serde_saphyr::{Error as Yaml, MessageFormatter as _, UserMessageFormatter};

use super::problem::{PlanError, Position, Problem, ProblemKind, suggest};
use super::restore_spec::RestorePlan;
use super::schema::{self, FieldDoc};
use super::source_tree::{SourceNode, position, without_indexes};
use super::spec::BackupPlan;
use super::{recipient, supported, validate};
use crate::report::text::without_bom;

/// The maximum length of a plan, in bytes. Kubernetes limits a ConfigMap to 1 MiB.
pub const MAX_PLAN_BYTES: usize = 1 << 20;

/// A valid plan and its warnings.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidPlan {
    /// The plan.
    pub plan: BackupPlan,
    /// Problems that do not make the plan invalid.
    pub warnings: Vec<Problem>,
}

/// Parses and checks a backup plan.
/// Fails with all problems in the order of the text, or the first if the text is no plan.
pub fn parse(text: &str) -> Result<ValidPlan, PlanError> {
    let (plan, source) = parse_typed::<BackupPlan>(text, schema::fields)?;
    check(plan, Some(&source))
}

/// Parses and checks a restore plan.
/// Fails with all problems in the order of the text, or the first if the text is no plan.
pub fn parse_restore(text: &str) -> Result<RestorePlan, PlanError> {
    let (plan, source) = parse_typed::<RestorePlan>(text, schema::restore_fields)?;
    let mut problems = validate::restore_problems(&plan.spec);
    if problems.is_empty() {
        return Ok(plan);
    }
    for problem in &mut problems {
        problem.at = source.position_of(&problem.field);
    }
    problems.sort_by_key(|problem| problem.at);
    Err(PlanError { problems })
}

/// Parses a plan of one kind; `fields` returns all fields that it may have.
fn parse_typed<T: DeserializeOwned>(
    text: &str,
    fields: fn() -> Vec<FieldDoc>,
) -> Result<(T, SourceNode), PlanError> {
    let text = without_bom(text);
    if text.len() > MAX_PLAN_BYTES {
        let message = format!("a plan has at most {MAX_PLAN_BYTES} bytes, this is {}", text.len());
        return Err(Problem::new(ProblemKind::Syntax, "", message).into());
    }
    // This check is first, so that no later message can quote a line that holds a key.
    if let Some(at) = recipient::find_private_key(text) {
        return Err(private_key_problem(at).into());
    }
    let source: SourceNode = from_yaml(text).map_err(|error| syntax_problem(&error))?;
    let problems = empty_fields(&source);
    if !problems.is_empty() {
        return Err(PlanError { problems });
    }
    let plan: T = from_yaml(text).map_err(|error| type_problem(&error, &source, fields))?;
    Ok((plan, source))
}

/// Checks a plan that was built from arguments.
pub fn check_plan(plan: BackupPlan) -> Result<ValidPlan, PlanError> {
    check(plan, None)
}

fn check(plan: BackupPlan, source: Option<&SourceNode>) -> Result<ValidPlan, PlanError> {
    let mut problems = validate::backup_problems(&plan);
    problems.extend(supported::unsupported_features(&plan));
    for problem in &mut problems {
        problem.at = source.and_then(|source| source.position_of(&problem.field));
    }
    problems.sort_by_key(|problem| problem.at);
    if problems.iter().any(|problem| problem.refused) {
        problems.retain(|problem| problem.refused);
        return Err(PlanError { problems });
    }
    Ok(ValidPlan { plan, warnings: problems })
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, Yaml> {
    // No snippets: an error must not quote lines of a file that should hold no secret, but may.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

/// Returns a problem for each field without a value: it could mean the defaults or an empty value.
fn empty_fields(source: &SourceNode) -> Vec<Problem> {
    let problem = |(field, at): (String, _)| {
        if field.is_empty() {
            return Problem::new(ProblemKind::Empty, "", "the text contains no plan")
                .remedy("start from the example in docs/plan.md");
        }
        Problem::new(ProblemKind::BadValue, field, "the field has no value")
            .remedy("write {} for a block of defaults, [] for an empty list, or leave the field out")
            .at(at)
    };
    // In a merge patch null removes a field (RFC 7396), and a JSON patch may set a field to it.
    let patches = |field: &str| {
        let field = without_indexes(field);
        field.starts_with("spec.modify[].merge.") || field.starts_with("spec.modify[].patch[].value")
    };
    source.null_fields().into_iter().filter(|(field, _)| !patches(field)).map(problem).collect()
}

fn private_key_problem(at: Position) -> Problem {
    let message = recipient::RecipientError::PrivateKey.to_string();
    Problem::new(ProblemKind::PrivateKey, "", message)
        .at(Some(at))
        .remedy("put the public key in its place; anyone who could read the file may know this private key")
}

/// Describes a text that is not YAML, repeats a key, or holds several documents.
fn syntax_problem(error: &Yaml) -> Problem {
    let error = error.without_snippet();
    let at = error.location().and_then(position);
    let problem = match error {
        Yaml::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("a field");
            Problem::new(ProblemKind::Duplicate, "", format!("{key} occurs twice"))
        }
        Yaml::MultipleDocuments { .. } => {
            Problem::new(ProblemKind::Syntax, "", "a second document begins; a plan file holds one plan")
                .remedy("put each plan into its own file")
        }
        other => {
            let message = UserMessageFormatter.format_message(other);
            Problem::new(ProblemKind::Syntax, "", format!("the text is not valid YAML: {message}"))
        }
    };
    problem.at(at)
}

/// Describes YAML that is not a plan.
fn type_problem(error: &Yaml, source: &SourceNode, fields: fn() -> Vec<FieldDoc>) -> Problem {
    let error = error.without_snippet();
    let at = error.location().and_then(position);
    let field = at.and_then(|at| source.field_at(at)).unwrap_or_default();
    let problem = match error {
        Yaml::SerdeUnknownField { field: name, expected, .. } => {
            // The path ends with the name, so the message adds only the parent.
            let message = format!("unknown field {name}{}", within(&field, name));
            return unknown_name(ProblemKind::UnknownField, message, name, expected).at(at);
        }
        Yaml::SerdeMissingField { field: name, .. } => return missing_field(name, at, source, fields),
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            let message = format!("{variant} is not an allowed value");
            unknown_name(ProblemKind::BadValue, message, variant, expected)
        }
        Yaml::SerdeInvalidType { unexpected, expected, .. }
        | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            Problem::new(ProblemKind::BadValue, "", format!("found {unexpected}; expected {expected}"))
        }
        Yaml::Unexpected { expected, .. } => {
            let wanted = match *expected {
                "mapping start" => "a block of fields (name: value)",
                "sequence start" => "a list",
                "string scalar" | "scalar" => "a single value",
                other => other,
            };
            let message = format!("wrong type; expected {wanted}");
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

fn unknown_name(kind: ProblemKind, message: String, name: &str, expected: &[&'static str]) -> Problem {
    let remedy = match suggest(name, expected.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("write one of: {}", expected.join(", ")),
    };
    Problem::new(kind, "", message).remedy(remedy)
}

/// Describes a missing field. The parser gives only its name, the schema gives its place.
fn missing_field(
    name: &str,
    at: Option<Position>,
    source: &SourceNode,
    fields: fn() -> Vec<FieldDoc>,
) -> Problem {
    let missing_in = fields().into_iter().filter(|field| field.required).find_map(|field| {
        let parent = field.path.strip_suffix(name)?;
        let parent = if parent.is_empty() { parent } else { parent.strip_suffix('.')? };
        source.missing_in(parent, name).into_iter().next()
    });
    let (parent, at) = missing_in.unwrap_or((String::new(), at));
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
