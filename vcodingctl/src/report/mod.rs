//! `report`: one run as a page of HTML to look at, to keep, to send.

mod page;

use std::collections::VecDeque;
use std::io::Write;
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

/// The newest events of a run; what was before is not shown.
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
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Never through a link, which a branch of an agent's may have brought here. It may hold what an agent has read: 0600.
    let root = fs::Root::open(parent).map_err(std::io::Error::other)?;
    root.replace(Path::new(name), 0o600, |file| file.write_all(text)).map_err(std::io::Error::other)
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
    let mut events = VecDeque::new();
    let mut more = false;
    let call = daemon.send::<RunSubscribe>(
        &RunSubscribeParams { run: run.clone(), from: None, once: true, raw: false, bytes: false },
        &[],
    )?;
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
            Some(Item::End(_)) => return Ok((events.into(), more)),
            // Types that this program does not know are passed over.
            Some(Item::Event(raw)) => {
                events.extend(serde_json::from_str::<Event>(raw.get()));
                if events.len() > MOST_EVENTS {
                    // The end says what came of it.
                    events.pop_front();
                    more = true;
                }
            }
            None => {}
        }
    }
}
