//! The suite that every provider passes: what callers count on, and nothing of how it is done.

use std::future::Future;
use std::time::Duration;

use super::{Error, GuestSpec, GuestState, InitProcess, Provider};

const GRACE: Duration = Duration::from_secs(5);

/// Runs the suite on one provider. `spec` names an image and directories that exist; there is no
/// such guest yet, and none is left.
pub(super) async fn hold<P: Provider>(provider: &P, spec: &GuestSpec) {
    let id = &spec.id;
    provider.probe().await.unwrap();
    assert!(matches!(provider.image("vcoding-test/no-such:image").await, Err(Error::NoSuchImage { .. })));
    assert_eq!(provider.image(&spec.image.0).await.unwrap().id, spec.image);

    nothing_there(provider, spec).await;

    let name = format!("vcoding-test-of-{id}:x");
    provider.tag(&spec.image, &name).await.unwrap();
    let named = provider.images("vcoding-test-of-").await.unwrap();
    assert!(named.iter().any(|image| image.name == name && image.bytes > 0), "{named:?}");
    assert!(named.iter().all(|image| image.name.starts_with("vcoding-test-of-")), "{named:?}");
    provider.remove_image(&name).await.unwrap();
    assert!(provider.images("vcoding-test-of-").await.unwrap().iter().all(|image| image.name != name));

    provider.create(spec).await.unwrap();
    provider.create(spec).await.expect("the same once more is fine");
    assert_eq!(state(provider, spec).await, Some(GuestState::Created));
    let mut larger = spec.clone();
    larger.limits.memory *= 2;
    let newer = GuestSpec { helper: "0123456789abcdef".to_owned(), ..spec.clone() };
    for other in [larger, newer] {
        assert!(matches!(provider.create(&other).await, Err(Error::Conflict { .. })), "{other:?}");
        assert!(matches!(provider.start(&other).await, Err(Error::Conflict { .. })), "{other:?}");
    }
    refused_when_not_running(provider, spec).await;

    let first = provider.start(spec).await.unwrap();
    assert_eq!(first.report.interfaces, ["lo"]);
    assert_eq!(provider.start(spec).await.expect("one that runs is compared again"), first);
    assert_eq!(provider.init_process(id).await.unwrap(), first.init);
    assert_eq!(state(provider, spec).await, Some(GuestState::Running { pid: first.init.pid }));
    assert_eq!(provider.memory_kills(&first.init), Some(0));
    let other = InitProcess { start_time: first.init.start_time + 1, ..first.init };
    assert_eq!(provider.memory_kills(&other), None, "another process with its number");
    assert!(provider.list().await.unwrap().iter().any(|guest| guest.id == *id && guest.name == spec.name.as_str()));

    provider.pause(id).await.unwrap();
    provider.pause(id).await.expect("a frozen one is fine");
    assert_eq!(state(provider, spec).await, Some(GuestState::Paused { pid: first.init.pid }));
    assert!(matches!(provider.carrier_stream(id).await.map(drop), Err(Error::NotRunning { .. })));
    provider.unpause(id).await.unwrap();
    provider.unpause(id).await.expect("one that is not frozen is fine");
    drop(provider.carrier_stream(id).await.unwrap());

    provider.sweep(id).await.unwrap();
    assert_eq!(state(provider, spec).await, Some(GuestState::Running { pid: first.init.pid }), "but its init");

    // A frozen guest is stopped as well as another.
    provider.pause(id).await.unwrap();
    provider.stop(id, GRACE).await.unwrap();
    provider.stop(id, GRACE).await.expect("a stopped one is fine");
    assert!(matches!(state(provider, spec).await, Some(GuestState::Exited { out_of_memory: false, .. })));
    refused_when_not_running(provider, spec).await;
    assert_eq!(provider.memory_kills(&first.init), None);

    let second = provider.start(spec).await.unwrap();
    assert_ne!(second.init, first.init, "another life is another init");

    both(provider.remove(id), provider.remove(id)).await;
    provider.remove(id).await.expect("a missing one is fine");
    nothing_there(provider, spec).await;

    // Two at once make one guest.
    let (a, b) = futures_util::future::join(provider.create(spec), provider.create(spec)).await;
    a.and(b).unwrap();
    assert_eq!(provider.list().await.unwrap().iter().filter(|guest| guest.id == *id).count(), 1);
    provider.remove(id).await.unwrap();
}

async fn nothing_there<P: Provider>(provider: &P, spec: &GuestSpec) {
    let id = &spec.id;
    assert_eq!(provider.inspect(id).await.unwrap(), None);
    assert!(provider.list().await.unwrap().iter().all(|guest| guest.id != *id));
    let missing = |outcome: Result<(), Error>| matches!(outcome, Err(Error::NoSuchGuest { .. }));
    assert!(missing(provider.start(spec).await.map(drop)));
    assert!(missing(provider.stop(id, GRACE).await));
    assert!(missing(provider.pause(id).await));
    assert!(missing(provider.unpause(id).await));
    assert!(missing(provider.sweep(id).await));
    assert!(missing(provider.init_process(id).await.map(drop)));
    assert!(missing(provider.carrier_stream(id).await.map(drop)));
    provider.remove(id).await.unwrap();
}

async fn refused_when_not_running<P: Provider>(provider: &P, spec: &GuestSpec) {
    let id = &spec.id;
    let refused = |outcome: Result<(), Error>| matches!(outcome, Err(Error::NotRunning { .. }));
    assert!(refused(provider.pause(id).await));
    assert!(refused(provider.unpause(id).await));
    assert!(refused(provider.sweep(id).await));
    assert!(refused(provider.init_process(id).await.map(drop)));
    assert!(refused(provider.carrier_stream(id).await.map(drop)));
}

async fn state<P: Provider>(provider: &P, spec: &GuestSpec) -> Option<GuestState> {
    provider.inspect(&spec.id).await.unwrap().map(|guest| guest.state)
}

async fn both<E: std::fmt::Debug>(a: impl Future<Output = Result<(), E>>, b: impl Future<Output = Result<(), E>>) {
    let (a, b) = futures_util::future::join(a, b).await;
    a.unwrap();
    b.unwrap();
}

#[tokio::test]
async fn the_docker_engine_holds_the_contract() {
    let Some(world) = super::docker::tests::world().await else { return };
    hold(&world.docker, &world.spec).await;
}

#[tokio::test]
async fn the_fake_holds_the_contract() {
    let guest = super::fake::tests::TestGuest::new();
    hold(&guest.fake, &guest.spec).await;
}
