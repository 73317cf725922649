//! `doctor`: what the daemon finds, and what can be found without one.

use client::start;
use protocol::daemon::NoParams;
use protocol::doctor::{DoctorResult, Finding, Severity};
use protocol::methods::{Doctor, Status};

use super::{Outcome, Session};
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::text::one_line;

pub fn run(session: &Session, printer: &Printer) -> Outcome {
    let findings = match session.daemon() {
        Ok(mut daemon) => {
            let status = daemon.call::<Status>(&NoParams {})?;
            let mut found = vec![daemons(&status)];
            match daemon.call::<Doctor>(&NoParams {}) {
                Ok(result) => found.extend(result.findings),
                Err(error) => found.push(Finding::new("daemon", Severity::Error, error.message)),
            }
            found
        }
        Err(error) => {
            let finding = Finding::new("daemon", Severity::Error, error.message.clone());
            let log = format!("vcodingctl daemon logs; ls -ld {}", session.places.state.display());
            vec![finding.fix(error.data.hint.unwrap_or(log)), program()]
        }
    };
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine);
    if printer.json {
        printer.document(&DoctorResult { findings });
    } else {
        let mut area = "";
        for finding in &findings {
            let name = if finding.area == area { "" } else { &finding.area };
            area = &finding.area;
            show(name, finding, printer);
        }
    }
    Ok(u8::from(worst == Severity::Error))
}

/// Which daemon answers.
fn daemons(status: &protocol::daemon::DaemonStatus) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if status.version != ours {
        let what = format!("vcodingd is {}, vcodingctl {ours}", status.version);
        return Finding::new("daemon", Severity::Warning, what).fix("vcodingctl daemon stop; vcodingctl daemon start");
    }
    Finding::new("daemon", Severity::Fine, format!("vcodingd {} (pid {})", status.version, status.pid))
}

/// The program that would be started.
fn program() -> Finding {
    let program = start::daemon_program();
    let found = match program.is_absolute() {
        true => program.is_file(),
        false => std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(&program).is_file())),
    };
    if found {
        return Finding::new("daemon", Severity::Fine, format!("the program is {}", program.display()));
    }
    Finding::new("daemon", Severity::Error, format!("there is no program {}", program.display()))
        .fix("put vcodingd beside vcodingctl, or on PATH")
}

fn show(area: &str, finding: &Finding, printer: &Printer) {
    let (style, mark) = match finding.severity {
        Severity::Fine => (Style::Green, "✓"),
        Severity::Note => (Style::Cyan, "·"),
        Severity::Warning => (Style::Yellow, "!"),
        Severity::Error => (Style::Red, "✗"),
    };
    let mark = printer.data(style, mark);
    printer.line(&format!("{area:<11} {mark} {}", one_line(&finding.message)));
    if let Some(fix) = &finding.fix {
        printer.line(&format!("{:<13} {}", "", printer.data(Style::Dim, &format!("→ {}", one_line(fix)))));
    }
}
