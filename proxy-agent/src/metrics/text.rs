//! The text format that Prometheus reads, version 0.0.4: the one that
//! kube-proxy answers with.

use std::fmt::{Display, Write as _};

use super::histogram::Histogram;

/// `Content-Type` of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family of samples is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Label names and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics as it is written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a family; its samples must follow before the next one begins.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.0,
            name,
        }
    }

    /// A family with one sample that has no labels.
    pub(super) fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        value: impl Display,
    ) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// The samples of one name.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    pub(super) fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        for (bound, count) in histogram.cumulative() {
            self.line("_bucket", labels, Some(bound), count);
        }
        self.line("_bucket", labels, Some(f64::INFINITY), histogram.count());
        self.line("_sum", labels, None, histogram.sum());
        self.line("_count", labels, None, histogram.count());
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<f64>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut mark = '{';
        for (name, value) in labels {
            let _ = write!(self.text, "{mark}{name}=\"");
            escape(self.text, value);
            self.text.push('"');
            mark = ',';
        }
        match le {
            Some(f64::INFINITY) => {
                let _ = write!(self.text, "{mark}le=\"+Inf\"}}");
            }
            Some(bound) => {
                let _ = write!(self.text, "{mark}le=\"{bound}\"}}");
            }
            None if mark == ',' => self.text.push('}'),
            None => {}
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_prometheus_reads() {
        let mut page = Page::default();
        page.single("up", Kind::Gauge, "Whether.", 1);
        page.family("asked_total", Kind::Counter, "Questions.")
            .sample(&[("who", "a\"b\\c\nd"), ("code", "200")], 7_u64);
        let mut histogram = Histogram::new(vec![0.5, 1.0]);
        histogram.observe(0.5);
        histogram.observe(0.7);
        histogram.observe(9.0);
        page.family("took_seconds", Kind::Histogram, "Time.")
            .histogram(&[("f", "v")], &histogram);
        page.family("waited_seconds", Kind::Histogram, "Time.")
            .histogram(&[], &Histogram::new(vec![0.5]));
        let expected = "\
# HELP up Whether.
# TYPE up gauge
up 1
# HELP asked_total Questions.
# TYPE asked_total counter
asked_total{who=\"a\\\"b\\\\c\\nd\",code=\"200\"} 7
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_bucket{f=\"v\",le=\"0.5\"} 1
took_seconds_bucket{f=\"v\",le=\"1\"} 2
took_seconds_bucket{f=\"v\",le=\"+Inf\"} 3
took_seconds_sum{f=\"v\"} 10.2
took_seconds_count{f=\"v\"} 3
# HELP waited_seconds Time.
# TYPE waited_seconds histogram
waited_seconds_bucket{le=\"0.5\"} 0
waited_seconds_bucket{le=\"+Inf\"} 0
waited_seconds_sum 0
waited_seconds_count 0
";
        assert_eq!(page.into_text(), expected);
    }
}
