//! The context on real directories, and the build on a real engine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tokio::sync::mpsc;

use super::*;
use crate::provider::docker::Docker;
use crate::provider::docker::tests::{BASE, skip};
use crate::provider::{Look, PathKind, Provider};

fn request(project: &Path) -> ImageRequest {
    ImageRequest {
        project: project.canonicalize().unwrap(),
        dockerfile: "Dockerfile".into(),
        context: ".".into(),
        target: None,
        args: BTreeMap::new(),
        name: "image-test".parse().unwrap(),
        workspace: ulid::Ulid::new().to_string().to_lowercase().parse().unwrap(),
        rebuild: false,
        no_cache: false,
    }
}

/// As the real gate would say of the samples here, by name and by content.
fn gate(path: &Path, head: &[u8]) -> Option<String> {
    let secret = path.file_name().is_some_and(|name| name == ".env") || head.starts_with(b"-----BEGIN PRIVATE KEY");
    secret.then(|| "it looks like a secret".to_owned())
}

fn none(_: &Path, _: &[u8]) -> Option<String> {
    None
}

fn project(dockerfile: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Dockerfile", dockerfile);
    write(".dockerignore", "target\n*.log\n!keep.log\n");
    write(".env", "KEY=1");
    write("conf/id", "-----BEGIN PRIVATE KEY-----");
    write("src/main.txt", "hello");
    write("target/big", "x");
    write("a.log", "x");
    write("keep.log", "x");
    write(".git/HEAD", "ref: x");
    symlink("/etc/hostname", dir.path().join("link")).unwrap();
    symlink("/etc", dir.path().join("linked-dir")).unwrap();
    dir
}

fn names(prepared: &Prepared) -> Vec<String> {
    let mut archive = tar::Archive::new(&prepared.archive);
    let entries = archive.entries().unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> =
        entries.map(|e| format!("{:?} {}", e.header().entry_type(), e.path().unwrap().display())).collect();
    names.sort();
    names
}

fn prepared(dir: &Path, gate: SecretGate<'_>) -> Prepared {
    prepare(&request(dir), gate, &std::env::temp_dir()).unwrap()
}

#[test]
fn the_context_is_what_may_leave_the_host() {
    let dir = project("FROM x\nCOPY . /app\n");
    let it = prepared(dir.path(), &gate);
    assert_eq!(
        names(&it),
        [
            "Directory conf",
            "Directory src",
            "Regular .dockerignore",
            "Regular Dockerfile",
            "Regular keep.log",
            "Regular src/main.txt",
            "Symlink link",
            "Symlink linked-dir",
        ]
    );
    let left: Vec<_> = it.left_out.iter().map(|left| left.path.to_str().unwrap()).collect();
    assert_eq!(left, [".env", ".git", "conf/id"]);
    // The control: without the gate they would be in.
    let open = names(&prepared(dir.path(), &none));
    assert!(open.contains(&"Regular .env".to_owned()) && open.contains(&"Regular conf/id".to_owned()));
}

#[test]
fn a_dockerfile_that_copies_a_secret_by_name_is_told_so() {
    let dir = project("FROM x\nCOPY src .env /app/\n");
    let error = prepare(&request(dir.path()), &gate, &std::env::temp_dir()).unwrap_err();
    let Error::CopiesSecret { line, path, .. } = &error else { panic!("{error}") };
    assert_eq!((*line, path.to_str().unwrap()), (2, ".env"));
    assert!(error.hint().unwrap().contains("build_secrets"));
    assert!(prepare(&request(dir.path()), &none, &std::env::temp_dir()).is_ok());
}

