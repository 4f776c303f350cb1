//! The alert rules, evaluated by Prometheus' own engine over series as kube-state-metrics and a Pushgateway have them.

use std::path::Path;

use serde_json::{Value, json};

use super::{documents, helm, object, project};
use crate::support::owners::run_ok;
use crate::support::program::prometheus_parser;

/// Series over time, and the alerts that fire after some minutes.
struct Course {
    name: &'static str,
    /// Series that replace or join those of [`HEALTHY`] and [`PUSHED`]: a name with labels, and the values.
    series: &'static [(&'static str, &'static str)],
    /// Minutes, and all alerts that fire then, in order.
    firing: &'static [(u32, &'static [&'static str])],
}

/// Short ages: 120 minutes for a backup, 180 for a verification.
const AGES: &str = "alerts.maxBackupAgeSeconds=7200,alerts.maxVerifyAgeSeconds=10800";

/// Runs that succeed, one after the other, with the series of kube-state-metrics. `@` are labels.
const HEALTHY: &[(&str, &str)] = &[
    ("kube_cronjob_info{@backup}", "1x400"),
    ("kube_cronjob_info{@verify}", "1x400"),
    ("kube_cronjob_created{@backup}", "0x400"),
    ("kube_cronjob_created{@verify}", "0x400"),
    ("kube_cronjob_spec_suspend{@backup}", "0x400"),
    ("kube_cronjob_spec_suspend{@verify}", "0x400"),
    ("kube_cronjob_status_last_successful_time{@backup}", "0+60x400"),
    ("kube_cronjob_status_last_successful_time{@verify}", "0+60x400"),
    ("kube_job_failed{@job=kbak-backup-1,condition=true}", "0x400"),
];

/// kbak's own metrics of such runs. `@` are labels.
const PUSHED: &[(&str, &str)] = &[
    ("kbak_next_due_timestamp_seconds{@backup}", "7200+60x400"),
    ("kbak_items{@backup,state=\"safe\"}", "3x400"),
    ("kbak_items{@backup,state=\"gap\"}", "0x400"),
    ("kbak_run_exit_code{@backup}", "0x400"),
    ("kbak_run_exit_code{@verify}", "0x400"),
    ("kbak_uncovered{@backup,what=\"key\"}", "0x400"),
    ("kbak_last_run_timestamp_seconds{@backup}", "0+60x400"),
];

const COURSES: &[Course] = &[
    Course { name: "healthy runs", series: &[], firing: &[(0, &[]), (60, &[]), (300, &[])] },
    Course {
        name: "a failed Job of the backup, until it is gone",
        series: &[("kube_job_failed{@job=kbak-backup-1,condition=true}", "0x9 1x9 _x100")],
        firing: &[(9, &[]), (12, &["KbakBackupFailed"]), (40, &[])],
    },
    Course {
        name: "a failed Job of the verification",
        series: &[("kube_job_failed{@job=kbak-verify-1,condition=true}", "1x100")],
        firing: &[(5, &["KbakVerifyFailed"])],
    },
    Course {
        name: "a failed Job of something else",
        series: &[("kube_job_failed{@job=other-backup-1,condition=true}", "1x100")],
        firing: &[(5, &[])],
    },
    Course {
        name: "a last good backup that gets older",
        series: &[("kube_cronjob_status_last_successful_time{@backup}", "0x400")],
        firing: &[(120, &[]), (121, &["KbakBackupTooOld"])],
    },
    Course {
        name: "a backup that never succeeded",
        series: &[("kube_cronjob_status_last_successful_time{@backup}", "_x400")],
        firing: &[(120, &[]), (121, &["KbakBackupTooOld"])],
    },
    Course {
        name: "a last good verification that gets older",
        series: &[("kube_cronjob_status_last_successful_time{@verify}", "0x400")],
        firing: &[(180, &[]), (181, &["KbakVerifyTooOld"])],
    },
    Course {
        name: "CronJobs that are suspended for a while, and for longer",
        series: &[("kube_cronjob_spec_suspend{@backup}", "0x9 1x49 0x9 1x200")],
        firing: &[(59, &[]), (70, &[]), (129, &[]), (131, &["KbakBackupMissing"])],
    },
    Course {
        name: "a CronJob that is gone",
        series: &[
            ("kube_cronjob_info{@verify}", "1x9 _x200"),
            ("kube_cronjob_created{@verify}", "0x9 _x200"),
            ("kube_cronjob_spec_suspend{@verify}", "0x9 _x200"),
            ("kube_cronjob_status_last_successful_time{@verify}", "0x9 _x200"),
        ],
        firing: &[(60, &[]), (90, &["KbakVerifyMissing"])],
    },
    Course {
        name: "a snapshot that is overdue by the plan's schedule",
        series: &[("kbak_next_due_timestamp_seconds{@backup}", "6000x400")],
        firing: &[(100, &[]), (101, &["KbakBackupOverdue"])],
    },
    Course {
        name: "an unsafe item",
        series: &[
            ("kbak_items{@backup,state=\"gap\"}", "0x9 1x400"),
            ("kbak_run_exit_code{@backup}", "0x9 3x400"),
        ],
        firing: &[(9, &[]), (10, &["KbakItemsUnsafe", "KbakRunFailed"])],
    },
    Course {
        name: "a backup that could not reach the store, and the next one that could",
        series: &[("kbak_run_exit_code{@backup}", "0x9 5x9 0x400")],
        firing: &[(12, &["KbakRunFailed"]), (25, &[])],
    },
    Course {
        name: "keys that no backup has",
        series: &[("kbak_uncovered{@backup,what=\"key\"}", "2x400")],
        firing: &[(59, &[]), (60, &["KbakKeysUndeclared"])],
    },
    Course {
        name: "claims that no backup has",
        series: &[("kbak_uncovered{@backup,what=\"claim\"}", "2x400")],
        firing: &[(100, &[])],
    },
    Course {
        name: "a damaged repository",
        series: &[("kbak_run_exit_code{@verify}", "0x9 4x400")],
        firing: &[(9, &[]), (10, &["KbakDamaged", "KbakRunFailed"])],
    },
    Course {
        name: "metrics that stop to arrive",
        series: &[("kbak_last_run_timestamp_seconds{@backup}", "0x9 _x200")],
        firing: &[(30, &[]), (90, &["KbakMetricsMissing"])],
    },
    Course {
        name: "another cluster's plan of the same name, which fails",
        series: &[
            ("kbak_run_exit_code{verb=\"backup\",plan=\"nightly\",cluster=\"elsewhere\"}", "5x400"),
            (
                "kbak_next_due_timestamp_seconds{verb=\"backup\",plan=\"nightly\",cluster=\"elsewhere\"}",
                "0x400",
            ),
            ("kbak_items{verb=\"backup\",plan=\"nightly\",cluster=\"elsewhere\",state=\"gap\"}", "1x400"),
        ],
        firing: &[(60, &[])],
    },
    Course {
        name: "metrics of another cluster alone",
        series: &[
            ("kbak_last_run_timestamp_seconds{@backup}", "_x200"),
            (
                "kbak_last_run_timestamp_seconds{verb=\"backup\",plan=\"nightly\",cluster=\"elsewhere\"}",
                "0+60x200",
            ),
        ],
        firing: &[(90, &["KbakMetricsMissing"])],
    },
];

#[test]
fn each_alert_fires_when_it_must_and_not_otherwise() {
    let home = tempfile::tempdir().expect("a folder");
    let mut template = helm(home.path());
    template.args(["template", "kbak", "--namespace", "kbak"]).arg(project("deploy/chart"));
    template.arg("--values").arg(project("tests/in_cluster/values/everything.yaml")).args(["--set", AGES]);
    let objects = documents(&String::from_utf8(run_ok(&mut template, b"")).expect("text"));
    let spec = &object(&objects, "PrometheusRule", "kbak")["spec"];
    let rules = home.path().join("rules");
    std::fs::write(&rules, spec.to_string()).expect("a file");
    let cluster = cluster_of(&objects);
    let mut fired = std::collections::BTreeSet::new();
    for Course { name, series, firing } in COURSES {
        let minutes: Vec<u32> = firing.iter().map(|(minute, _)| *minute).collect();
        let alerts = evaluate(home.path(), &rules, &series_of(series, &cluster), &minutes);
        for (minute, expected) in *firing {
            let at = alerts.iter().filter(|alert| alert["minute"] == *minute);
            let mut found: Vec<&str> = at.map(|alert| alert["alert"].as_str().expect("a name")).collect();
            found.sort_unstable();
            assert_eq!(found, *expected, "{name}, after {minute} minutes: {alerts:#?}");
            fired.extend(expected.iter().map(|alert| (*alert).to_owned()));
        }
        for alert in &alerts {
            let texts = alert["annotations"].to_string();
            assert!(alert["labels"]["severity"].is_string() && !texts.contains("{{"), "{name}: {alert:#}");
        }
    }
    let groups = spec["groups"].as_array().expect("groups").iter();
    let all = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
    let all = all.map(|rule| rule["alert"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(fired, all, "alerts that fire in a course");
}

/// Returns the label of pushed metrics in the rendered plan.
fn cluster_of(objects: &[Value]) -> String {
    let plan = object(objects, "ConfigMap", "kbak-plan")["data"]["plan.yaml"].as_str().expect("a plan");
    let plan: Value = serde_saphyr::from_str(plan).expect("YAML");
    let mut receivers = plan["spec"]["notify"].as_array().expect("receivers").iter();
    let label = receivers.find_map(|receiver| receiver["metrics"]["cluster"].as_str());
    label.expect("the label of a cluster").to_owned()
}

/// Returns the healthy series with those of a course in their places.
fn series_of(course: &[(&str, &str)], cluster: &str) -> Vec<String> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for (series, values) in HEALTHY.iter().chain(PUSHED).chain(course) {
        match all.iter_mut().find(|(known, _)| known == series) {
            Some(known) => known.1 = values,
            None => all.push((series, values)),
        }
    }
    all.iter().map(|(series, values)| format!("{} {values}", with_labels(series, cluster))).collect()
}

/// Writes out the labels of a series.
fn with_labels(series: &str, cluster: &str) -> String {
    let (name, labels) = series.split_once('{').expect("labels");
    let labels = labels.trim_end_matches('}').split(',').map(|label| match label.strip_prefix('@') {
        Some(job) if job.starts_with("job=") => {
            format!("namespace=\"kbak\",job_name=\"{}\"", job.trim_start_matches("job="))
        }
        Some(part) if name.starts_with("kube_") => format!("namespace=\"kbak\",cronjob=\"kbak-{part}\""),
        Some(verb) => format!("verb=\"{verb}\",plan=\"nightly\",cluster=\"{cluster}\""),
        None if label == "condition=true" => "condition=\"true\"".to_owned(),
        None => label.to_owned(),
    });
    format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(","))
}

/// Returns the alerts that fire after each of these minutes.
fn evaluate(home: &Path, rules: &Path, series: &[String], minutes: &[u32]) -> Vec<Value> {
    let file = home.join("series");
    let input = json!({"rules": rules, "series": series, "minutes": minutes});
    std::fs::write(&file, input.to_string()).expect("a file");
    let said = String::from_utf8(run_ok(prometheus_parser("alerts").arg(&file), b"")).expect("text");
    let alerts = said.lines().filter(|line| line.starts_with('{'));
    alerts.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
