//! Renders the plan and the result of a restore of resources as text.

use std::collections::{BTreeMap, BTreeSet};

use crate::report::run::{GapReport, ObjectReport};
use crate::report::text::{about, count, plain, plural, size};
use crate::target::kubernetes::{
    Action, ActionTotal, ChangeTotal, Conflict, NO_DATA, ObjectRef, Outcome, Plan, Refusal, RefusalCause,
    RestoreReport, Skip, UnmatchedSelector,
};

/// The creates per second that a small API server accepts. They bound the duration of a restore.
const RATE: u64 = 800;
/// The number of changes that are listed one by one.
const CHANGES: usize = 12;
/// The number of names that are given as examples.
const NAMES: usize = 3;
/// The reason of objects that were being deleted.
const BEING_DELETED: &str = "it, its namespace or its definition was being deleted when the backup was made  → --object KIND/NAMESPACE/NAME";

/// Renders the plan, with a line for each action on a group of objects.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut lines = Lines::default();
    let mut line = |verb: &str, rest: String| lines.add(verb, &rest);
    if let Some(why) = copy(plan) {
        line("copy", why);
    }
    for sum in &plan.sums {
        if let Action::Create | Action::Patch | Action::Replace | Action::Leave = sum.action {
            let verb = match sum.action {
                Action::Create => "create",
                Action::Patch => "patch",
                Action::Replace => "replace",
                _ => "leave",
            };
            line(verb, format!("{}{}", objects(sum), if verb == "leave" { ": there already" } else { "" }));
        }
    }
    for (wait, number) in &plan.waits {
        let verb = if *number == 1 { "waits" } else { "wait" };
        line("wait", format!("{} {verb} for {wait}", count(*number)));
    }
    for sum in &plan.sums {
        match &sum.action {
            Action::Skip(skip) => line("skip", format!("{}: {}", objects(sum), left_out(skip))),
            Action::Hold(release) => line("hold", format!("{}  → --release {release}", objects(sum))),
            Action::Refuse(allow) => line("refuse", format!("{}  → --allow {allow}", objects(sum))),
            _ => {}
        }
    }
    for change in plan.changes.iter().take(CHANGES) {
        line("change", changed(change));
    }
    if plan.changes.len() > CHANGES {
        line("change", format!("{} more in -o json", plan.changes.len() - CHANGES));
    }
    conflicts(plan, &mut lines);
    remarks(plan, &mut lines);
    lines.0
}

/// Lines of a plan: a verb, and its objects.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, verb: &str, rest: &str) {
        self.0.push_str(&format!("{verb:<9}{}\n", plain(rest)));
    }
}

fn conflicts(plan: &Plan, lines: &mut Lines) {
    let mut line = |verb: &str, rest: String| lines.add(verb, &rest);
    for sum in &plan.sums {
        if let Action::Conflict(conflict) = sum.action {
            for (object, why) in sum.examples.iter().take(NAMES) {
                let why = why.as_deref().unwrap_or_else(|| against(conflict));
                let why = why.trim_start_matches("Collides: ");
                line("conflict", format!("{object} {why}"));
            }
            let more = sum.count.saturating_sub(NAMES.min(sum.examples.len()) as u64);
            if more > 0 {
                line("conflict", format!("{} more {}", count(more), against(conflict)));
            }
        }
    }
}