#[test]
fn the_hash_follows_content_and_settings_and_nothing_else() {
    let dir = project("FROM x\nCOPY . /app\n");
    let hash = |change: &dyn Fn(&mut ImageRequest)| {
        let mut request = request(dir.path());
        change(&mut request);
        prepare(&request, &gate, &std::env::temp_dir()).unwrap().hash
    };
    let first = hash(&|_| {});
    assert_eq!(first.len(), 16);
    fs::write(dir.path().join(".env"), "KEY=2").unwrap();
    fs::write(dir.path().join("target/big"), "y").unwrap();
    fs::write(dir.path().join("src/main.txt"), "hello").unwrap();
    assert_eq!(hash(&|_| {}), first, "what stays out, and times, change nothing");
    assert_ne!(hash(&|r| r.target = Some("dev".into())), first);
    assert_ne!(
        hash(&|r| {
            r.args.insert("A".into(), "1".into());
        }),
        first
    );
    fs::write(dir.path().join("src/main.txt"), "hullo").unwrap();
    let second = hash(&|_| {});
    assert_ne!(second, first);
    fs::set_permissions(dir.path().join("src/main.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let third = hash(&|_| {});
    assert_ne!(third, second);
    fs::write(dir.path().join("Dockerfile"), "FROM x\nCOPY . /app2\n").unwrap();
    assert_ne!(hash(&|_| {}), third);
}

#[test]
fn the_fingerprint_follows_every_write_without_reading() {
    let dir = project("FROM x\nCOPY . /app\n");
    let print = || fingerprint(&request(dir.path())).unwrap();
    let first = print();
    assert_eq!(print(), first);
    fs::write(dir.path().join("target/big"), "ignored").unwrap();
    assert_eq!(print(), first);
    fs::write(dir.path().join("src/main.txt"), "other size").unwrap();
    let second = print();
    assert_ne!(second, first);
    // The same bytes in another file: its inode differs even where its times do not.
    fs::write(dir.path().join("src/new"), "other size").unwrap();
    fs::rename(dir.path().join("src/new"), dir.path().join("src/main.txt")).unwrap();
    assert_ne!(print(), second);
}

#[test]
fn nothing_outside_the_project_is_reached() {
    let dir = project("FROM x\n");
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("Dockerfile"), "FROM evil\n").unwrap();
    symlink(outer.path(), dir.path().join("out")).unwrap();
    symlink(outer.path().join("Dockerfile"), dir.path().join("Linked")).unwrap();
    let refused = |change: &dyn Fn(&mut ImageRequest)| {
        let mut request = request(dir.path());
        change(&mut request);
        matches!(prepare(&request, &none, &std::env::temp_dir()), Err(Error::Outside { .. }))
    };
    assert!(refused(&|r| r.context = "out".into()));
    assert!(refused(&|r| r.context = "..".into()));
    assert!(refused(&|r| r.context = "/etc".into()));
    assert!(refused(&|r| r.dockerfile = "Linked".into()));
    assert!(refused(&|r| r.dockerfile = "out/Dockerfile".into()));
    assert!(refused(&|r| r.dockerfile = "src/../../Dockerfile".into()));
    assert!(!refused(&|_| {}));
}

#[test]
fn a_dockerfile_beside_its_context_goes_with_it() {
    let dir = project("FROM x\n");
    let mut request = request(dir.path());
    request.context = "src".into();
    let it = prepare(&request, &none, &std::env::temp_dir()).unwrap();
    assert_eq!(it.dockerfile, ".vcoding.Dockerfile");
    assert_eq!(names(&it), ["Regular .vcoding.Dockerfile", "Regular main.txt"]);
}

#[test]
fn the_dockerfiles_own_rules_come_first() {
    let dir = project("FROM x\n");
    fs::write(dir.path().join("Dockerfile.dockerignore"), "*\n!src\n").unwrap();
    assert_eq!(
        names(&prepared(dir.path(), &none)),
        ["Directory src", "Regular .dockerignore", "Regular Dockerfile", "Regular src/main.txt"]
    );
    // What is taken back out of the history, or out of a secret directory, stays out all the same.
    fs::write(dir.path().join("Dockerfile.dockerignore"), "*\n!**/HEAD\n!conf/id\n").unwrap();
    let closed = |path: &Path, _: &[u8]| (path == Path::new("conf")).then(String::new);
    assert_eq!(names(&prepared(dir.path(), &closed)), ["Regular .dockerignore", "Regular Dockerfile"]);
    assert!(names(&prepared(dir.path(), &none)).contains(&"Regular conf/id".to_owned()));
}

/// An engine with the base image, else a loud skip.
async fn engine() -> Option<Docker> {
    let docker = Docker::from_environment("/nowhere").unwrap();
    match docker.image(BASE).await {
        Ok(_) => Some(docker),
        Err(error) => {
            skip(&format!("no engine with {BASE}: {error}"));
            None
        }
    }
}

async fn built(
    docker: &Docker,
    request: &ImageRequest,
    gate: SecretGate<'_>,
) -> Result<(Built, Vec<BuildEvent>), Error> {
    let prepared = prepare(request, gate, &std::env::temp_dir())?;
    let (events, mut said) = mpsc::channel(16);
    let listener = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(event) = said.recv().await {
            all.push(event);
        }
        all
    });
    let built = ensure(docker, request, prepared, events).await?;
    Ok((built, listener.await.unwrap()))
}

