//! What the workspace suite counts on in a fake guest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guest::frame::{self, Frame, Job};
use guest::run::{End, SEGMENT, UNREAD};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Sig, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Fake, Image, Op, World};
use crate::provider::{BuildEvent, BuildSpec, Error, GuestSpec, GuestState, Limits, Look, PathKind, Provider, User};

const LONG: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);
const RUN: &str = "01jd0000000000000000000000";

/// A world, a state directory and the spec of a guest that is not made yet.
pub(crate) struct TestGuest {
    pub fake: Fake,
    pub spec: GuestSpec,
    key: Arc<PrivateKey>,
    _state: tempfile::TempDir,
}

impl TestGuest {
    pub fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let state_dir = state.path().canonicalize().unwrap();
        let world = World::new().unwrap();
        let spec = GuestSpec {
            id: "01jd0000000000000000000000".parse().unwrap(),
            nonce: "a nonce".to_owned(),
            name: "provider-test".parse().unwrap(),
            image: world.base_image(),
            user: User { uid: 4321, gid: 4321 },
            state_dir: state_dir.clone(),
            helper: "test".to_owned(),
            init_args: Vec::new(),
            limits: Limits { memory: 1 << 30, milli_cpus: 1000, pids: 100, file_size: 20 << 30, open_files: 1024 },
        };
        let own = state_dir.join("workspaces").join(spec.id.as_str());
        for dir in [own.join("tree"), own.join("home"), own.join("run"), own.join("etc")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::create_dir_all(state_dir.join("store/guest/test")).unwrap();
        std::fs::create_dir_all(state_dir.join("store/agents")).unwrap();
        let key = || PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
        let (client, host) = (key(), key());
        let etc = own.join("etc");
        std::fs::write(etc.join("passwd"), "").unwrap();
        std::fs::write(etc.join("group"), "").unwrap();
        std::fs::write(etc.join("host_key"), host.to_openssh(LineEnding::LF).unwrap()).unwrap();
        std::fs::write(etc.join("authorized_keys"), client.public_key().to_openssh().unwrap()).unwrap();
        Self { fake: Fake::new(world, state_dir), spec, key: Arc::new(client), _state: state }
    }

    async fn started() -> Self {
        let guest = Self::new();
        guest.fake.create(&guest.spec).await.unwrap();
        guest.fake.start(&guest.spec).await.unwrap();
        guest
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.spec.state_dir.join("workspaces").join(self.spec.id.as_str()).join(name)
    }

    fn run_file(&self, name: &str) -> PathBuf {
        self.dir("run/runs").join(RUN).join(name)
    }

    async fn log_in(&self) -> Client {
        self.log_in_with(Arc::clone(&self.key)).await.unwrap()
    }

    /// None if the key is refused.
    async fn log_in_with(&self, key: Arc<PrivateKey>) -> Option<Client> {
        let carrier = self.fake.carrier_stream(&self.spec.id).await.unwrap();
        let (arrivals, arrived) = mpsc::channel(8);
        let config = Arc::new(client::Config::default());
        let mut handle = within(client::connect_stream(config, carrier, Peer { arrivals })).await.unwrap();
        let answer =
            within(handle.authenticate_publickey("work", PrivateKeyWithHashAlg::new(key, None))).await.unwrap();
        answer.success().then_some(Client { handle, arrived })
    }
}

struct Client {
    handle: client::Handle<Peer>,
    arrived: mpsc::Receiver<Channel<client::Msg>>,
}

struct Peer {
    arrivals: mpsc::Sender<Channel<client::Msg>>,
}

impl client::Handler for Peer {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        self.arrivals.send(channel).await.unwrap();
        Ok(())
    }
}

/// What a command left.
#[derive(Debug, PartialEq)]
struct Left {
    status: Option<u32>,
    out: String,
    err: String,
}

