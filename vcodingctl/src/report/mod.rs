//! `report`: one run as a page of HTML to look at, to keep, to send.

mod page;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use client::Client;
use protocol::event::Event;
use protocol::message::Subscribed;
use protocol::methods::{RunReportOf, RunSubscribe};
use protocol::run::{RunParams, RunSubscribeParams};
use protocol::{Error, Kind, RunId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::command::{Outcome, Session, names};
use crate::printer::Printer;
use crate::render::text::{bytes, short_run};
use page::Page;

/// Events of a run; what comes after is counted and not shown.
const MOST_EVENTS: usize = 20_000;

pub fn run(named: &str, to: Option<&Path>, session: &Session, printer: &Printer) -> Outcome {
    let mut daemon = session.daemon()?;
    let id = names::run(&mut daemon, session, named)?;
    let report = daemon.call::<RunReportOf>(&RunParams { run: id.clone() })?;
    let (events, more) = events(&mut daemon, &id)?;
    let page = Page::of(&report, &events, more);
    let text = templates::report(&page).map_err(|e| Error::new(Kind::Internal, format!("the report: {e}")))?;
    if to == Some(Path::new("-")) {
        printer.raw(text.as_bytes());
        return Ok(0);
    }
    let path = to.map_or_else(|| PathBuf::from(format!("report-{}.html", short_run(&id))), Path::to_owned);
    write(&path, text.as_bytes()).map_err(|e| {
        Error::new(Kind::Usage, format!("{} cannot be written: {e}", path.display()))
            .hint("vcodingctl report RUN -o FILE")
    })?;
    if printer.json {
        printer.document(&serde_json::json!({ "file": path, "bytes": text.len() }));
    } else {
        printer.line(&format!("{}  {}", path.display(), bytes(text.len() as u64)));
        printer.next(&format!("xdg-open {}", path.display()));
    }
    Ok(0)
}

/// Whole, or as it was.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // It may hold what an agent has read.
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    std::fs::rename(&temporary, path)
}

/// The events so far, and whether there are more than are kept.
fn events(daemon: &mut Client, run: &RunId) -> Result<(Vec<Event>, bool), Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Item<'a> {
        #[serde(borrow)]
        Event(&'a RawValue),
        End(serde::de::IgnoredAny),
    }
    let mut events = Vec::new();
    let mut more = false;
    let call = daemon
        .send::<RunSubscribe>(&RunSubscribeParams { run: run.clone(), from: None, once: true, raw: false }, &[])?;
    loop {
        let message = daemon.receive()?;
        if message.method.as_deref() != Some("run.event") {
            match message.error {
                Some(error) if message.id == Some(call.into()) => return Err(error.into()),
                _ => continue,
            }
        }
        let item = message.params.as_ref().and_then(|p| serde_json::from_str::<Subscribed<&RawValue>>(p.get()).ok());
        match item.and_then(|item| serde_json::from_str::<Item<'_>>(item.result.get()).ok()) {
            Some(Item::End(_)) => return Ok((events, more)),
            Some(Item::Event(_)) if events.len() >= MOST_EVENTS => more = true,
            // Types that this program does not know are passed over.
            Some(Item::Event(raw)) => events.extend(serde_json::from_str::<Event>(raw.get())),
            None => {}
        }
    }
}
