//! What was defined at earlier prompts of a session.

/// The most bytes of definitions that go with each input.
const LARGEST: usize = 64 << 10;
/// The words with which a form begins that defines something.
const DEFINES: &[&str] = &["(define", "(struct", "(require"];

/// Definitions in the order in which they were typed; a later one of the same name takes the place of an earlier one.
#[derive(Debug, Default)]
pub struct Definitions(Vec<String>);

impl Definitions {
    /// The forms to evaluate before the next input.
    pub fn forms(&self) -> Vec<String> {
        self.0.clone()
    }

    /// Keeps what an input defined. Says whether there was room for all of it.
    pub fn add(&mut self, source: &str) -> bool {
        for form in forms(source).into_iter().filter(|form| DEFINES.iter().any(|word| form.starts_with(word))) {
            self.0.retain(|earlier| head(earlier) != head(form));
            self.0.push(form.to_owned());
        }
        let mut fits = true;
        while self.0.iter().map(String::len).sum::<usize>() > LARGEST {
            self.0.remove(0);
            fits = false;
        }
        fits
    }
}

/// The first two words of a form: what defines, and what is defined.
fn head(form: &str) -> Vec<&str> {
    form.split(|c: char| c.is_whitespace() || "()[]".contains(c)).filter(|word| !word.is_empty()).take(2).collect()
}

/// The forms of a source that stand in no other, those in brackets alone.
fn forms(source: &str) -> Vec<&str> {
    let (mut found, mut begun, mut depth) = (Vec::new(), None, 0_u32);
    let (mut in_string, mut in_comment, mut escaped, mut quoted) = (false, false, false, false);
    for (at, c) in source.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\n' => in_comment = false,
            _ if in_comment => {}
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            ';' => in_comment = true,
            '(' | '[' => {
                if depth == 0 && !quoted {
                    begun = Some(at);
                }
                depth += 1;
            }
            ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    found.extend(begun.take().and_then(|from| source.get(from..at + 1)));
                }
            }
            _ => {}
        }
        // A form behind a quote is data.
        quoted = "'`,#".contains(c) || (quoted && c.is_whitespace());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_defined_is_kept_in_order_and_what_was_only_asked_is_not() {
        let mut defined = Definitions::default();
        assert!(defined.add("(define a 1) (+ a \"(define no 1)\") ; (define no 2)\n'(define no 3)"));
        assert!(defined.add("(define (f x)\n  (define inner #\\) )\n  (* a x))"));
        assert!(defined.add("(define a 2)"));
        assert_eq!(defined.forms(), ["(define (f x)\n  (define inner #\\) )\n  (* a x))", "(define a 2)"]);
    }

    #[test]
    fn no_session_grows_without_end() {
        let mut defined = Definitions::default();
        let large = |name: &str| format!("(define {name} \"{}\")", "x".repeat(LARGEST / 2));
        assert!(defined.add(&large("a")));
        assert!(!defined.add(&large("b")));
        assert_eq!(defined.forms(), [large("b")]);
    }
}
