//! Pages for people. They load nothing from elsewhere, so they work without the internet.

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use axum::response::{Html, IntoResponse as _, Response};

/// What a page may do: run its own script, and talk to this server.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Returns a page of this program.
pub(crate) fn page(text: &'static str) -> Response {
    let mut response = Html(text).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Returns the description of the API, with a form to try each operation.
pub(super) async fn docs() -> Response {
    page(include_str!("pages/docs.html"))
}

/// Returns the description of the API, to read.
pub(super) async fn redoc() -> Response {
    page(include_str!("pages/redoc.html"))
}

/// Returns the dashboard.
pub(super) async fn dashboard() -> Response {
    page(include_str!("pages/dashboard.html"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_page_loads_anything_from_elsewhere() {
        let pages = [
            include_str!("pages/docs.html"),
            include_str!("pages/redoc.html"),
            include_str!("pages/dashboard.html"),
            include_str!("../../cluster/http/dashboard.html"),
        ];
        for page in pages {
            for source in ["http://", "https://", "src=", "@import", "url(", "<link"] {
                assert!(!page.contains(source), "{source}");
            }
            assert!(page.is_ascii());
        }
    }
}
