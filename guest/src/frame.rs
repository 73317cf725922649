//! A command on its way into the guest.
//!
//! The host asks sshd to execute [`EXEC`], which only our login shell knows, and sends the frame
//! as the first bytes of standard input; what follows is the command's own input. The shell says
//! [`READY`] once, as the first byte of standard output: where there is no terminal when it has
//! read the frame, so that a shell which stands still is known from a command that is silent; with
//! a terminal, which it first makes raw and without echo, before the frame is sent. Then it gives
//! the terminal its modes back.
//!
//! ```text
//! version (1) · length (u32, of what follows) · job (u8) · fields
//! field: length (u32) · bytes       list: count (u32) · fields       numbers: little endian
//! ```

/// The command that sshd is asked to execute.
pub const EXEC: &str = "vcoding-frame";
/// The shell's word that the frame has come, or on a terminal that it may.
pub const READY: u8 = 0x06;
/// The longest frame, in bytes behind its length: environment and arguments of one command.
pub const MAX: usize = 1 << 20;
/// The version that is written.
pub const VERSION: u8 = 2;
/// Bytes before a frame's body: the version and the length.
pub const HEAD: usize = 5;
/// A list of more items is refused.
const MAX_ITEMS: usize = 65_536;

/// What the guest is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub job: Job,
    /// Empty: the user's shell, as a login shell ([`Job::Exec`] only).
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`, on top of the image's; later ones win.
    pub env: Vec<Vec<u8>>,
    /// Where it begins: absolute, or relative to `/work`; empty is the default directory.
    pub directory: Vec<u8>,
    pub umask: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// A command on this session's input and output; its end is the session's.
    Exec,
    /// A run that outlives the session: the session ends with status 0 once its supervisor has
    /// taken over, with 126 or 127 and a line on standard error if it could not.
    Run {
        /// Names the run's directory; a ULID in lower case.
        id: String,
        /// What the command gets as standard input, then its end.
        stdin: Vec<u8>,
        /// A wall-clock limit in milliseconds that holds even while no daemon is there; 0 is none.
        timeout_ms: u64,
    },
    /// Ends a run: INT to its group, then TERM, then KILL to its whole tree. The session ends
    /// with 0 when the supervisor was told, with 3 if there is no such run.
    Cancel { id: String },
}

impl Frame {
    /// A command in the default directory with nothing added.
    pub fn exec<A: Into<Vec<u8>>>(argv: impl IntoIterator<Item = A>) -> Self {
        Self {
            job: Job::Exec,
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            directory: Vec::new(),
            umask: 0o022,
        }
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// If it would be longer than [`MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, Invalid> {
        let mut out = vec![VERSION, 0, 0, 0, 0];
        match &self.job {
            Job::Exec => out.push(0),
            Job::Run { id, stdin, timeout_ms } => {
                out.push(1);
                put(&mut out, id.as_bytes());
                put(&mut out, stdin);
                out.extend_from_slice(&timeout_ms.to_le_bytes());
            }
            Job::Cancel { id } => {
                out.push(2);
                put(&mut out, id.as_bytes());
            }
        }
        for list in [&self.argv, &self.env] {
            out.extend_from_slice(&u32::try_from(list.len()).map_err(|_| Invalid::TooLong)?.to_le_bytes());
            for item in list {
                put(&mut out, item);
            }
        }
        put(&mut out, &self.directory);
        out.extend_from_slice(&self.umask.to_le_bytes());
        let length = out.len() - HEAD;
        // A run's input (a prompt of up to 1 MiB) rides in the frame too.
        let most = match &self.job {
            Job::Run { stdin, .. } => MAX + stdin.len().min(MAX),
            Job::Exec | Job::Cancel { .. } => MAX,
        };
        if length > most {
            return Err(Invalid::TooLong);
        }
        out[1..HEAD].copy_from_slice(&u32::try_from(length).map_err(|_| Invalid::TooLong)?.to_le_bytes());
        Ok(out)
    }

    /// The length of the body that follows these first [`HEAD`] bytes.
    ///
    /// # Errors
    /// [`Invalid::Version`], [`Invalid::TooLong`].
    pub fn body_length(head: [u8; HEAD]) -> Result<usize, Invalid> {
        if head[0] != VERSION {
            return Err(Invalid::Version(head[0]));
        }
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > 2 * MAX { Err(Invalid::TooLong) } else { Ok(length) }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`Invalid::Broken`].
    pub fn decode(body: &[u8]) -> Result<Self, Invalid> {
        let mut rest = Reader(body);
        let job = match rest.bytes::<1>()?[0] {
            0 => Job::Exec,
            1 => {
                let id = rest.id()?;
                let stdin = rest.field()?;
                Job::Run { id, stdin, timeout_ms: u64::from_le_bytes(rest.bytes()?) }
            }
            2 => Job::Cancel { id: rest.id()? },
            _ => return Err(Invalid::Broken),
        };
        let argv = rest.list()?;
        let env = rest.list()?;
        let directory = rest.field()?;
        let umask = u16::from_le_bytes(rest.bytes()?);
        let with_nul = |bytes: &[u8]| bytes.contains(&0);
        if !rest.0.is_empty() || argv.iter().chain(&env).any(|f| with_nul(f)) || with_nul(&directory) {
            return Err(Invalid::Broken);
        }
        Ok(Self { job, argv, env, directory, umask })
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Of a version that this program does not speak.
    Version(u8),
    /// Longer than allowed.
    TooLong,
    /// Not of the form.
    Broken,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(found) => write!(f, "a frame of version {found}; this one speaks {VERSION}"),
            Self::TooLong => write!(f, "the command with its environment is longer than {MAX} bytes"),
            Self::Broken => f.write_str("a frame that cannot be read"),
        }
    }
}

