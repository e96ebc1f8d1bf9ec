//! A program's route table: its rows, and looking a request up in it.

use std::fmt;

use hyper::Method;

use super::app::{Found, Matched, Takes};
use super::query::Param;

/// One row: `G` says who may call it, `E` what it does.
#[derive(Debug)]
pub struct Route<G, E> {
    /// The method.
    pub method: Method,
    /// The path; a segment in braces stands for one name.
    pub path: &'static str,
    /// Who may call it.
    pub guard: G,
    /// What it does.
    pub endpoint: E,
    /// One line about it.
    pub summary: &'static str,
    /// Query parameters it takes.
    pub params: &'static [Param],
}

/// The rows, and what a program says of all of them.
pub struct Table<G: 'static, E: 'static> {
    /// Every route there is.
    pub routes: &'static [Route<G, E>],
    /// What may stand for a name in a path.
    pub is_name: fn(&str) -> bool,
    /// Whether a route changes something.
    pub changes: fn(&Route<G, E>) -> bool,
    /// What body a route takes.
    pub takes: fn(&Route<G, E>) -> Takes,
}

/// Rows, each as `METHOD "path" Guard Endpoint [PARAMETERS] "One line about it.";`. One without a guard does not compile.
macro_rules! routes {
    ($guard:ident, $endpoint:ident; $(
        $method:ident $path:literal $g:ident $e:ident [$($param:expr),*] $summary:literal;
    )*) => {
        &[$($crate::http::route::Route {
            method: hyper::Method::$method,
            path: $path,
            guard: $guard::$g,
            endpoint: $endpoint::$e,
            summary: $summary,
            params: &[$($param),*],
        }),*]
    };
}
pub(crate) use routes;

impl<G, E> Route<G, E> {
    /// What stands in `path` for the name in this route's; empty where it has none. `None` if it is another path.
    fn name_in<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((start, rest)) = self.path.split_once('{') else { return (self.path == path).then_some("") };
        let end = rest.split_once('}').map_or("", |(_, end)| end);
        path.strip_prefix(start)?.strip_suffix(end).filter(|name| !name.is_empty())
    }
}

impl<G, E> Table<G, E> {
    /// Looks a request up. HEAD counts as GET.
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let mut others = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            let name = route.name_in(path).filter(|name| name.is_empty() || (self.is_name)(name));
            let Some(name) = name else { continue };
            if route.method == *method {
                let (changes, body) = ((self.changes)(route), (self.takes)(route));
                return Found::Route(Matched { index, path: route.path, name: name.to_owned(), changes, body });
            }
            others.push(route.method.as_str());
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    }
}

impl<G, E> fmt::Debug for Table<G, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| (&route.method, route.path))).finish()
    }
}