#[tokio::test]
async fn a_cache_mount_is_the_projects_own() {
    let Some(docker) = engine().await else { return };
    let found = async |project: &tempfile::TempDir| {
        let error = built(&docker, &request(project.path()), &gate).await.unwrap_err();
        let Error::Provider(provider::Error::BuildFailed { output, .. }) = error else { panic!("{error:?}") };
        output
    };
    let text = "RUN --mount=type=cache,target=/c ls /c; touch /c/left-here; exit 3\n";
    let (one, other) = (project(&of_this_test(text)), project(&of_this_test(text)));
    assert!(found(&one).await.is_empty());
    assert_eq!(found(&one).await, ["left-here"]);
    assert!(found(&other).await.is_empty());
}

#[test]
fn what_is_left_of_an_hour_is_not_what_is_said() {
    let late = provider::Error::BuildTooLong { after: Duration::from_secs(7) };
    assert!(of_the_whole(late.into()).to_string().contains("longer than 60 min"));
}

/// A label makes the hash, and so the image, this test's own.
fn of_this_test(text: &str) -> String {
    format!("FROM {BASE}\nLABEL test={}\n{text}", ulid::Ulid::new())
}

#[tokio::test]
async fn the_users_image_gets_openssh_and_no_secret() {
    let Some(docker) = engine().await else { return };
    let dir = project(&of_this_test("ENV LD_PRELOAD=/nothing.so A=\"b c\"\nUSER nobody\nWORKDIR /app\nCOPY . /app\n"));
    let request = request(dir.path());
    let (first, events) = match built(&docker, &request, &gate).await {
        Ok(it) => it,
        Err(Error::Provider(provider::Error::BuildFailed { output, .. }))
            if output.iter().any(|line| line.contains("Temporary failure resolving")) =>
        {
            return skip("no package server can be reached from a build");
        }
        Err(other) => panic!("{other:?}"),
    };
    assert!(first.built && first.reference.starts_with("vcoding/image-test:"));
    assert!(events.iter().any(|event| matches!(event, BuildEvent::Done { .. })));
    assert!(
        events.iter().any(|event| matches!(event, BuildEvent::Log { line, .. } if line.contains("openssh-server")))
    );
    let paths = [
        "/usr/sbin/sshd",
        "/app/src/main.txt",
        "/app/.env",
        "/app/conf/id",
        "/app/.git",
        "/app/target",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_rsa_key",
        "/app/link",
    ];
    let kinds: Vec<_> = docker.peek(&first.image, &paths.map(Look::At)).await.unwrap().iter().map(|p| p.kind).collect();
    use PathKind::{File, Link, Missing};
    assert_eq!(kinds, [File, File, Missing, Missing, Missing, Missing, Missing, Missing, Link]);
    assert!(first.info.env.contains(&"LD_PRELOAD=/nothing.so".to_owned()), "{:?}", first.info.env);
    assert!(first.info.env.contains(&"A=b c".to_owned()));
    assert_eq!((first.info.user.as_str(), first.info.working_dir.as_str()), ("nobody", "/app"));

    let (second, events) = built(&docker, &request, &gate).await.unwrap();
    assert!(!second.built && second.image == first.image && events.is_empty());

    let accounts = accounts(&docker, &first.image).await.unwrap();
    assert!(accounts.accounts.iter().any(|a| a.name == "root" && a.uid == 0));
    assert!(accounts.accounts.iter().any(|a| a.name == "sshd"));
    assert!(accounts.groups.iter().any(|g| g.name == "nogroup" && g.gid == 65_534));
    docker.remove_image(&first.reference).await.unwrap();
}