impl Client {
    async fn begin(&self, frame: &Frame, stdin: &[u8]) -> Channel<client::Msg> {
        let channel = within(self.handle.channel_open_session()).await.unwrap();
        channel.exec(true, frame::EXEC).await.unwrap();
        channel.data_bytes([&frame.encode().unwrap(), stdin].concat()).await.unwrap();
        channel
    }

    async fn exec(&self, argv: &[&str]) -> Left {
        self.exec_with(&Frame::exec(argv.to_vec()), b"").await
    }

    async fn exec_with(&self, frame: &Frame, stdin: &[u8]) -> Left {
        let channel = self.begin(frame, b"").await;
        let mut input = channel.make_writer();
        // Both at once: output that nobody reads would hold up the input.
        let sent = async {
            // A command that ends early does not read it all.
            let _ended = input.write_all(stdin).await;
            let _ended = input.shutdown().await;
        };
        tokio::join!(sent, left(channel)).1
    }

    async fn start_run(&self, argv: &[&str], timeout_ms: u64) -> Left {
        let job = Job::Run { id: RUN.to_owned(), stdin: b"the prompt".to_vec(), timeout_ms };
        self.exec_with(&Frame { job, ..Frame::exec(argv.to_vec()) }, b"").await
    }

    async fn cancel_run(&self) -> Option<u32> {
        let job = Job::Cancel { id: RUN.to_owned() };
        self.exec_with(&Frame { job, ..Frame::exec(Vec::<Vec<u8>>::new()) }, b"").await.status
    }
}

async fn left(mut channel: Channel<client::Msg>) -> Left {
    let (mut status, mut out, mut err) = (None, Vec::new(), Vec::new());
    while let Some(message) = within(channel.wait()).await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => err.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    // The shell's word that it took the frame, where one was sent.
    if out.first() == Some(&frame::READY) {
        out.remove(0);
    }
    Left { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it happens in time")
}

/// Waits for what the guest does by itself.
async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn done(out: &str) -> Left {
    Left { status: Some(0), out: out.to_owned(), err: String::new() }
}

fn refused() -> Error {
    Error::Timeout { doing: "a test", after: LONG }
}

#[tokio::test]
async fn verbs_work_on_the_guests_directories() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    assert_eq!(client.exec(&["true"]).await, done(""));
    assert_eq!(client.exec(&["false"]).await.status, Some(1));
    assert_eq!(client.exec(&["exit", "7", ";", "echo", "no"]).await, Left { status: Some(7), ..done("") });
    assert_eq!(client.exec(&["echo", "a", "b", ";", "echo", "c"]).await, done("a b\nc\n"));
    assert_eq!(client.exec(&["err", "x"]).await, Left { err: "x\n".into(), ..done("") });
    assert_eq!(client.exec(&["write", "a.txt", "text", ";", "append", "/work/a.txt", "+"]).await, done(""));
    assert_eq!(std::fs::read_to_string(guest.dir("tree/a.txt")).unwrap(), "text+");
    assert_eq!(client.exec(&["read", "a.txt"]).await, done("text+"));
    assert_eq!(client.exec(&["write", "/home/work/h", "x"]).await, done(""));
    assert!(guest.dir("home/h").exists());
    assert_eq!(client.exec(&["rm", "a.txt"]).await, done(""));
    assert_eq!(client.exec(&["read", "a.txt"]).await.status, Some(1));
    assert_eq!(client.exec(&["nonsense"]).await.status, Some(127));
    for out in ["../x", "/etc/passwd", "/work/../x", "a/../../x"] {
        assert_eq!(client.exec(&["write", out, "x"]).await.status, Some(1), "{out}");
    }
    let frame = Frame {
        env: vec![b"A=1".to_vec(), b"A=2=3".to_vec()],
        directory: b"sub".to_vec(),
        ..Frame::exec(["env", "A", ";", "mkdir", ".", ";", "write", "f", "x"])
    };
    assert_eq!(client.exec_with(&frame, b"").await, done("2=3\n"));
    assert!(guest.dir("tree/sub/f").exists());
}

