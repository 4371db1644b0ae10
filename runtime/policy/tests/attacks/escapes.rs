//! Policies that reach for files, programs, sockets, threads and other engines.

use crate::arena::{Child, FILE, Outcome, load};
use crate::support;

/// What the scan refuses by name: the form, and the name in it.
const FORBIDDEN: &[(&str, &str)] = &[
    ("(command \"id\" '())", "command"),
    ("(spawn-process (command \"id\" '()))", "spawn-process"),
    ("(env-var \"PATH\")", "env-var"),
    ("(maybe-get-env-var \"PATH\")", "maybe-get-env-var"),
    ("(set-env-var! \"PATH\" \"/\")", "set-env-var!"),
    ("(eval '(+ 1 2))", "eval"),
    ("(map eval '(1 2))", "eval"),
    ("(eval-string \"(+ 1 2)\")", "eval-string"),
    ("(load \"/tmp/x.scm\")", "load"),
    ("(require-builtin steel/process)", "require-builtin"),
    ("(%module-get% %-builtin-module-steel/process 'command)", "%module-get%"),
    ("(#%gc-collect)", "#%gc-collect"),
    ("(spawn-native-thread (lambda () 1))", "spawn-native-thread"),
    ("(Engine::new)", "Engine::new"),
    ("(open-input-file \"/etc/passwd\")", "open-input-file"),
    ("(open-output-file \"/tmp/x\")", "open-output-file"),
    ("(delete-file! \"/tmp/x\")", "delete-file!"),
    ("(read-dir \"/\")", "read-dir"),
    ("(path-exists? \"/etc\")", "path-exists?"),
    ("(current-directory)", "current-directory"),
    ("(tcp-connect \"127.0.0.1:80\")", "tcp-connect"),
    ("(tcp-listen \"127.0.0.1:0\")", "tcp-listen"),
    ("(time/sleep-ms 100000)", "time/sleep-ms"),
    ("(current-milliseconds)", "current-milliseconds"),
    ("(instant/now)", "instant/now"),
    ("(define-syntax m (syntax-rules () [(_) (command \"id\" '())]))", "command"),
    ("(define-syntax m (syntax-rules () [(_ f) (f \"id\" '())]))\n(m command)", "command"),
];

#[test]
fn a_name_that_reaches_outside_is_refused_with_its_place() {
    for &(form, name) in FORBIDDEN {
        let lines = support::tree().0[FILE].lines().count();
        let findings = match load(Child::Scanned, form) {
            Outcome::Refused(findings) => findings,
            other => panic!("{form}: {other:?}"),
        };
        let finding = findings.iter().find(|finding| finding.message.contains(&format!("`{name}`")));
        let finding = finding.unwrap_or_else(|| panic!("{form}: {findings:?}"));
        assert_eq!(finding.file, FILE);
        let before = form.find(name).expect("the name stands in the form");
        let line = lines + 1 + form[..before].matches('\n').count();
        let column = form[..before].rsplit('\n').next().unwrap_or("").chars().count() + 1;
        assert_eq!((finding.line as usize, finding.column as usize), (line, column), "{form}");
        assert!(!finding.help.is_empty());
    }
}

#[test]
fn a_module_outside_the_library_cannot_be_required() {
    for form in [
        "(require \"/etc/passwd\")",
        "(require \"../../etc/passwd\")",
        "(require \"steel/sync\")",
        "(require (prefix-in x. \"/tmp/x.scm\"))",
    ] {
        let finding = load(Child::Scanned, form).finding();
        assert_eq!(finding.file, FILE);
        assert!(finding.line > 50 && finding.message.starts_with("there is no module"), "{finding}");
    }
}

/// What becomes of a form that the scan would have refused.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The interpreter says no, or has no such thing: the finding names the file.
    Refused,
    /// The child dies of it, of a call that the cage denies or of a panic; the finding names the file.
    Dies,
    /// It runs, and cannot do harm in the cage.
    Harmless,
}

/// Forms that reach outside, unscanned: what the cage alone makes of them.
const CAGED: &[(&str, End)] = &[
    ("(spawn-process (command \"/bin/true\" '()))", End::Dies),
    ("(open-input-file \"/etc/passwd\")", End::Refused),
    ("(open-output-file \"/tmp/repomind-escape\")", End::Refused),
    ("(delete-file! \"/tmp/repomind-escape\")", End::Refused),
    ("(read-dir \"/\")", End::Refused),
    ("(load \"/etc/passwd\")", End::Dies),
    ("(require-builtin steel/tcp) (tcp-connect \"127.0.0.1:9\")", End::Refused),
    ("(require-builtin steel/tcp) (tcp-listen \"127.0.0.1:0\")", End::Refused),
    ("(spawn-native-thread (lambda () 1))", End::Dies),
    ("(time/sleep-ms 100000)", End::Refused),
    ("(%module-get% %-builtin-module-steel/process 'no-such-name)", End::Dies),
    ("(env-var \"PATH\")", End::Refused),
    ("(eval '(open-input-file \"/etc/passwd\"))", End::Refused),
    ("(eval '(+ 1 2))", End::Harmless),
    ("(Engine::new)", End::Dies),
];

#[test]
fn what_hides_from_the_scan_is_stopped_by_the_cage() {
    let mut wrong = Vec::new();
    for &(form, expected) in CAGED {
        let (found, told) = match load(Child::Unscanned, form) {
            Outcome::Answered(answer) => (End::Harmless, format!("{answer:?}")),
            Outcome::Refused(findings) => {
                assert!(findings.iter().all(|finding| finding.file == FILE), "{form}: {findings:?}");
                let dies = findings.iter().any(|finding| finding.message.starts_with("the policy host died"));
                (if dies { End::Dies } else { End::Refused }, support::drawn(&findings))
            }
            Outcome::Lost(error) => panic!("{form}: {error}"),
        };
        if found != expected {
            wrong.push(format!("{form}: {found:?}, not {expected:?}\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(!std::path::Path::new("/tmp/repomind-escape").exists());
}
