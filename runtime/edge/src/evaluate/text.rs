//! Small readings of header and query text that all backends have in common, each simple enough for a regular
//! expression of VCL.

/// The value with `%` and space escaped.
pub fn escaped(value: &str) -> String {
    value.replace('%', "%25").replace(' ', "%20")
}

/// The parameters of a query without those named, sorted bytewise; empty ones are dropped.
pub fn sorted(query: &str, except: &[String]) -> String {
    let named = |part: &&str| {
        let name = part.split_once('=').map_or(*part, |(name, _)| name);
        !except.iter().any(|other| other == name)
    };
    let mut parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).filter(named).collect();
    parts.sort_unstable();
    parts.join("&")
}

/// The first parameter of each name, in the order of the names, as `name=value`.
pub fn only(query: &str, names: &[String]) -> String {
    let mut found = Vec::new();
    for name in names {
        let value = query.split('&').find_map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (key == name).then_some(value)
        });
        found.extend(value.map(|value| format!("{name}={value}")));
    }
    found.join("&")
}

/// The first of `values` that the header accepts: it names it, or a variant of it (`de-AT` for `de`), in any place of
/// its list and not with `q=0`. The first of all where it accepts none.
pub fn normalised<'v>(header: &str, values: &'v [String]) -> &'v str {
    let accepts = |value: &str| {
        header.split(',').any(|entry| {
            let (name, parameters) = entry.split_once(';').unwrap_or((entry, ""));
            let name = name.trim().to_ascii_lowercase();
            let variant = name.strip_prefix(value).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            variant && !is_refused(parameters)
        })
    };
    values.iter().find(|value| accepts(value)).or(values.first()).map_or("", String::as_str)
}

/// Whether the parameters of an entry begin with `q=0`, `q=0.0` and so on.
fn is_refused(parameters: &str) -> bool {
    let first = parameters.split(';').next().unwrap_or("").trim();
    let Some(quality) = first.strip_prefix("q=").or_else(|| first.strip_prefix("Q=")) else { return false };
    let quality = quality.trim();
    quality == "0" || quality.strip_prefix("0.").is_some_and(|rest| rest.bytes().all(|digit| digit == b'0'))
}

/// The seconds of a directive such as `max-age=60` in a header of the form of `Cache-Control`, or whether it is there
/// at all: `Some(None)` for a directive without a whole number.
pub fn directive(header: &str, name: &str) -> Option<Option<u64>> {
    header.split(',').find_map(|entry| {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        let value = value.trim().trim_matches('"');
        let is_number = !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit());
        // A number beyond all bounds is still one (RFC 9111, section 1.2.2).
        key.trim().eq_ignore_ascii_case(name).then(|| is_number.then(|| value.parse().unwrap_or(u64::MAX)))
    })
}

/// The words of a list with commas, trimmed, in lower case, without empty ones.
pub fn words(list: &str) -> Vec<String> {
    list.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_order_of_parameters_makes_no_second_entry() {
        assert_eq!(sorted("b=2&a=1&&c", &[]), "a=1&b=2&c");
        assert_eq!(sorted("utm_source=x&a=1", &names(&["utm_source"])), "a=1");
        assert_eq!(only("z=9&a=1&a=2&b", &names(&["b", "a", "q"])), "b=&a=1");
    }

    #[test]
    fn a_language_is_one_of_few_however_it_is_asked_for() {
        let known = names(&["en", "de"]);
        assert_eq!(normalised("de-AT,de;q=0.9", &known), "de");
        assert_eq!(normalised("fr, de;q=0.5, en;q=0.1", &known), "en");
        assert_eq!(normalised("en;q=0.0, de", &known), "de");
        assert_eq!(normalised("fr", &known), "en");
        assert_eq!(normalised("", &known), "en");
        assert_eq!(normalised("english", &known), "en");
        assert_eq!(normalised("den", &names(&["en", "de"])), "en");
    }

    #[test]
    fn directives_are_read_in_any_case_and_place() {
        assert_eq!(directive("public, Max-Age=60", "max-age"), Some(Some(60)));
        assert_eq!(directive("no-store", "no-store"), Some(None));
        assert_eq!(directive("s-maxage=\"5\"", "s-maxage"), Some(Some(5)));
        assert_eq!(directive("x-max-age=60", "max-age"), None);
    }
}