impl std::error::Error for Invalid {}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // A longer field makes the frame too long, which is seen at its end.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Invalid::Broken)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<usize, Invalid> {
        Ok(u32::from_le_bytes(self.bytes()?) as usize)
    }

    fn field(&mut self) -> Result<Vec<u8>, Invalid> {
        let length = self.number()?;
        if length > self.0.len() {
            return Err(Invalid::Broken);
        }
        let (field, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(field.to_vec())
    }

    fn list(&mut self) -> Result<Vec<Vec<u8>>, Invalid> {
        let count = self.number()?;
        if count > MAX_ITEMS {
            return Err(Invalid::Broken);
        }
        (0..count).map(|_| self.field()).collect()
    }

    fn id(&mut self) -> Result<String, Invalid> {
        let text = String::from_utf8(self.field()?).map_err(|_| Invalid::Broken)?;
        if crate::run::is_id(&text) { Ok(text) } else { Err(Invalid::Broken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let id = "01jd0000000000000000000000".to_owned();
        vec![
            Frame::exec(["true"]),
            Frame {
                env: vec![b"A=\xff".to_vec(), b"B=".to_vec()],
                directory: b"sub dir".to_vec(),
                umask: 0o077,
                ..Frame::exec(["", "a b", "\n"])
            },
            Frame { job: Job::Run { id: id.clone(), stdin: b"do\0it".to_vec(), timeout_ms: 7 }, ..Frame::exec(["x"]) },
            Frame { job: Job::Cancel { id }, ..Frame::exec(Vec::<Vec<u8>>::new()) },
        ]
    }

    #[test]
    fn a_frame_survives_the_way() {
        for frame in frames() {
            let bytes = frame.encode().unwrap();
            let length = Frame::body_length(*bytes.first_chunk().unwrap()).unwrap();
            assert_eq!(length, bytes.len() - HEAD);
            assert_eq!(Frame::decode(&bytes[HEAD..]).unwrap(), frame);
        }
    }

    /// The wire of version 1: a daemon of tomorrow still has to speak it.
    #[test]
    fn the_wire_is_as_it_was() {
        let frame = Frame { env: vec![b"A=b".to_vec()], directory: b"d".to_vec(), ..Frame::exec(["ls"]) };
        let expected = b"\x02\x1d\0\0\0\0\x01\0\0\0\x02\0\0\0ls\x01\0\0\0\x03\0\0\0A=b\x01\0\0\0d\x12\0";
        assert_eq!(frame.encode().unwrap(), expected);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error_or_a_frame_and_never_a_panic() {
        for frame in frames() {
            let bytes = frame.encode().unwrap();
            let body = &bytes[HEAD..];
            for end in 0..body.len() {
                assert_eq!(Frame::decode(&body[..end]), Err(Invalid::Broken), "{end}");
            }
            for at in 0..body.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut broken = body.to_vec();
                    broken[at] = value;
                    let _either = Frame::decode(&broken);
                }
            }
        }
        assert_eq!(Frame::body_length([9, 0, 0, 0, 0]), Err(Invalid::Version(9)));
        assert_eq!(Frame::body_length([VERSION, 0xff, 0xff, 0xff, 0xff]), Err(Invalid::TooLong));
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_sent() {
        assert_eq!(Frame::exec([vec![b'x'; MAX]]).encode(), Err(Invalid::TooLong));
        let id = "01jd0000000000000000000000".to_owned();
        let run = Frame { job: Job::Run { id, stdin: vec![b'x'; MAX], timeout_ms: 0 }, ..Frame::exec(["x"]) };
        assert!(run.encode().is_ok());
    }
}
