//! The binary from outside: exit status, stdout and stderr together, since that is what a script sees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const CONFIG: &str = "\
[kafka]
bootstrap_servers = \"127.0.0.1:9092\"

[registry]
url = \"http://127.0.0.1:8081\"

[connectors.shop]
database_url = \"postgres://tablecast:${SHOP_PASSWORD}@127.0.0.1:5432/shop\"

[connectors.shop.tables.\"public.*\"]
";

fn directory(config: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("connectors.toml"), config).unwrap();
    directory
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
    command.current_dir(directory).args(arguments).env_clear().env("SHOP_PASSWORD", "s3cr3t");
    command
}

/// Status, stdout and stderr in one text, without space at the lines' ends, which clap's help has.
fn seen(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    let seen = format!("status {status}\n--- stdout\n{}--- stderr\n{}", text(output.stdout), text(output.stderr));
    seen.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn run(config: &str, arguments: &[&str]) -> String {
    let directory = directory(config);
    seen(command(directory.path(), arguments))
}

#[test]
fn services_that_do_not_answer_are_findings() {
    let config = CONFIG.replace(":9092", ":1").replace(":8081", ":1").replace(":5432", ":1");
    let said = run(&config, &["check"]);
    assert!(said.starts_with("status 3\n--- stdout\nok       configuration  connectors: shop\n"), "{said}");
    for subject in ["kafka", "registry", "shop: source"] {
        assert!(said.contains(&format!("\nerror    {subject}")), "{said}");
    }
    assert!(said.contains("3 errors, 0 warnings: `run` would refuse to start\n--- stderr\n"), "{said}");
}

#[test]
fn all_mistakes_of_a_configuration_are_shown_at_once() {
    let config = CONFIG.replace("[registry]", "[registri]").replace("SHOP_PASSWORD", "NO_SUCH_VARIABLE")
        + "topics = \"users\"\n[http]\nlisten = \":9187\"\n";
    for command in ["check", "run", "status"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(run(&config, &[command]), @r#"
            status 2
            --- stdout
            --- stderr
            connectors.toml: registry: missing; add `[registry]` with `url = "http://127.0.0.1:8081"`
            connectors.toml:4: registri: unknown setting; did you mean `registry`?
            connectors.toml:8: connectors.shop.database_url: the environment has no variable `NO_SUCH_VARIABLE`; set it, or write `$${` where `${` itself is meant
            connectors.toml:11: connectors.shop.tables."public.*".topics: unknown setting; did you mean `topic`?
            connectors.toml:13: http.listen: `:9187` is not an IP address with a port; write `127.0.0.1:9187`, or `0.0.0.0:9187` for all addresses
            "#);
        }
    }
}

#[test]
fn a_secret_that_is_misplaced_is_not_shown() {
    let config = CONFIG.replace("postgres://tablecast:${SHOP_PASSWORD}@127.0.0.1:5432/shop", "${SHOP_PASSWORD}");
    insta::assert_snapshot!(run(&config, &["run"]), @r"
    status 2
    --- stdout
    --- stderr
    connectors.toml:8: connectors.shop.database_url: is not a connection URL; write `postgres://USER:PASSWORD@HOST:5432/DATABASE`, other characters percent-encoded, or `host=HOST user=USER password='PASSWORD' dbname=DATABASE`
    ");
}

#[test]
fn a_file_that_is_not_toml_is_a_mistake_with_a_line() {
    insta::assert_snapshot!(run("[kafka\n", &["check"]), @r"
    status 2
    --- stdout
    --- stderr
    connectors.toml:1: not TOML: unclosed table, expected `]`
    ");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    insta::assert_snapshot!(run("", &["--config", "other.toml", "check"]), @r"
    status 2
    --- stdout
    --- stderr
    other.toml: cannot be read: No such file or directory (os error 2); name the file with `--config FILE` or `TABLECAST_CONFIG`
    ");
}

#[test]
fn the_environment_names_the_file_and_the_option_wins() {
    let directory = directory(CONFIG);
    let mut by_environment = command(directory.path(), &["check"]);
    by_environment.env("TABLECAST_CONFIG", "from-environment.toml");
    assert!(seen(by_environment).contains("from-environment.toml: cannot be read"));
    let mut by_option = command(directory.path(), &["run", "--connector", "shpo", "--config", "connectors.toml"]);
    by_option.env("TABLECAST_CONFIG", "from-environment.toml");
    assert!(seen(by_option).contains("has no connector `shpo`"));
}

#[test]
fn a_configuration_without_connectors_has_nothing_to_run() {
    let config = CONFIG.split("[connectors").next().unwrap();
    insta::assert_snapshot!(run(config, &["run"]), @r"
    status 2
    --- stdout
    --- stderr
    error: the configuration has no connector; add `[connectors.NAME]`
    ");
}

#[test]
fn connectors_and_tables_that_are_not_there_are_a_wrong_call() {
    insta::assert_snapshot!(run(CONFIG, &["run", "--connector", "shpo"]), @r"
    status 2
    --- stdout
    --- stderr
    error: the configuration has no connector `shpo`; did you mean `shop`?
    ");
    insta::assert_snapshot!(run(CONFIG, &["teardown", "billing", "--yes"]), @r"
    status 2
    --- stdout
    --- stderr
    error: the configuration has no connector `billing`; it has `shop`
    ");
    insta::assert_snapshot!(run(CONFIG, &["schema", "shop", "Private.Users"]), @r"
    status 2
    --- stdout
    --- stderr
    error: connector `shop` does not capture private.users; it captures public.*
    ");
    insta::assert_snapshot!(run(CONFIG, &["schema", "shop", "my-table"]), @r#"
    status 2
    --- stdout
    --- stderr
    error: invalid value 'my-table' for '[TABLE]...': is not a table's name as SQL writes it; quote each part that is more than letters, digits and underscores: '"Weird.Schema"."my-table"'

    For more information, try '--help'.
    "#);
}

#[test]
fn a_wrong_call_is_told_from_a_failure() {
    insta::assert_snapshot!(run(CONFIG, &["chekc"]), @r"
    status 2
    --- stdout
    --- stderr
    error: unrecognized subcommand 'chekc'

      tip: some similar subcommands exist: 'schema', 'check'

    Usage: tablecast [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(run(CONFIG, &["check", "--log", "tablecast=loud"]), @r#"
    status 2
    --- stdout
    --- stderr
    error: `tablecast=loud` is not a log filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5; write a level (`debug`), or targets (`info,tablecast::kafka=debug`)
    "#);
    for arguments in [&[][..], &["tail"], &["tail", "t", "--limit", "0"], &["tail", "t", "--from-end"]] {
        assert!(run(CONFIG, arguments).starts_with("status 2\n--- stdout\n--- stderr\n"), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    let version = concat!("status 0\n--- stdout\ntablecast ", env!("CARGO_PKG_VERSION"), "\n--- stderr\n");
    assert_eq!(run("", &["--version"]), version);
    insta::assert_snapshot!(run("", &["--help"]), @r"
    status 0
    --- stdout
    Turns every captured Postgres table into a log-compacted Kafka topic, exactly once, and keeps it so

    Usage: tablecast [OPTIONS] <COMMAND>

    Commands:
      run       Run the connectors until SIGTERM or SIGINT
      check     Look at everything that `run` needs, and name the remedy for what is missing
      snapshot  Read tables into their topics without a daemon, and end
      status    Show each connector's position, lag, slot and snapshot progress
      tail      Write a topic's records as JSON lines
      schema    Show the Avro schemas that tables get
      backfill  Have the running daemon read tables again
      migrate   Create or upgrade the schema in the source where backfills are asked for
      teardown  Drop a connector's slot and publication, and forget its position
      help      Print this message or the help of the given subcommand(s)

    Options:
          --config <FILE>
              The configuration

              [env: TABLECAST_CONFIG=]
              [default: connectors.toml]

          --log-format <FORMAT>
              How log lines are written to stderr

              Possible values:
              - human: Compact, for people
              - json:  One JSON object a line, for programs

              [default: human]

          --log <FILTER>
              What is logged: a level, or targets like `info,tablecast::kafka=debug` [default: info;
              warn beside progress bars]

              [env: TABLECAST_LOG=]

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      tablecast check                            what stops `run`, and the SQL that mends it
      tablecast run                              all connectors of connectors.toml
      tablecast run --connector shop             one of them
      tablecast tail shop.public.users --view    the table, rebuilt from its topic

    Exit status:
      0  done
      1  failed at work
      2  the call or the configuration is wrong
      3  `check` found something that stops `run`

    Settings are explained in docs/configuration.md.
    --- stderr
    ");
    for command in ["run", "check", "status", "tail", "schema", "backfill", "migrate", "teardown"] {
        let help = run("", &[command, "--help"]);
        assert!(help.starts_with("status 0\n") && help.contains("\nExamples:\n"), "{help}");
    }
}