#[tokio::test]
async fn a_failing_build_says_where_and_what() {
    let Some(docker) = engine().await else { return };
    let dir = project(&of_this_test("RUN echo first\nRUN echo reason >&2; exit 3\n"));
    let error = built(&docker, &request(dir.path()), &gate).await.unwrap_err();
    let Error::Provider(provider::Error::BuildFailed { step, cause, output }) = &error else { panic!("{error:?}") };
    assert!(step.contains("exit 3"), "{step}");
    assert!(cause.contains('3'), "{cause}");
    assert_eq!(output, &["reason"]);
    assert_eq!(error.hint(), None);

    let dir = project(&of_this_test(
        "RUN echo 'curl: (60) SSL certificate problem: unable to get local issuer certificate'; exit 60\n",
    ));
    let error = built(&docker, &request(dir.path()), &gate).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("update-ca-certificates")));

    // Nothing listens there.
    let dir = project("FROM 127.0.0.1:1/nowhere:1\n");
    let error = built(&docker, &request(dir.path()), &gate).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("docker pull")), "{error:?}");

    let dir = project("FROM scratch\nNONSENSE\n");
    let error = built(&docker, &request(dir.path()), &gate).await.unwrap_err();
    assert!(
        matches!(&error, Error::Provider(provider::Error::BuildFailed { cause, .. }) if cause.contains("NONSENSE")),
        "{error:?}"
    );
}

#[tokio::test]
async fn images_that_would_not_be_sealed_are_refused() {
    let Some(docker) = engine().await else { return };
    for (line, why) in [
        ("ONBUILD COPY . /stolen", "ONBUILD"),
        ("LABEL vcoding.id=01jd0000000000000000000000", "vcoding.id"),
        ("VOLUME /work/cache", "/work"),
        ("VOLUME /home", "/home"),
        ("RUN ln -s /etc /work", "/work is a link"),
        ("RUN mkdir /opt/vcoding && ln -s /work /opt/vcoding/agents", "/opt/vcoding/agents is a link"),
        ("RUN mv /home /home2 && ln -s /home2 /home", "/home is a link"),
        ("RUN rm /etc/passwd && ln -s group /etc/passwd", "/etc/passwd is a link"),
        ("RUN rm -f /work && touch /work", "/work is a file"),
    ] {
        let dir = project(&of_this_test(line));
        let request = request(dir.path());
        let error = built(&docker, &request, &gate).await.expect_err(line);
        assert!(matches!(&error, Error::Unsuitable { why: said } if said.contains(why)), "{line}: {error}");
        let left = docker.image(&half_made(&request.name, &request.workspace)).await;
        assert!(matches!(left, Err(provider::Error::NoSuchImage { .. })), "{line}: it is left behind");
    }
}

#[test]
fn an_image_is_of_the_workspaces_whose_name_it_has() {
    let name = |text: &str| text.parse::<protocol::WorkspaceName>().unwrap();
    assert!(is_of("vcoding/shop-2:0123", &name("shop.2")));
    for other in ["vcoding/shop:0123", "vcoding/shop-20:0123", "sha256:0123", "shop-2:0123"] {
        assert!(!is_of(other, &name("shop.2")), "{other}");
    }
}
