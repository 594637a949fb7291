//! Drift reports as one page that needs nothing else: styles and plots are in it. Must not know where it is from.

use std::fmt::Write as _;

use serde_json::Value;

use super::page::{self, number, percent};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1c2733;background:#fff}\
h1{font-size:1.5em}.alarm{color:#b3261e;font-weight:600}.card{border:1px solid #d5dde5;border-radius:8px;padding:1em;\
margin:1em 0}table{border-collapse:collapse}td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #e4e9ee}\
td:first-child,th:first-child{text-align:left}.then{fill:#9db4c8}.now{fill:#d9822b}small{color:#5b6b7a}\
@media(prefers-color-scheme:dark){body{color:#e3e8ee;background:#12181f}.card{border-color:#33414f}\
td,th{border-color:#2a3541}.alarm{color:#ff8a80}}";
/// Size of a plot.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 120.0;

pub(super) fn page(reports: &[&Value]) -> String {
    let title = reports.first().map(|report| escape(&page::text(&report["model"]))).unwrap_or_default();
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Drift of {title}</title><style>{STYLE}</style>"
    );
    reports.iter().for_each(|report| one(&mut page, report));
    page.push_str("</html>\n");
    page
}

fn one(page: &mut String, report: &Value) {
    let text = |value: &Value| escape(&page::text(value));
    let (title, state) = (escape(&page::title(report)), text(&report["state"]));
    let _ = write!(
        page,
        "<h1>{title}: <span class={state}>{state}</span></h1>\
         <p>{} rows, {} of them in this window; baseline: {} ({} rows); {}. One false alarm in {} days over {} sources.</p>",
        report["rows"],
        report["window_rows"],
        text(&report["baseline"]),
        report["baseline_rows"],
        page::sampled(report),
        report["budget_days"],
        report["sources"]
    );
    if let Some(culprits) = report["alarm"]["culprits"].as_array() {
        let names: Vec<String> = culprits.iter().map(text).collect();
        let _ = write!(page, "<p class=alarm>Changed: {}</p>", names.join(", "));
    }
    if let Some(estimate) = report["estimate"].as_object() {
        let _ = write!(
            page,
            "<p>Accuracy as the scores have it: {} (baseline {}). <small>{}</small></p>",
            percent(&estimate["accuracy"]),
            percent(&estimate["baseline"]),
            text(&estimate["note"])
        );
    }
    if let Some(fed) = report["feedback"].as_object() {
        let _ = write!(
            page,
            "<p>Fed back: {} labels, accuracy {}, calibration error {}, Brier {}, absolute error {}.</p>",
            fed["labels"],
            percent(&fed["accuracy"]),
            percent(&fed["calibration_error"]),
            number(&fed["brier"]),
            number(&fed["absolute_error"])
        );
    }
    let mut features: Vec<&Value> = report["features"].as_array().into_iter().flatten().collect();
    let evidence = |feature: &Value| feature["log_e"].as_f64().unwrap_or(0.0);
    features.sort_by(|a, b| evidence(b).total_cmp(&evidence(a)));
    summary(page, &features);
    features.iter().for_each(|feature| card(page, feature));
}

fn summary(page: &mut String, features: &[&Value]) {
    page.push_str(
        "<table><tr><th>feature<th>side<th>kind<th>PSI<th>threshold<th>JS<th>TV<th>KS<th>W1/sd<th>evidence<th>of",
    );
    for feature in features {
        let class = if feature["alarm"] == true { " class=alarm" } else { "" };
        let name = |key: &str| escape(feature[key].as_str().unwrap_or("?"));
        let _ = write!(page, "<tr{class}><td>{}<td>{}<td>{}", name("name"), name("side"), name("kind"));
        for key in ["psi", "threshold", "js", "tv", "ks", "wasserstein"] {
            let _ = write!(page, "<td>{}", number(&feature[key]));
        }
        let figure = |key: &str| feature[key].as_f64().unwrap_or(f64::NAN);
        let _ = write!(page, "<td>{:.1}<td>{:.1}", figure("log_e"), figure("h"));
    }
    page.push_str("</table>");
}

fn card(page: &mut String, feature: &Value) {
    let list = |key: &str| -> Vec<f64> {
        feature[key].as_array().into_iter().flatten().map(|share| share.as_f64().unwrap_or(0.0)).collect()
    };
    let names: Vec<String> = feature["bins"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|bin| escape(bin.as_str().unwrap_or("")))
        .collect();
    let (then, now) = (list("reference"), list("current"));
    let class = if feature["alarm"] == true { " class=alarm" } else { "" };
    let name = escape(feature["name"].as_str().unwrap_or("?"));
    let _ = write!(
        page,
        "<div class=card><b{class}>{name}</b> <small>baseline (blue) and now (orange), by bin</small><br>"
    );
    let most = then.iter().chain(&now).copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = WIDTH / then.len().max(1) as f64;
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\" role=img>");
    for (index, bin) in names.iter().enumerate() {
        for (shares, class, side) in [(&then, "then", 0.05), (&now, "now", 0.5)] {
            let Some(share) = shares.get(index) else { continue };
            let height = share / most * (HEIGHT - 4.0);
            let (x, y) = ((index as f64 + side) * step, HEIGHT - height);
            let _ = write!(
                page,
                "<rect class={class} x={x:.1} y={y:.1} width={:.1} height={height:.1}><title>{bin}: {:.2} %</title></rect>",
                step * 0.43,
                share * 100.0
            );
        }
    }
    page.push_str("</svg>");
    let rare: Vec<String> =
        feature["rare"].as_array().into_iter().flatten().filter_map(Value::as_str).map(escape).collect();
    if !rare.is_empty() {
        let _ = write!(page, "<p class=alarm>More often than before: {}</p>", rare.join(", "));
    }
    let newcomer = |item: &Value| Some(format!("{} ({})", escape(item["value"].as_str()?), item["count"]));
    let new: Vec<String> =
        feature["newcomers"].as_array().into_iter().flatten().filter_map(newcomer).collect();
    if !new.is_empty() {
        let _ = write!(page, "<p>New: {}</p>", new.join(", "));
    }
    page.push_str("</div>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else_and_names_are_no_markup() {
        let (report, devices) = (page::tests::report(), page::tests::of_devices());
        let both = super::page(&[&report, &devices]);
        assert!(
            both.contains("<h1>m version 1: ") && both.contains("<h1>m version 1 on devices (sequence 7): ")
        );
        assert_eq!((both.matches("<!doctype").count(), both.matches("<rect").count()), (1, 16));
        let page = super::page(&[&report]);
        assert!(page.contains("a &lt;b&gt;") && !page.contains("a <b>"), "{page}");
        assert!(!page.contains("http") && !page.contains("<script") && !page.contains("src="));
        assert_eq!(page.matches("<rect").count(), 8);
        assert!(page.contains("<title>Oslo: 20.00 %</title>"));
    }
}