#[tokio::test]
async fn input_and_output_pass_whole() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    let input = "0123456789abcde\n".repeat(60_000);
    assert!(client.exec_with(&Frame::exec(["cat"]), input.as_bytes()).await == done(&input));
    let spat = client.exec(&["spit", "1000001"]).await;
    assert_eq!((spat.status, spat.out.len()), (Some(0), 1_000_001));
    assert!(spat.out.lines().take(62_500).enumerate().all(|(number, line)| line == format!("{number:015}")));
    let lines = Frame::exec(Vec::<Vec<u8>>::new());
    assert_eq!(client.exec_with(&lines, b"echo a\nfalse\n").await, Left { status: Some(1), ..done("a\n") });
}

#[tokio::test]
async fn a_plain_session_and_a_terminal_are_served() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    let channel = client.handle.channel_open_session().await.unwrap();
    channel.exec(true, "echo plain").await.unwrap();
    assert_eq!(left(channel).await, done("plain\n"));
    let mut channel = client.handle.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(true, frame::EXEC).await.unwrap();
    let ready = loop {
        if let ChannelMsg::Data { data } = within(channel.wait()).await.unwrap() {
            break data;
        }
    };
    assert_eq!(ready[..], [frame::READY]);
    channel.data_bytes(Frame::exec(["err", "x"]).encode().unwrap()).await.unwrap();
    assert_eq!(left(channel).await, done("x\n"), "a terminal has one output");
}

#[tokio::test]
async fn a_signal_or_the_callers_end_ends_a_command_and_its_children() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    let channel = client.begin(&Frame::exec(["spawn", ";", "hang"]), b"input that nobody reads").await;
    until(|| guest.fake.world().children(&guest.spec.id) == 1).await;
    channel.signal(Sig::TERM).await.unwrap();
    assert_eq!(left(channel).await.status, Some(143));
    until(|| guest.fake.world().children(&guest.spec.id) == 0).await;

    let channel = client.begin(&Frame::exec(["spawn", ";", "hang"]), b"").await;
    until(|| guest.fake.world().children(&guest.spec.id) == 1).await;
    channel.close().await.unwrap();
    until(|| guest.fake.world().children(&guest.spec.id) == 0).await;

    // A child in the background lives on after a normal end, as long as the guest.
    assert_eq!(client.exec(&["spawn"]).await, done(""));
    assert_eq!(guest.fake.world().children(&guest.spec.id), 1);
    guest.fake.stop(&guest.spec.id, GRACE).await.unwrap();
    assert_eq!(guest.fake.world().children(&guest.spec.id), 0);
}

#[tokio::test]
async fn only_the_guests_key_opens_it() {
    let guest = TestGuest::started().await;
    let other = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    assert!(guest.log_in_with(Arc::new(other)).await.is_none());
    guest.log_in().await;
    std::fs::remove_file(guest.dir("etc/host_key")).unwrap();
    let mut carrier = guest.fake.carrier_stream(&guest.spec.id).await.unwrap();
    let mut said = Vec::new();
    within(carrier.read_to_end(&mut said)).await.unwrap();
    assert!(said.is_empty(), "without a key there is no sshd");
}

#[tokio::test]
async fn a_run_outlives_its_connection_and_its_daemon() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    assert_eq!(client.cancel_run().await, Some(3));
    assert_eq!(client.start_run(&["cat", ";", "err", "e", ";", "hang"], 0).await, done(""));
    assert_eq!(client.start_run(&["true"], 0).await.status, Some(126), "an id is taken once");
    drop(client);
    until(|| std::fs::read(guest.run_file("err.0")).is_ok_and(|err| err == b"e\n")).await;
    assert_eq!(std::fs::read(guest.run_file("out.0")).unwrap(), b"the prompt");
    assert!(!guest.run_file("end").exists());

    let next = Fake::new(Arc::clone(guest.fake.world()), &guest.spec.state_dir);
    assert!(matches!(next.inspect(&guest.spec.id).await.unwrap().unwrap().state, GuestState::Running { .. }));
    let client = guest.log_in().await;
    assert_eq!(client.cancel_run().await, Some(0));
    until(|| guest.run_file("end").exists()).await;
    assert_eq!(End::decode(&std::fs::read(guest.run_file("end")).unwrap()), Some(End::Cancelled));
    assert_eq!(client.cancel_run().await, Some(3));
}

