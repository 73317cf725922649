//! A run's report, as a browser shows it.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::World;

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";
const PHONE: u32 = 390;
const DESK: u32 = 1280;
/// Of `preferredColorScheme`.
const DARK: &str = "0";
const LIGHT: &str = "1";

fn browser() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|done| done.status.success()));
    if found.is_none() {
        let _told = writeln!(std::io::stderr(), "skipped: a report in a browser: there is none (chromium)");
    }
    found
}

/// What the browser makes of the page in a frame of this width: its facts, read from outside, since nothing runs inside.
fn seen(browser: &str, page: &Path, width: u32, scheme: &str) -> Value {
    let frame = format!(
        "<iframe id=f src=\"{}\" style=\"width:{width}px;height:800px;border:0\"></iframe><script>onload = () => {{
            const d = f.contentDocument, w = f.contentWindow, e = d.documentElement;
            const said = {{ wide: e.scrollWidth, title: d.title, scripts: d.scripts.length, images: d.images.length,
                links: [...d.links].map(l => l.getAttribute('href')), page: w.getComputedStyle(d.body).backgroundColor,
                text: w.getComputedStyle(d.body).color, headings: [...d.querySelectorAll('h2')].map(h => h.textContent),
                pre: [...d.querySelectorAll('pre')].map(p => p.textContent).join('\\n'), frames: w.frames.length,
                styled: w.getComputedStyle(d.querySelector('header')).maxWidth }};
            document.body.textContent = 'BEGIN' + btoa(unescape(encodeURIComponent(JSON.stringify(said)))) + 'END';
        }}</script>",
        page.file_name().unwrap().to_str().unwrap()
    );
    let around = page.with_file_name(format!("around-{width}-{scheme}.html"));
    std::fs::write(&around, frame).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--allow-file-access-from-files", "--disable-web-security", "--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", around.display()));
    let text = crate::world::output(&mut command);
    let said = text.split_once("BEGIN").and_then(|(_, rest)| rest.split_once("END")).map(|(said, _)| said.to_owned());
    let said = said.unwrap_or_else(|| panic!("the page was not read: {text}"));
    let decoded = crate::world::output(Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -d", &said]));
    serde_json::from_str(&decoded).unwrap()
}

fn brightness(colour: &str) -> u32 {
    colour
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .split([',', ')'])
        .take(3)
        .map(|n| n.trim().parse::<u32>().unwrap())
        .sum()
}

#[test]
fn a_report_is_one_page_that_runs_nothing_and_fits_a_phone_and_a_desk_light_and_dark() {
    let Some(browser) = browser() else { return };
    let Some(world) = World::with_engine("a report") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), ("a.txt", "one\n")]);
    world.ok(&project, &["up"]);
    let long = "w".repeat(3000);
    let evil = "<script>document.title = \"evil\"</script><img src=x onerror=alert(1)></pre><iframe src=a></iframe>";
    let line = format!("printf '%s\\n' '{evil}' {long}; printf '%s\\n' '{evil}' {long} > '<b>x.txt'; echo two > a.txt");
    world.ok(&project, &["run", "--", "sh", "-c", &line]);
    let page = world.path("run.html");
    world.ok(&project, &["report", "-o", page.to_str().unwrap()]);
    let text = std::fs::read_to_string(&page).unwrap();
    for foreign in ["<script", "<img", "<iframe", "<link", "@import", "url("] {
        assert!(!text.contains(foreign), "{foreign}");
    }
    for width in [PHONE, DESK] {
        let light = seen(browser, &page, width, LIGHT);
        assert_eq!(
            (&light["scripts"], &light["images"], &light["frames"]),
            (&0.into(), &0.into(), &0.into()),
            "{light}"
        );
        assert!(light["wide"].as_u64().unwrap() <= u64::from(width), "{width}: nothing hangs over: {light}");
        assert!(light["title"].as_str().unwrap().starts_with("sh -c printf"), "{light}");
        assert_eq!(light["headings"], serde_json::json!(["Timeline", "Changes", "Checkpoints"]));
        assert_eq!(light["links"], serde_json::json!(["#timeline", "#changes", "#checkpoints"]));
        let pre = light["pre"].as_str().unwrap();
        assert!(pre.contains(evil) && pre.contains("+two") && pre.contains("-one") && pre.contains(&long), "{pre}");
        assert_ne!(light["styled"], "none", "the page's policy allows its own style");
        let dark = seen(browser, &page, width, DARK);
        let of = |seen: &Value, what: &str| brightness(seen[what].as_str().unwrap());
        assert!(of(&light, "page") > 600 && of(&light, "text") < 200, "{light}");
        assert!(of(&dark, "page") < 120 && of(&dark, "text") > 600, "{dark}");
    }
}

#[test]
fn a_report_of_a_run_whose_workspace_is_gone_says_so() {
    let Some(world) = World::with_engine("a report of what is gone") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE)]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["run", "--", "true"]);
    let id = world.json(&project, &["runs"])["runs"][0]["id"].as_str().unwrap().to_owned();
    world.ok(&project, &["destroy", "--force"]);
    let ran = world.ctl(&project, &["report", &id]);
    assert!(ran.status == 3 && ran.err.contains("gone with workspace shop"), "{}", ran.err);
}
