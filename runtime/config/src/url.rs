//! Checks the URLs of a region's services, without resolving anything.

/// Checks a base URL of `http` or `https` and takes its final slash off.
pub(crate) fn api(text: &str) -> Result<String, String> {
    let rest = after_scheme(text, &["https", "http"])?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    check_authority(authority)?;
    check_path(path)?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// Checks an object store's URL, `s3://bucket/prefix` or `file:///path`, and takes its final slash off.
pub(crate) fn storage(text: &str) -> Result<String, String> {
    let rest = after_scheme(text, &["s3", "file"])?;
    let path = if text.starts_with("file") {
        match rest.strip_prefix('/') {
            Some(path) if !path.is_empty() => path,
            _ => return Err("a file URL names an absolute path, with three slashes".to_owned()),
        }
    } else {
        let (bucket, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if bucket.is_empty() {
            return Err("the bucket is missing".to_owned());
        }
        let permitted = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if let Some(bad) = bucket.chars().find(|&c| !permitted(c)) {
            return Err(format!("{bad:?} cannot stand in a bucket's name"));
        }
        path
    };
    check_path(path)?;
    Ok(text.trim_end_matches('/').to_owned())
}

fn after_scheme<'a>(text: &'a str, schemes: &[&str]) -> Result<&'a str, String> {
    let wanted = || schemes.iter().map(|scheme| format!("`{scheme}://`")).collect::<Vec<_>>().join(" or ");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("it does not begin with {}", wanted()))?;
    if schemes.contains(&scheme) { Ok(rest) } else { Err(format!("its scheme is `{scheme}`, not {}", wanted())) }
}

fn check_authority(authority: &str) -> Result<(), String> {
    if authority.contains('@') {
        return Err("user names and passwords do not belong in it".to_owned());
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket of its IPv6 address is not closed")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("`{host}` is no IPv6 address"))?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(format!("`{after}` cannot follow its IPv6 address")),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (check_host(host)?, Some(port)),
            None => (check_host(authority)?, None),
        }
    };
    match port.map(|port| port.parse::<u16>().unwrap_or(0)) {
        Some(0) => Err(format!("the port after `{host}` is not 1 to 65535")),
        _ => Ok(()),
    }
}

fn check_host(host: &str) -> Result<&str, String> {
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    match host.chars().find(|&c| !(c.is_ascii_alphanumeric() || "-._".contains(c))) {
        Some(bad) => Err(format!("{bad:?} cannot stand in a host's name")),
        None if host.split('.').any(str::is_empty) => Err(format!("`{host}` has an empty part")),
        None => Ok(host),
    }
}

fn check_path(path: &str) -> Result<(), String> {
    match path.chars().find(|&c| c.is_whitespace() || c.is_control() || "?#\"<>\\".contains(c)) {
        Some('?') => Err("a base URL has no query".to_owned()),
        Some('#') => Err("a base URL has no fragment".to_owned()),
        Some(bad) => Err(format!("{bad:?} cannot stand in a URL")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_lose_only_their_final_slash() {
        assert_eq!(api("https://api.example.org/base/").unwrap(), "https://api.example.org/base");
        assert_eq!(api("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        assert_eq!(storage("s3://repomind-us-east").unwrap(), "s3://repomind-us-east");
        assert_eq!(storage("file:///var/objects/").unwrap(), "file:///var/objects");
    }

    #[test]
    fn bad_urls_are_refused() {
        for bad in ["", "api.example.org", "ftp://x", "https://", "https://a b", "https://u:p@h", "http://h:0"] {
            assert!(api(bad).is_err(), "{bad}");
        }
        for bad in ["http://h:70000", "http://[::1", "https://h/?q", "https://h?q", "https://h/#f", "https://a..b"] {
            assert!(api(bad).is_err(), "{bad}");
        }
        for bad in ["s3://", "s3:///x", "s3://Bucket", "file://x", "file:///", "https://x"] {
            assert!(storage(bad).is_err(), "{bad}");
        }
    }
}