/// Adds what the plan says of the whole: what is missing, what was checked, how long it takes.
fn remarks(plan: &Plan, lines: &mut Lines) {
    let mut line = |verb: &str, rest: String| lines.add(verb, &rest);
    if plan.owners_lost > 0 {
        let owners = plural(plan.owners_lost, "owner", "owners");
        line("owners", format!("{owners} will not be there: left out of what they own"));
    }
    for (object, why) in plan.incomplete.iter().take(NAMES) {
        line("lacks", format!("{object} {why}"));
    }
    let more = plan.incomplete_count.saturating_sub(NAMES.min(plan.incomplete.len()) as u64);
    if more > 0 {
        line("lacks", format!("{} more lack a part of the backup: -o json names them", count(more)));
    }
    for (object, why) in plan.refused.iter().take(NAMES) {
        line("refused", format!("{object} by the server, in a dry run: {why}"));
    }
    let more = plan.refused_count.saturating_sub(NAMES.min(plan.refused.len()) as u64);
    if more > 0 {
        line("refused", format!("{} more by the server, in a dry run: -o json names them", count(more)));
    }
    for (object, what) in plan.dropped.iter().take(NAMES) {
        line("dropped", format!("{object}: {what}"));
    }
    let more = plan.dropped_count.saturating_sub(NAMES.min(plan.dropped.len()) as u64);
    if more > 0 {
        line("dropped", format!("{} more fields that the server refuses: -o json names them", count(more)));
    }
    for absent in &plan.absent {
        line("absent", nothing_fits(absent));
    }
    for note in &plan.notes {
        line("note", note.clone());
    }
    let grades: Vec<String> =
        plan.grades.iter().map(|(grade, number)| format!("{} {grade}", count(*number))).collect();
    if !grades.is_empty() {
        line("checked", grades.join(", "));
    }
    let seconds = (plan.writes + plan.second_writes).div_ceil(RATE);
    line(
        "size",
        format!(
            "{} to send in {}, about {} where the server takes {RATE} a second",
            size(plan.bytes),
            plural(plan.writes + plan.second_writes, "write", "writes"),
            about(std::time::Duration::from_secs(seconds))
        ),
    );
    line("plan", format!("hash {}", plan.hash));
}

/// Explains why the restore makes a copy, and the consequences; `None` if it makes none.
fn copy(plan: &Plan) -> Option<String> {
    if !plan.foreign {
        return None;
    }
    let short =
        |uid: &Option<String>| uid.as_deref().map_or("unknown", |uid| &uid[..uid.len().min(8)]).to_owned();
    let (from, to) = (short(&plan.clusters.0), short(&plan.clusters.1));
    let this = match &plan.clusters {
        (Some(_), Some(_)) => format!("this is another cluster ({to}) than the one in the backup ({from})"),
        _ => "whether this is the cluster of the backup is not known (the namespace kube-system may not be \
              read)"
            .to_owned(),
    };
    Some(format!(
        "{this}: what runs by itself comes back suspended, what reaches outside is held back. If it is that \
         one, or takes its place: --takeover"
    ))
}

/// Returns the warnings that are shown before a plan is carried out.
pub(crate) fn warnings(plan: &Plan) -> Vec<String> {
    let held = plan.count(|action| matches!(action, Action::Hold(_)));
    let mut warnings: Vec<String> = Vec::new();
    let suspended = plan.changes.iter().any(|change| change.change.starts_with("suspended"));
    if held > 0 || suspended {
        warnings.extend(copy(plan));
    }
    let ending = plan.sums.iter().filter(|sum| sum.action == Action::Skip(Skip::BeingDeleted));
    warnings.extend(ending.map(|sum| format!("{}: {BEING_DELETED}", examples(sum))));
    let git = plan.count(|action| matches!(action, Action::Skip(Skip::Git(_))));
    if git > 0 {
        warnings.push(format!(
            "{} left out that bear the marks of Argo CD or Flux; --scope all brings them, too",
            plural(git, "object", "objects")
        ));
    }
    warnings
}

/// Renders a sum as `12 objects left out, as Pod/shop/web`.
fn examples(sum: &ActionTotal) -> String {
    let names: Vec<String> = sum.examples.iter().take(NAMES).map(|(object, _)| object.to_string()).collect();
    format!("{} left out, as {}", plural(sum.count, "object", "objects"), names.join(", "))
}

/// Renders a sum as `12 objects in shop-test (ConfigMap 8, Secret 4)`.
fn objects(sum: &ActionTotal) -> String {
    let mut spaces = sum.namespaces.keys().filter(|name| !name.is_empty());
    let place = match (spaces.next(), spaces.next()) {
        (Some(one), None) => format!(" in {one}"),
        (Some(_), Some(_)) => format!(" in {} namespaces", 2 + spaces.count()),
        (None, _) => String::new(),
    };
    format!("{}{place} ({})", plural(sum.count, "object", "objects"), kinds(&sum.kinds))
}

