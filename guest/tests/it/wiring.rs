//! Start, stop, and the way to the model endpoint.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use guest::run::End;

use crate::container::{Guest, a_run, shell, text};

#[test]
fn a_connection_to_the_model_waits_for_the_hosts_end() {
    let Some(guest) = Guest::start() else { return };
    let script = "exec 3<>/dev/tcp/127.0.0.1/7001 && echo connected && echo question >&3 && cat <&3";
    let frame = guest::Frame::exec(["bash", "-c", script]);
    let mut child = guest.send(&[], &frame);
    let mut said = [0; 10];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"connected\n");
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("127.0.0.1:7002:127.0.0.1:{}", host.local_addr().unwrap().port());
    let mut forwarding = guest.ssh(&["-N", "-R", &forward], "work").spawn().unwrap();
    let (mut stream, _) = host.accept().unwrap();
    let mut question = [0; 9];
    stream.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question\n");
    stream.write_all(b"answer").unwrap();
    drop(stream);
    assert_eq!(text(&child.wait_with_output().unwrap()), "answer");
    forwarding.kill().unwrap();
    forwarding.wait().unwrap();
}

#[test]
fn a_stop_is_quick_clean_and_leaves_an_end_of_each_run() {
    let Some(guest) = Guest::start() else { return };
    assert!(guest.frame(&a_run("trap '' TERM INT; sleep 7601; sleep 7602; :"), b"").status.success());
    let mut child = guest.send(&[], &shell("trap '' TERM; echo up; sleep 7603; sleep 7604"));
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let (time, status) = guest.stop();
    assert_eq!(status, "0", "{}", guest.logs());
    assert!(time.as_secs() < 10, "{time:?}");
    assert!(matches!(guest.end(), End::Cancelled | End::SupervisorKilled));
    child.wait().unwrap();
}

#[test]
fn a_home_that_is_empty_is_filled_from_the_images_skeleton() {
    let Some(guest) = Guest::start() else { return };
    assert_eq!(guest.exec("cmp ~/.profile /etc/skel/.profile").status.code(), Some(0));
}
