//! Where the log's lines go: a file a day, and of a day that says too much two, the beginning and the end.
//!
//! Whatever it is that says too much, what led to it is in the first file, and the newest is in the second, which begins anew when
//! it is full. Both say so. Files of other days are never pushed out by that.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use protocol::Timestamp;

/// Of one file.
const MOST: u64 = 16 << 20;
/// Of one line; a longer one is cut.
const LONGEST: usize = 64 << 10;
/// Days that are kept.
const DAYS: usize = 7;

/// Appends lines, each written at once and whole.
#[derive(Debug)]
pub(super) struct LogFiles {
    directory: PathBuf,
    most: u64,
    open: Open,
}

#[derive(Debug)]
struct Open {
    /// `2026-11-28`, UTC.
    day: String,
    part: Part,
    file: File,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Beginning,
    End,
}

impl Part {
    /// In their order by name, so that a reader finds the newest last.
    fn path(self, directory: &Path, day: &str) -> PathBuf {
        directory.join(match self {
            Self::Beginning => format!("vcodingd.{day}.log"),
            Self::End => format!("vcodingd.{day}.more.log"),
        })
    }
}

impl LogFiles {
    /// Goes on with the day's file. Files are made with the process's umask: 0600.
    ///
    /// # Errors
    /// If the directory or the file cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Self::open_at(directory, MOST, today())
    }

    fn open_at(directory: &Path, most: u64, day: String) -> io::Result<Self> {
        prune(directory)?;
        Ok(Self { directory: directory.to_owned(), most, open: Open::of(directory, day)? })
    }

    fn write_on(&mut self, day: String, line: &[u8]) -> io::Result<()> {
        if day != self.open.day {
            self.open = Open::of(&self.directory, day)?;
            prune(&self.directory)?;
        }
        let (line, rest) = line.split_at(line.len().min(LONGEST));
        let cut: &[u8] = if rest.is_empty() { b"" } else { b"\n" };
        if self.open.bytes + line.len() as u64 > self.most {
            self.make_room()?;
        }
        self.open.append(line)?;
        self.open.append(cut)
    }

    /// The day's second file, empty.
    fn make_room(&mut self) -> io::Result<()> {
        let path = Part::End.path(&self.directory, &self.open.day);
        let (full, mib) = (self.open.part, self.most >> 20);
        let said = match full {
            Part::Beginning => format!("the day's log is full at {mib} MiB; it goes on in {}", path.display()),
            Part::End => format!("the day's log said {mib} MiB more, which are gone; it goes on from here"),
        };
        if full == Part::Beginning {
            self.open.append(notice(&said).as_bytes())?;
        }
        let file = append_to(&path)?;
        file.set_len(0)?;
        self.open = Open { day: self.open.day.clone(), part: Part::End, file, bytes: 0 };
        self.open.append(notice(&said).as_bytes())
    }
}

impl Open {
    fn of(directory: &Path, day: String) -> io::Result<Self> {
        let end = Part::End.path(directory, &day);
        let (part, path) = match end.try_exists()? {
            true => (Part::End, end),
            false => (Part::Beginning, Part::Beginning.path(directory, &day)),
        };
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { day, part, file, bytes })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Write for LogFiles {
    /// A line. Its writer learns of no failure, as there is nobody to tell.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_on(today(), line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn today() -> String {
    Timestamp::now().to_string().chars().take(10).collect()
}

/// A line of our own, in the form of the others.
fn notice(message: &str) -> String {
    let fields = serde_json::json!({"message": message});
    let line = serde_json::json!({
        "timestamp": Timestamp::now(), "level": "WARN", "fields": fields, "target": module_path!(),
    });
    format!("{line}\n")
}

/// Removes what is older than the days that are kept.
fn prune(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let day = name.strip_prefix("vcodingd.").and_then(|rest| rest.strip_suffix(".log"));
        if let Some(day) = day.map(|day| day.strip_suffix(".more").unwrap_or(day)) {
            files.push((day.to_owned(), name.clone()));
        }
    }
    let mut days: Vec<&String> = files.iter().map(|(day, _)| day).collect();
    days.sort_unstable();
    days.dedup();
    let gone = days[..days.len().saturating_sub(DAYS)].to_vec();
    for (_, name) in files.iter().filter(|(day, _)| gone.contains(&day)) {
        match std::fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "2026-11-28";

    fn line(n: usize) -> Vec<u8> {
        format!("{n:08} {}\n", "x".repeat(990)).into_bytes()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_day_that_says_too_much_keeps_its_beginning_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let most = 20_000;
        let mut log = LogFiles::open_at(dir.path(), most, DAY.into()).unwrap();
        for n in 0..500 {
            log.write_on(DAY.into(), &line(n)).unwrap();
        }
        // A daemon that is started anew goes on where it was.
        drop(log);
        let mut log = LogFiles::open_at(dir.path(), most, DAY.into()).unwrap();
        log.write_on(DAY.into(), &line(500)).unwrap();
        assert_eq!(names(dir.path()), ["vcodingd.2026-11-28.log", "vcodingd.2026-11-28.more.log"]);
        let [first, more] =
            [Part::Beginning, Part::End].map(|part| std::fs::read_to_string(part.path(dir.path(), DAY)).unwrap());
        assert!(first.len() as u64 <= most + 400 && more.len() as u64 <= most + 400, "{} {}", first.len(), more.len());
        assert!(first.starts_with("00000000 ") && more.ends_with(std::str::from_utf8(&line(500)).unwrap()));
        let said = first.lines().last().unwrap();
        assert!(said.contains("is full") && said.contains("vcodingd.2026-11-28.more.log"), "{said}");
        assert!(more.lines().next().unwrap().contains("are gone"), "{more}");
        assert!(more.contains(&format!("{:08}", 499)), "nothing is lost by a new start");
    }

    #[test]
    fn a_line_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFiles::open_at(dir.path(), MOST, DAY.into()).unwrap();
        log.write_on(DAY.into(), &[b'x'; LONGEST * 2]).unwrap();
        log.write_on(DAY.into(), b"next\n").unwrap();
        let text = std::fs::read_to_string(Part::Beginning.path(dir.path(), DAY)).unwrap();
        assert!(text.len() == LONGEST + 6 && text.ends_with("x\nnext\n"));
    }

    #[test]
    fn seven_days_are_kept_whatever_one_of_them_said() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["notes.log", "vcodingd.lock"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut log = LogFiles::open_at(dir.path(), 2000, "2026-11-01".into()).unwrap();
        for day in 1..=9 {
            for n in 0..9 {
                log.write_on(format!("2026-11-{day:02}"), &line(n)).unwrap();
            }
        }
        let names = names(dir.path());
        assert_eq!(names.len(), 2 + 7 * 2, "{names:?}");
        assert!(
            !names.contains(&"vcodingd.2026-11-02.more.log".into())
                && names.contains(&"vcodingd.2026-11-03.log".into())
        );
    }
}