fn kinds(kinds: &BTreeMap<String, u64>) -> String {
    let mut most: Vec<(&String, &u64)> = kinds.iter().collect();
    most.sort_by_key(|(kind, number)| (std::cmp::Reverse(**number), (*kind).clone()));
    let mut parts: Vec<String> =
        most.iter().take(6).map(|(kind, number)| format!("{kind} {}", count(**number))).collect();
    if most.len() > 6 {
        parts.push(format!("{} more kinds", most.len() - 6));
    }
    parts.join(", ")
}

fn changed(change: &ChangeTotal) -> String {
    match change.count {
        1 => format!("{} {}", change.example, change.change),
        number => format!("{} {}: {}, as in {}", count(number), change.kind, change.change, change.example),
    }
}

fn left_out(skip: &Skip) -> String {
    match skip {
        Skip::Derived(why) => format!("derived, the cluster makes them itself ({})", code(why)),
        Skip::Infrastructure(why) => format!("infrastructure: {}  → --profile rebuild or everything", why.0),
        Skip::Git(tool) => format!("they bear the marks of {tool}  → --scope all"),
        Skip::OwnKeys => "kbak's own keys: a cluster gets new ones from kbak init".into(),
        Skip::BeingDeleted => BEING_DELETED.into(),
    }
}

fn against(conflict: Conflict) -> &'static str {
    match conflict {
        Conflict::Differs => "exists and is not as in the backup: left alone  → --existing patch or replace",
        Conflict::Collides => "would have the name of another: only the first comes",
        Conflict::Unserved => {
            "is of a kind that the cluster does not serve, and no definition comes with it  → --allow crds, \
             or --object customresourcedefinitions.apiextensions.k8s.io/NAME"
        }
        Conflict::NoNamespace => {
            "lies in a namespace that is not there and does not come along  → select it as well: --object \
             namespaces/NAME, or create it"
        }
        Conflict::NoRight => "may not be created or changed by this user",
        Conflict::Unfit => "cannot be sent",
    }
}

/// Returns the serialised name of a unit variant.
fn code<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Reports the outcome of one object.
pub(crate) fn object(object: &ObjectRef, outcome: &Outcome) -> ObjectReport {
    let (code, why) = match outcome {
        Outcome::Created => ("created", String::new()),
        Outcome::Existed => ("existed", String::new()),
        Outcome::Differs => ("differs", String::new()),
        Outcome::Patched => ("patched", String::new()),
        Outcome::Replaced => ("replaced", String::new()),
        Outcome::Skipped(skip) => ("skipped", left_out(skip)),
        Outcome::Refused(allow) => ("refused", format!("--allow {allow}")),
        Outcome::Held(release) => ("held", format!("--release {release}")),
        Outcome::Collides(from) => ("collides", format!("that of namespace {from}: another has its name")),
        Outcome::Unserved => ("unserved", String::new()),
        Outcome::Failed(refusal) => ("failed", refusal.to_string()),
    };
    ObjectReport { object: object.to_string(), outcome: code.into(), why }
}

/// Explains that a selector matches no object, or that its object is left out.
pub(crate) fn nothing_fits(absent: &UnmatchedSelector) -> String {
    let beside = match absent {
        UnmatchedSelector::LeftOut(_, skip) => return format!("{absent} is left out: {}", left_out(skip)),
        UnmatchedSelector::Labels(_) => ", of what is selected otherwise,",
        _ => "",
    };
    format!("nothing in the snapshot{beside} fits {absent}")
}

/// Returns a gap for each selector without a match.
pub(crate) fn absent(absent: &[UnmatchedSelector]) -> Vec<GapReport> {
    let gap = |one: &UnmatchedSelector| GapReport {
        code: "absent".into(),
        object: one.to_string(),
        reason: nothing_fits(one),
    };
    absent.iter().map(gap).collect()
}

