//! The resources that the gateway answers for itself: one table for the router, the methods that it refuses and the
//! document that describes them ([`super::openapi`]).

use http::{Method, StatusCode};

use crate::problem::Problem;

/// A resource, or a family of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// What it is called in logs and metrics; several may share a name.
    pub(super) name: &'static str,
    /// Its path. Only the last variable takes slashes.
    pub(super) path: &'static str,
    /// Its methods, as `Allow` lists them.
    pub(super) methods: &'static str,
}

const fn route(name: &'static str, path: &'static str, methods: &'static str) -> Route {
    Route { name, path, methods }
}

/// All of them; the first that fits is meant.
pub(super) const ROUTES: &[Route] = &[
    route("openapi", "/openapi.json", "GET, HEAD"),
    route("batch", "/v1/batch", "POST"),
    route("data", "/v1/data/{namespace}", "GET"),
    route("data", "/v1/data/{namespace}/{key}", "DELETE, GET, HEAD, PUT"),
    route("watch", "/v1/watch/{namespace}", "GET"),
    route("subjects", "/v1/subjects/{subject}", "GET"),
    route("subjects", "/v1/subjects/{subject}/erase", "POST"),
    route("subjects", "/v1/subjects/{subject}/export", "GET, POST"),
    route("subjects", "/v1/subjects/{subject}/holds/{name}", "DELETE, PUT"),
];

impl Route {
    /// The part before the first variable: whatever lies below belongs to this family.
    fn family(&self) -> &'static str {
        self.path.split_once("/{").map_or(self.path, |(before, _)| before)
    }

    fn fits(&self, path: &str) -> bool {
        let (mut wanted, mut given) = (self.path.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some("{key}"), Some(part)) => return !part.is_empty() || given.next().is_some(),
                (Some(variable), Some(_)) if variable.starts_with('{') => {}
                (Some(word), Some(part)) if word == part => {}
                _ => return false,
            }
        }
    }
}

/// What a path is called, where it is one of ours.
pub(super) fn name_of(path: &str) -> Option<&'static str> {
    let below = |route: &&Route| {
        let rest = path.strip_prefix(route.family());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') && route.family() != route.path)
    };
    ROUTES.iter().find(below).map(|route| route.name)
}

/// Refuses a method that a resource does not have, and names those that it has.
pub(super) fn has_method(path: &str, method: &Method) -> Result<(), Problem> {
    // A page of a namespace may be asked for with a slash behind it.
    let Some(route) = ROUTES.iter().find(|route| route.fits(path) || route.fits(path.trim_end_matches('/'))) else {
        return Ok(());
    };
    match route.methods.split(", ").any(|known| known == method.as_str()) {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", format!("use {}", route.methods))
            .allow(route.methods)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_resource_and_what_it_has_not_is_refused_by_its_own_methods() {
        for (path, name) in [
            ("/v1/data", Some("data")),
            ("/v1/data/notes/a/b", Some("data")),
            ("/v1/database", None),
            ("/v1/batch", Some("batch")),
            ("/v1/batch/x", None),
            ("/v1/watch/notes", Some("watch")),
            ("/v1/subjects/s/holds/h", Some("subjects")),
            ("/openapi.json", Some("openapi")),
            ("/openapi.json.bak", None),
            ("/", None),
        ] {
            assert_eq!(name_of(path), name, "{path}");
        }
        let refused = |path: &str, method: Method| has_method(path, &method).err().map(|problem| problem.json());
        assert!(refused("/v1/data/notes/a/b", Method::PUT).is_none());
        assert_eq!(refused("/v1/data/notes", Method::PUT).unwrap()["detail"], "use GET");
        assert_eq!(refused("/v1/data/notes/", Method::PUT).unwrap()["detail"], "use GET");
        assert_eq!(refused("/v1/data/notes/k", Method::POST).unwrap()["detail"], "use DELETE, GET, HEAD, PUT");
        assert_eq!(refused("/v1/subjects/s/erase", Method::GET).unwrap()["detail"], "use POST");
        assert!(refused("/elsewhere", Method::PATCH).is_none());
    }
}
