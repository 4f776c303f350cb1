//! Further output of `init`: the recovery sheet, and Secrets for a cluster.

use std::process::Command;

use crate::support::cli_repo::CliRepo;
use crate::support::program::{beneath, good};

#[test]
fn each_owner_opens_an_epoch_by_the_recovery_sheet() {
    let cli = CliRepo::new();
    let mut init = ["init", "--plan-name", "nightly", "--secrets", "kbak"].map(str::to_owned).to_vec();
    let keys = ["ada", "bob"].map(|name| cli.text(&format!("{name}.key")));
    for key in &keys {
        let public = String::from_utf8(good(&["keygen", "-o", key, "--no-passphrase"]).stdout).expect("text");
        init.extend(["--recipient".into(), public.trim_end().to_owned(), "--identity".into(), key.clone()]);
    }
    std::fs::create_dir(cli.at("two")).expect("a folder");
    let repo = format!("file://{}", cli.text("other"));
    init.extend(["--repo".into(), repo, "--folder".into(), cli.text("two")]);
    good(&init.iter().map(String::as_str).collect::<Vec<_>>());

    let epoch = beneath(&cli.at("other")).into_iter().find(|path| path.ends_with("epoch.json"));
    let text = std::fs::read_to_string(epoch.expect("an epoch")).expect("text");
    std::fs::write(cli.at("line"), text.lines().next().expect("a line")).expect("written");
    let read = |name: &str| std::fs::read_to_string(cli.at("two").join(name)).expect("text");
    let html = read("recovery.html").replace("&gt;", ">").replace("&amp;", "&");
    for sheet in [read("recovery.txt"), html] {
        assert!(sheet.contains("kbak restore latest --to FOLDER --repo "), "{sheet}");
        assert!(sheet.contains("snapshots/SEQ-SHA256-SIGNATURE"), "{sheet}");
        let line = sheet.lines().find(|line| line.contains("jq -r")).expect("a command");
        let command = &line[line.find("jq -r").expect("its start")..];
        let command = command.split("</pre>").next().expect("its end");
        for key in &keys {
            let opens = |at: &&&str| {
                let command = command.replace("[0]", at).replace("OWNER.key", key);
                let ran = Command::new("sh").args(["-c", &command]).current_dir(cli.at(".")).output();
                // A further attempt with another wrap would empty the file again.
                ran.expect("it runs").status.success()
                    && std::fs::read_to_string(cli.at("epoch.key"))
                        .is_ok_and(|key| key.contains("AGE-SECRET-KEY-"))
            };
            assert_eq!(["[0]", "[1]"].iter().filter(opens).count(), 1, "{command}");
        }
    }

    // The Secret holds the epoch file under the name that a run of this plan looks for.
    assert!(cli.at("two/writer.key.nightly.epoch").is_file());
    assert!(read("kbak-epoch.secret.yaml").contains("  \"writer.key.nightly.epoch\":"));
}