/// Returns the gaps after a restore.
pub(crate) fn gaps(report: &RestoreReport) -> Vec<GapReport> {
    let mut gaps = absent(&report.absent);
    let mut gap = |code: &str, object: String, reason: String| {
        gaps.push(GapReport { code: code.into(), object, reason });
    };
    let named = |which: &dyn Fn(&Outcome) -> bool| {
        let names =
            report.missing.iter().filter(|(_, outcome)| which(outcome)).map(|(object, _)| object.to_string());
        let names: Vec<String> = names.take(NAMES).collect();
        if names.is_empty() { String::new() } else { format!(", as {}", names.join(", ")) }
    };
    let some = |number: u64| plural(number, "object", "objects");
    for (allow, number) in &report.refused {
        let names = named(&|outcome| *outcome == Outcome::Refused(*allow));
        gap("refused", some(*number), format!("not allowed: --allow {allow}{names}"));
    }
    if !report.has_release_choice {
        for (release, number) in &report.held {
            let names = named(&|outcome| *outcome == Outcome::Held(*release));
            gap(
                "held",
                some(*number),
                format!("held back, since this is a copy: --release {release}{names}"),
            );
        }
    }
    if report.differing > 0 && !report.has_existing_choice {
        let names = named(&|outcome| *outcome == Outcome::Differs);
        gap("differs", some(report.differing), format!("there and not as in the backup: left alone{names}"));
    }
    if report.collided > 0 {
        let lost = report.missing.iter().filter_map(|(object, outcome)| match outcome {
            Outcome::Collides(from) => Some(format!("{object} of namespace {from}")),
            _ => None,
        });
        let lost: Vec<String> = lost.take(NAMES).collect();
        let names = if lost.is_empty() { String::new() } else { format!(", as {}", lost.join(", ")) };
        gap("collides", some(report.collided), format!("would have the name of another{names}"));
    }
    for (resource, number) in &report.unserved {
        gap(
            "unserved",
            resource.clone(),
            format!("the cluster does not serve this kind ({})", some(*number)),
        );
    }
    for (object, refusal) in &report.failures {
        gap("failed", object.to_string(), refusal.to_string());
    }
    let more = report.failed.saturating_sub(report.failures.len() as u64);
    if more > 0 {
        gap("failed", some(more), "failed as well; --outcomes FILE names them".into());
    }
    gaps.extend(report.unfinished.iter().map(|(object, refusal)| unfinished(object, refusal)));
    gaps
}

/// Returns the gap of an object that was restored without a part of the backup.
fn unfinished(object: &ObjectRef, refusal: &Refusal) -> GapReport {
    let what = if refusal.code == 0 { "" } else { "its owners, managers or status: " };
    let (code, reason) = match refusal.reason.as_str() {
        NO_DATA => ("no-data", refusal.message.clone()),
        _ => ("unfinished", format!("{what}{refusal}")),
    };
    GapReport { code: code.into(), object: object.to_string(), reason }
}

/// Returns the steps that close the gaps; `None` if there are none.
pub(crate) fn remedy(report: &RestoreReport) -> Option<String> {
    let mut steps = Vec::new();
    // The reason of a left-out object already names the option that restores it, if one does.
    if report.absent.iter().any(|absent| !matches!(absent, UnmatchedSelector::LeftOut(..))) {
        steps.push("look at how it is called: kbak ls, kbak show".to_owned());
    }
    if !report.refused.is_empty() {
        let allow: Vec<&str> = report.refused.keys().map(|allow| allow.name()).collect();
        steps.push(format!("look at them (--resources-to), then --allow {}", allow.join(",")));
    }
    if !report.held.is_empty() && !report.has_release_choice {
        let release: Vec<&str> = report.held.keys().map(|release| release.name()).collect();
        let takeover =
            if report.foreign { "--takeover if this cluster takes the other's place; else " } else { "" };
        steps.push(format!("{takeover}--release {}, or --release none", release.join(",")));
    }
    if report.differing > 0 && !report.has_existing_choice {
        steps.push("--existing patch or replace, or --existing skip".into());
    }
    let causes: BTreeSet<RefusalCause> = report.failures.iter().map(|(_, refusal)| refusal.cause).collect();
    steps.extend(causes.into_iter().filter_map(RefusalCause::remedy).take(NAMES).map(str::to_owned));
    (!steps.is_empty()).then(|| steps.join("; "))
}
