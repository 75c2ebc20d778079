//! A minimal writer of SVG, readable on a white and on a dark page.
//!
//! The colours are of medium lightness, and there is no background. Viewers that know the reader's
//! preference show text in more contrast.

use std::fmt::Write;

/// Colour of bitcask, and of the other stores.
pub(super) const OURS: &str = "#e8590c";
pub(super) const OURS_UNCHECKED: &str = "#f0a070";
pub(super) const PEER: &str = "#6b93bd";
pub(super) const LINE: &str = "#8b949e";

const STYLE: &str = "\
text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#7d8590}\
.title{font-size:13px;font-weight:600}\
.head{font-size:16px;font-weight:600}\
.small{font-size:11px;font-weight:400}\
@media(prefers-color-scheme:light){text{fill:#57606a}.title,.head,.value{fill:#24292f}}\
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title,.head,.value{fill:#e6edf3}}";

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing. All measures are pixels.
pub(super) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { body: String::new(), width, height }
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#
        )
        .unwrap();
    }

    /// Writes a title, and something less important behind it.
    pub(super) fn title(&mut self, (x, y): (f64, f64), title: &str, unit: &str) {
        writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" class="title">{title}"#).unwrap();
        writeln!(self.body, r#"<tspan class="small" dx="4">{unit}</tspan></text>"#).unwrap();
    }

    pub(super) fn bar(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: &str) {
        let place = format!(r#"x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#);
        writeln!(self.body, r#"<rect {place} rx="2" fill="{colour}"/>"#).unwrap();
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), colour: &str) {
        writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}"/>"#)
            .unwrap();
    }

    pub(super) fn line(&mut self, points: &[(f64, f64)], colour: &str, width: f64, opacity: f64) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        let stroke = format!(r#"stroke="{colour}" stroke-width="{width}" opacity="{opacity}""#);
        writeln!(self.body, r#"<polyline points="{points}" fill="none" {stroke}/>"#).unwrap();
    }

    pub(super) fn finish(self) -> String {
        let Self { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
        )
    }
}