#[tokio::test]
async fn every_end_of_a_run_is_written() {
    for (argv, timeout_ms, expected) in [
        (["exit", "5"], 0, End::Exited(5)),
        (["hang", ";"], 1, End::TimedOut),
        (["nonsense", "x"], 0, End::NotStarted { status: 127, why: "there is no such verb".into() }),
    ] {
        let guest = TestGuest::started().await;
        guest.log_in().await.start_run(&argv, timeout_ms).await;
        until(|| guest.run_file("end").exists()).await;
        assert_eq!(End::decode(&std::fs::read(guest.run_file("end")).unwrap()), Some(expected));
    }
    let guest = TestGuest::started().await;
    guest.log_in().await.start_run(&["echo", "x", ";", "hang"], 0).await;
    until(|| std::fs::read(guest.run_file("out.0")).is_ok_and(|out| !out.is_empty())).await;
    guest.fake.stop(&guest.spec.id, GRACE).await.unwrap();
    assert!(!guest.run_file("end").exists(), "a guest that is ended writes nothing more");
}

#[tokio::test]
async fn a_run_waits_for_a_host_that_does_not_read() {
    let guest = TestGuest::started().await;
    let total = SEGMENT * (UNREAD as u64 + 1) + 5;
    guest.log_in().await.start_run(&["spit", &total.to_string()], 0).await;
    let segment = |number: u64| guest.run_file(&format!("out.{number}"));
    let size = |number| std::fs::metadata(segment(number)).map_or(0, |m| m.len());
    until(|| size(UNREAD as u64 - 1) == SEGMENT).await;
    assert!(!segment(UNREAD as u64).exists() && !guest.run_file("end").exists());
    let mut taken = 0;
    for number in 0..=UNREAD as u64 + 1 {
        until(|| size(number) == SEGMENT || guest.run_file("end").exists()).await;
        taken += size(number);
        std::fs::remove_file(segment(number)).unwrap();
    }
    assert_eq!(taken, total);
}

#[tokio::test]
async fn a_frozen_guest_does_nothing() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    let mut channel = client.begin(&Frame::exec(["cat"]), b"").await;
    guest.fake.pause(&guest.spec.id).await.unwrap();
    channel.data_bytes(b"x".to_vec()).await.unwrap();
    channel.eof().await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), async {
        while !matches!(channel.wait().await, None | Some(ChannelMsg::Data { .. })) {}
    });
    assert!(waited.await.is_err());
    guest.fake.unpause(&guest.spec.id).await.unwrap();
    assert_eq!(left(channel).await, done("x"));
}

#[tokio::test]
async fn carriers_are_cut_by_the_guests_end_and_by_hand() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    client.start_run(&["hang"], 0).await;
    guest.fake.world().cut(&guest.spec.id);
    until(|| client.handle.is_closed()).await;
    let client = guest.log_in().await;
    assert_eq!(client.exec(&["true"]).await, done(""));
    assert_eq!(client.cancel_run().await, Some(0), "runs go on");
    guest.fake.world().crash(&guest.spec.id, true);
    until(|| client.handle.is_closed()).await;
    let state = guest.fake.inspect(&guest.spec.id).await.unwrap().unwrap().state;
    assert_eq!(state, GuestState::Exited { code: 137, out_of_memory: true });
}

