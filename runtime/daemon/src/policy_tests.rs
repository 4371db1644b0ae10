//! `repomind-run test`: the tests that the policy files carry, each with its time.
//!
//! They run in a caged child, as at every save, on the facts of a deployment
//! whose regions are all just starting. Exit code 0 when all hold and the tree
//! would be taken, 1 when not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use model::question::{Answer, Question, TestFailure, TestReport, TestRun};
use model::{Finding, Micros, Millis};

use crate::args::{FINDING, TestArgs};
use crate::deploy::BadConfiguration;

/// Wall-clock time for all tests of a tree.
const LIMIT: Millis = Millis(60_000);

/// Runs the tests.
///
/// # Errors
/// Where the tree cannot be read, the policy host cannot be started, or a report cannot be written.
pub async fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let regions = config::load(&args.tree).map_err(BadConfiguration)?;
    let tree = crate::start::watch::read_tree(&args.tree).map_err(BadConfiguration)?;
    let host = crate::aside::host(LIMIT, LIMIT)?;
    let facts = crate::aside::facts(&regions);
    let answer = host.ask_once(Question::Test { tree, facts }, LIMIT).await;
    host.shutdown();
    let report = match answer {
        Ok(Answer::Tested(report)) => *report,
        Ok(Answer::Refused(findings)) => TestReport { findings, ..TestReport::default() },
        Ok(_) => bail!("the policy host gave another answer than asked for"),
        Err(error) => TestReport { findings: vec![error.finding()], ..TestReport::default() },
    };
    if let Some(file) = &args.junit {
        write(file, &junit(&report))?;
    }
    let report = TestReport { tests: chosen(report.tests, args.only.as_deref()), ..report };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&json(&report))?);
    } else {
        print!("{}", text(&report, std::io::stdout().is_terminal()));
    }
    let good = report.findings.is_empty() && failures(&report) == 0;
    if good && report.tests.is_empty() {
        bail!("no test has {:?} in its file, module or sentence", args.only.as_deref().unwrap_or(""));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

/// The tests that have `word` in their file, module or sentence.
fn chosen(tests: Vec<TestRun>, word: Option<&str>) -> Vec<TestRun> {
    let Some(word) = word else { return tests };
    let has = |test: &TestRun| [&test.file, &test.module, &test.sentence].iter().any(|text| text.contains(word));
    tests.into_iter().filter(has).collect()
}

fn failures(report: &TestReport) -> usize {
    report.tests.iter().filter(|test| test.failure.is_some()).count()
}

fn total(tests: &[TestRun]) -> Micros {
    Micros(tests.iter().map(|test| test.took.0).sum())
}

/// The report for a person.
fn text(report: &TestReport, colour: bool) -> String {
    let mut text = String::new();
    let mut file = "";
    for test in &report.tests {
        if test.file != file {
            file = &test.file;
            let _ = writeln!(text, "{file}");
        }
        let (mark, shade) = if test.failure.is_some() { ("FAILED", "31") } else { ("ok", "32") };
        let mark = format!("{mark:<6}");
        let mark = if colour { format!("\u{1b}[{shade}m{mark}\u{1b}[0m") } else { mark };
        let _ = writeln!(text, "  {mark} {:>9.3} ms  {}", test.took.as_millis_f64(), test.sentence);
        if let Some(TestFailure { expected, actual }) = &test.failure {
            let _ = writeln!(text, "         at {file}:{}", test.line);
            let _ = writeln!(text, "         expected {expected}\n         found    {actual}");
        }
    }
    for finding in report.findings.iter().chain(&report.warnings) {
        let _ = writeln!(text, "\n{}", finding.render(colour));
    }
    let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in &report.unreached {
        by_file.entry(&one.file).or_default().push(format!("{} (line {})", one.name, one.line));
    }
    if !by_file.is_empty() {
        let _ = writeln!(text, "\nno test reaches:");
    }
    for (file, names) in by_file {
        let _ = writeln!(text, "  {file}: {}", names.join(", "));
    }
    let files = report.tests.iter().map(|test| &test.file).collect::<std::collections::BTreeSet<_>>().len();
    let _ = writeln!(
        text,
        "\n{} tests in {files} files, {} failed, {} other finding(s), {:.1} ms",
        report.tests.len(),
        failures(report),
        report.findings.len(),
        total(&report.tests).as_millis_f64()
    );
    text
}

fn json(report: &TestReport) -> serde_json::Value {
    serde_json::json!({
        "good": report.findings.is_empty() && failures(report) == 0,
        "failed": failures(report),
        "tests": report.tests.iter().map(|test| serde_json::json!({
            "file": test.file, "module": test.module, "sentence": test.sentence, "line": test.line,
            "took_us": test.took.0, "failure": test.failure,
        })).collect::<Vec<_>>(),
        "findings": report.findings,
        "warnings": report.warnings,
        "unreached": report.unreached,
    })
}

/// The report as JUnit XML, a suite a file. What would refuse the tree apart from tests is a failed case of its own.
fn junit(report: &TestReport) -> String {
    let mut suites: BTreeMap<&str, (Vec<&TestRun>, Vec<&Finding>)> = BTreeMap::new();
    for test in &report.tests {
        suites.entry(&test.file).or_default().0.push(test);
    }
    for finding in &report.findings {
        let file = if finding.file.is_empty() { "the policy host" } else { finding.file.as_str() };
        suites.entry(file).or_default().1.push(finding);
    }
    let seconds = |time: Micros| format!("{:.6}", time.0 as f64 / 1e6);
    let counts = |tests: usize, failed: usize, errors: usize| {
        format!("tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\" skipped=\"0\"", tests + errors)
    };
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all = counts(report.tests.len(), failures(report), report.findings.len());
    let _ = writeln!(out, "<testsuites name=\"policies\" {all} time=\"{}\">", seconds(total(&report.tests)));
    for (file, (tests, findings)) in suites {
        let failed = tests.iter().filter(|test| test.failure.is_some()).count();
        let time = seconds(Micros(tests.iter().map(|test| test.took.0).sum()));
        let numbers = counts(tests.len(), failed, findings.len());
        let _ = writeln!(out, "  <testsuite name=\"{}\" {numbers} time=\"{time}\">", escaped(file));
        for test in tests {
            let class = if test.module.is_empty() { file } else { &test.module };
            let head = format!(
                "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\" time=\"{}\"",
                escaped(class),
                escaped(&test.sentence),
                escaped(file),
                test.line,
                seconds(test.took)
            );
            let _ = match &test.failure {
                None => writeln!(out, "{head}/>"),
                Some(TestFailure { expected, actual }) => writeln!(
                    out,
                    "{head}>\n      <failure message=\"{}\"/>\n    </testcase>",
                    escaped(&format!("expected {expected}, found {actual}"))
                ),
            };
        }
        for finding in findings {
            let _ = writeln!(
                out,
                "    <testcase classname=\"{}\" name=\"loads\" time=\"0\">\n      <error message=\"{}\"/>\n    </testcase>",
                escaped(file),
                escaped(&finding.to_string())
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text as it may stand in an attribute of XML 1.0, which has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> TestReport {
        let test = |sentence: &str, failure| TestRun {
            file: "compliance/data-residency.scm".into(),
            module: "data-residency".into(),
            sentence: sentence.into(),
            line: 7,
            took: Micros(1500),
            failure,
        };
        let failure = TestFailure { expected: "(deny <\"x\">)".into(), actual: "#true\u{1}".into() };
        TestReport {
            tests: vec![test("health data stays", None), test("so does \"the rest\"", Some(failure))],
            findings: vec![Finding::error("", "", (0, 0), "the policy host died", "")],
            ..TestReport::default()
        }
    }

    #[test]
    fn a_test_that_failed_is_shown_with_what_was_expected_and_what_came() {
        let text = text(&report(), false);
        assert!(text.contains("  ok         1.500 ms  health data stays\n"), "{text}");
        assert!(text.contains("  FAILED     1.500 ms  so does \"the rest\"\n"), "{text}");
        assert!(text.contains("at compliance/data-residency.scm:7"), "{text}");
        assert!(text.contains("expected (deny <\"x\">)\n         found    #true"), "{text}");
        assert!(text.contains("2 tests in 1 files, 1 failed, 1 other finding(s), 3.0 ms"), "{text}");
    }

    #[test]
    fn a_build_server_counts_every_failure_and_can_read_the_file() {
        let xml = junit(&report());
        assert!(xml.contains("<testsuites name=\"policies\" tests=\"3\" failures=\"1\" errors=\"1\""), "{xml}");
        assert!(xml.contains("name=\"so does &quot;the rest&quot;\""), "{xml}");
        assert!(xml.contains("expected (deny &lt;&quot;x&quot;&gt;), found #true\u{fffd}"), "{xml}");
        assert!(xml.contains("<error message=\": the policy host died\"/>"), "{xml}");
        assert_eq!(xml.matches("<testcase").count(), 3);
    }

    #[test]
    fn tests_are_chosen_by_a_word_of_their_file_module_or_sentence() {
        assert_eq!(chosen(report().tests, Some("health")).len(), 1);
        assert_eq!(chosen(report().tests, Some("residency")).len(), 2);
        assert!(chosen(report().tests, Some("dns")).is_empty());
    }
}
