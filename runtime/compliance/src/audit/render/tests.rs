use serde_json::Value;

use super::*;
use crate::audit::Check;
use crate::audit::tests_support::{broken, honest, part};

#[test]
fn no_form_claims_that_a_law_is_complied_with_or_hides_what_was_not_checked() {
    for report in [honest(), broken(), part()] {
        for form in [text(&report), html(&report), json(&report), junit(&report), sarif(&report)] {
            let lower = form.to_lowercase();
            assert!(!lower.contains("compliant") && !lower.contains("gdpr"), "{form}");
            assert!(form.contains("ERA-04"), "a check that is not performed must be named");
            if report.outcome != Outcome::Pass {
                assert!(!lower.contains("verified against") && !form.contains("PASS"), "{form}");
            }
        }
        let by = "against encoded rules, revision 7 (tree";
        assert!(text(&report).contains(by) && html(&report).contains(by), "{}", text(&report));
        assert!(html(&report).contains("date 2026-01-01T00:01:40Z"));
    }
    assert!(html(&honest()).contains("Verified against encoded rules, revision 7"));
    assert!(text(&part()).contains("not run in us-east: the region was not reached"));
    assert!(html(&part()).contains("RES-01 did not run in us-east"));
}

#[test]
fn every_form_says_that_data_was_made_up_and_none_says_so_of_real_data() {
    let (real, made_up) = (honest(), Report { synthetic: true, ..honest() });
    let forms = |report: &Report| [text(report), html(report), junit(report), sarif(report), json(report)];
    for (form, real) in forms(&made_up).into_iter().zip(forms(&real)) {
        let says = |form: &str| {
            form.contains("made up")
                || form.contains("\"synthetic\":true")
                || form.contains("name=\"synthetic\" value=\"true\"")
        };
        assert!(says(&form), "{form}");
        assert!(!says(&real), "{real}");
    }
    assert_eq!(serde_json::from_str::<Value>(&json(&made_up)).unwrap()["synthetic"], true);
}

#[test]
fn json_is_the_same_bytes_for_the_same_report_and_sorted() {
    let form = json(&broken());
    assert_eq!(form, json(&broken()));
    let value: Value = serde_json::from_str(&form).unwrap();
    assert_eq!(value["outcome"], "violations");
    assert_eq!(value["findings"][0]["check"], "RES-01");
    assert!(form.starts_with("{\"at\":1767225700000,\"checks\":[{\"check\":\"RES-01\",\"examined\":"), "{form}");
    assert!(!form.contains("\n") && !form.contains(": "), "white space outside of text");
}

#[test]
fn junit_counts_what_it_shows_and_skips_what_did_not_run() {
    for (report, failures) in [(honest(), 0), (broken(), 3), (part(), 0)] {
        let form = junit(&report);
        let count = |tag: &str| form.matches(tag).count();
        let head = form.lines().nth(1).unwrap();
        assert_eq!(count("<failure"), failures);
        assert!(head.contains(&format!("failures=\"{failures}\"")), "{head}");
        assert!(head.contains(&format!("tests=\"{}\"", count("<testcase"))), "{head}");
        assert!(head.contains(&format!("skipped=\"{}\"", count("<skipped"))), "{head}");
        assert_eq!(count("<testcase"), count("</testcase>"));
    }
    assert_eq!(junit(&part()).matches("<skipped").count(), Check::ALL.len() + crate::audit::NOT_PERFORMED.len());
}

#[test]
fn sarif_names_a_rule_and_a_place_for_every_result() {
    let log: Value = serde_json::from_str(&sarif(&broken())).unwrap();
    let run = &log["runs"][0];
    assert_eq!((log["version"].as_str(), run["invocations"][0]["exitCode"].as_u64()), (Some("2.1.0"), Some(1)));
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!((rules.len(), results.len()), (Check::ALL.len(), 4));
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(
            result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
                .as_str()
                .unwrap()
                .starts_with("us-east")
        );
        assert_eq!(result["level"], "error");
    }
    let log: Value = serde_json::from_str(&sarif(&part())).unwrap();
    let invocation = &log["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    assert_eq!(
        invocation["toolExecutionNotifications"].as_array().unwrap().iter().filter(|n| n["level"] == "error").count(),
        Check::ALL.len()
    );
}

#[test]
fn text_from_elsewhere_cannot_break_out_of_a_page() {
    let mut report = broken();
    report.findings[0].rule = "</td><script>alert(1)</script>\u{1}".into();
    report.regions[0].unreached = Some("\"><img src=x>".into());
    for form in [html(&report), junit(&report)] {
        assert!(!form.contains("<script") && !form.contains("<img") && !form.contains('\u{1}'), "{form}");
    }
    let form = html(&report);
    assert!(
        !form.contains("src=\"") && !form.contains("href") && !form.contains("@import"),
        "the page loads something"
    );
}