#[tokio::test]
async fn the_model_port_leads_to_the_daemon_and_waits_for_it() {
    let guest = TestGuest::started().await;
    let client = guest.log_in().await;
    let waiting = client.begin(&Frame::exec(["dial"]), b"question\n").await;
    assert!(client.handle.tcpip_forward("localhost", 9000).await.is_err(), "only 127.0.0.1 is permitted");
    let mut daemon = guest.log_in().await;
    daemon.handle.tcpip_forward("127.0.0.1", 9000).await.unwrap();
    let mut stream = within(daemon.arrived.recv()).await.unwrap().into_stream();
    let mut asked = [0; 9];
    within(stream.read_exact(&mut asked)).await.unwrap();
    assert_eq!(&asked, b"question\n");
    stream.write_all(b"answer").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(left(waiting).await, done("answer"));
}

#[tokio::test]
async fn calls_fail_on_demand_before_or_after_the_act() {
    let guest = TestGuest::new();
    let (fake, spec) = (&guest.fake, &guest.spec);
    fake.fail_next(Op::Create, refused());
    assert!(matches!(fake.create(spec).await, Err(Error::Timeout { .. })));
    assert_eq!(fake.inspect(&spec.id).await.unwrap(), None);
    fake.fail_after(Op::Create, refused());
    assert!(matches!(fake.create(spec).await, Err(Error::Timeout { .. })));
    assert!(fake.inspect(&spec.id).await.unwrap().is_some());
    fake.create(spec).await.expect("each fails one call");
    std::fs::remove_dir_all(guest.dir("home")).unwrap();
    fake.remove(&spec.id).await.unwrap();
    assert!(matches!(fake.create(spec).await, Err(Error::Engine { .. })), "a mount's source is missing");
    let elsewhere = Fake::new(Arc::clone(fake.world()), "/elsewhere");
    assert!(matches!(elsewhere.create(spec).await, Err(Error::Refused { .. })));
}

#[tokio::test]
async fn images_are_built_named_looked_into_and_removed() {
    let world = World::new().unwrap();
    let fake = Fake::new(Arc::clone(&world), "/state");
    let spec = |tag: &str| BuildSpec {
        context: tempfile::tempfile().unwrap(),
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        args: Default::default(),
        tag: tag.to_owned(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        no_cache: false,
        caches: String::new(),
        limit: std::time::Duration::from_secs(600),
    };
    let (progress, mut events) = mpsc::channel(16);
    let id = fake.build(spec("one"), progress.clone()).await.unwrap();
    assert!(matches!(events.recv().await, Some(BuildEvent::Started { step: 1, .. })));
    drop(events);
    assert_eq!(fake.build(spec("two"), progress).await.unwrap(), id, "whoever listens may go");
    let info = fake.image("one").await.unwrap();
    assert_eq!((info.id, info.names, info.labels.len()), (id.clone(), vec!["one".to_owned(), "two".to_owned()], 1));

    let looks = [Look::Into("/etc/passwd"), Look::At("/etc"), Look::At("/work"), Look::At("/usr/sbin/sshd")];
    let peeked = fake.peek(&id, &looks).await.unwrap();
    assert!(peeked[0].content.as_ref().unwrap().starts_with(b"root:"));
    let kinds: Vec<_> = peeked.iter().map(|peeked| peeked.kind).collect();
    assert_eq!(kinds, [PathKind::File, PathKind::Directory, PathKind::Missing, PathKind::File]);

    fake.remove_image("one").await.unwrap();
    assert!(fake.image("two").await.is_ok());
    fake.remove_image("two").await.unwrap();
    fake.remove_image("two").await.unwrap();
    assert!(matches!(fake.image(&id.0).await, Err(Error::NoSuchImage { .. })));

    let mut image = Image::base(b"big");
    image.files.insert("/big".to_owned(), vec![0; (1 << 20) + 1]);
    let id = image.info.id.clone();
    world.add_image(image);
    fake.tag(&id, "fake/base:1").await.unwrap();
    assert_eq!(fake.image("fake/base:1").await.unwrap().id, id, "a name is of one image");
    assert!(matches!(fake.peek(&id, &[Look::Into("/big")]).await, Err(Error::Refused { .. })));
}
